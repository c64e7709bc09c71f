// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Committing.

use std::io;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::libc;

use super::Context;
use super::Inner;
use super::PAGE_SHIFT;
use super::Shared;
use super::lock;
use crate::error::Error;
use crate::hooks::Hooks;
use crate::safe_point::Held;
use crate::saving::Job;
use crate::saving::Queue;
use crate::saving::Saving;
use crate::saving::queue::Room;
use crate::saving::worker;
use crate::store::CommitInfo;
use crate::store::CommitMeta;
use crate::store::Kind;
use crate::sys::memory::PAGE;
use crate::sys::thread;
use crate::track::Committed;
use crate::track::Frozen;
use crate::track::Snapshot;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// The epoch.
    pub epoch: u64,
    /// True when it is durable already.
    pub durable: bool,
    /// Pages saved or to be saved, zero pages among them.
    pub pages: u64,
    /// Bytes the chain grew by; 0 when that is not known yet.
    pub stored_bytes: u64,
    /// For how long the tracker held writers up.
    pub pause_ns: u64,
    /// How long the call took, hooks included.
    pub total_ns: u64,
}

impl Context {
    /// Closes the epoch; it is saved in the background, or before this returns if the options
    /// or `CKPT_COMMIT=sync` want that. [`Context::wait`] waits until it is durable.
    ///
    /// When there are [`IN_FLIGHT_MAX`](crate::saving::IN_FLIGHT_MAX) commits on their way to
    /// the chain already, it first waits until there are fewer.
    ///
    /// When a commit could not be saved, it and those on their way behind it are given up, and
    /// the next one takes everything since the last durable epoch and waits for it: it
    /// succeeds when all that is durable. So when this fails, nothing is lost: what changed is
    /// saved by the next commit that succeeds.
    pub fn commit(&self) -> Result<CommitReport, Error> {
        self.commit_as(self.shared.saving)
    }

    /// Closes the epoch and saves it. It is durable when this returns.
    ///
    /// When it fails, nothing is lost: what changed is saved by the next commit that succeeds.
    pub fn commit_sync(&self) -> Result<CommitReport, Error> {
        self.commit_as(Saving::Synchronous)
    }

    fn commit_as(&self, saving: Saving) -> Result<CommitReport, Error> {
        self.refuse_in_hooks("commit")?;
        self.shared.threads.refuse_inside("commit")?;
        let _turn = lock(&self.shared.turn);
        let begun = Instant::now();
        drop(self.inner()?);
        // Whatever there is to wait for, the hooks have not stopped the program for it yet.
        match saving {
            Saving::Background => drop(self.shared.queue.room()?),
            Saving::Synchronous => self.shared.queue.drain()?,
        }
        let held = self.shared.threads.hold()?;
        let next = self.shared.queue.next_epoch();
        let hooks = lock(&self.shared.hooks).clone();
        self.in_hooks(|| hooks.before_commit(self, next))?;
        let mut report = match saving {
            Saving::Background => self.in_background(&hooks, held),
            Saving::Synchronous => self.now(&hooks, held),
        }?;
        self.alive()?;
        report.total_ns = begun.elapsed().as_nanos() as u64;
        Ok(report)
    }

    fn in_background(&self, hooks: &Hooks, held: Held) -> Result<CommitReport, Error> {
        if let Err(why) = self.shared.start_worker() {
            return self.without_snapshot(
                "the thread that saves cannot be started",
                &why,
                hooks,
                held,
            );
        }
        let others = self.shared.queue.stats().in_flight > 0;
        let mut frozen = self.freeze(hooks)?;
        if frozen.is_err() && others {
            // What those on their way have taken may be enough.
            self.shared.queue.drain()?;
            frozen = self.freeze(hooks)?;
        }
        let (room, committed, job) = match frozen {
            Ok(frozen) => frozen,
            Err(why) => {
                return self.without_snapshot("there is no snapshot", &why, hooks, held);
            }
        };
        drop(held);
        let report = CommitReport {
            epoch: committed.epoch,
            durable: room.wait,
            pages: job.snapshot.pages(),
            stored_bytes: 0,
            pause_ns: committed.pause_ns,
            total_ns: 0,
        };
        self.shared.queue.push(job, room, committed)?;
        if room.wait {
            self.shared.queue.wait(report.epoch, None)?;
        }
        Ok(report)
    }

    /// Closes the epoch with a snapshot, if there can be one.
    fn freeze(&self, hooks: &Hooks) -> Result<Result<(Room, Committed, Job), io::Error>, Error> {
        let room = self.shared.queue.room()?;
        // A hook behind a commit runs in the thread that thaws, and may write to the arena.
        let whole = hooks.any_after_commit();
        let mut inner = self.inner()?;
        self.shared.queue.closing_now();
        let (committed, snapshot) = match inner.arena.commit_with_snapshot(room.since, whole)? {
            Frozen::Made(committed, snapshot) => (committed, snapshot),
            Frozen::Refused(why) => return Ok(Err(why)),
        };
        let closed_at = Instant::now();
        self.shared.control.closed(committed.epoch);
        let meta = self.shared.meta(&mut inner, committed, Kind::Commit, None);
        let job = Job {
            meta,
            snapshot,
            closed_at,
            hooks: hooks.clone(),
        };
        Ok(Ok((room, committed, job)))
    }

    /// Goes on synchronously where it cannot be otherwise.
    fn without_snapshot(
        &self,
        what: &str,
        why: &io::Error,
        hooks: &Hooks,
        held: Held,
    ) -> Result<CommitReport, Error> {
        if self.shared.queue.note_fallback() {
            eprintln!(
                "ckpt: {what}: {why}; such commits are saved before the program goes on: {}",
                advice(why)
            );
        }
        self.shared.queue.drain()?;
        self.now(hooks, held)
    }

    /// Commits and saves. Nothing is on its way.
    fn now(&self, hooks: &Hooks, held: Held) -> Result<CommitReport, Error> {
        let shared = &self.shared;
        let (committed, info) = {
            let mut inner = self.inner()?;
            shared.queue.closing_now();
            let committed = inner.arena.commit()?;
            let closed_at = Instant::now();
            shared.control.closed(committed.epoch);
            let parent = shared.queue.durable();
            let meta = shared.meta(&mut inner, committed, Kind::Commit, parent);
            let delta = inner.arena.delta(shared.queue.saved());
            let saved = delta.and_then(|delta| {
                lock(&shared.chain_end).append_arena(&meta, &inner.arena, &delta)
            });
            let info = shared.queue.saved_now(committed, closed_at, saved)?;
            (committed, info)
        };
        drop(held);
        shared.control.saved(info.epoch);
        self.tell(hooks, info.epoch);
        shared.queue.told(info.epoch);
        Ok(CommitReport {
            epoch: info.epoch,
            durable: true,
            pages: info.pages(),
            stored_bytes: info.stored_bytes,
            pause_ns: committed.pause_ns,
            total_ns: 0,
        })
    }
}

impl Context {
    /// Tells hooks that an epoch is durable.
    fn tell(&self, hooks: &Hooks, epoch: u64) {
        let run = || self.in_hooks(|| hooks.after_commit(self, epoch));
        self.shared.threads.while_telling(run);
    }
}

/// What can be done where there is no snapshot.
fn advice(why: &io::Error) -> &'static str {
    match why.raw_os_error() {
        Some(libc::ENOMEM) => {
            "the pages of a snapshot are charged until they are saved, so raise RLIMIT_MEMLOCK (`ulimit -l`)"
        }
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
        Some(libc::EBUSY) => {
            "too many children hold snapshots that were open when they were forked"
        }
        Some(libc::EAGAIN) => "raise the limit of threads (`ulimit -u`, TasksMax= of a unit)",
        _ => "load the module that came with this library (ckptctl doctor)",
    }
}

impl Shared {
    /// Starts the thread that saves, unless it runs.
    fn start_worker(self: &Arc<Shared>) -> io::Result<()> {
        let mut worker = lock(&self.worker);
        if worker.is_none() {
            let shared = Arc::clone(self);
            *worker = Some(thread::spawn(worker::NAME, move || worker::run(&shared))?);
        }
        Ok(())
    }

    /// What a record says of a commit that was just made.
    pub(super) fn meta(
        &self,
        inner: &mut Inner,
        committed: Committed,
        kind: Kind,
        parent: Option<u64>,
    ) -> CommitMeta {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        CommitMeta {
            epoch: committed.epoch,
            parent,
            kind,
            generation: *lock(&self.generation),
            time_ns: now.as_nanos() as u64,
            pause_ns: committed.pause_ns,
            arena_base: inner.arena.base(),
            arena_len_pages: inner.arena.len_bytes() / PAGE as u64,
            page_shift: PAGE_SHIFT,
            regions: inner.arena.regions(),
            identity: self.identity.clone(),
        }
    }
}

impl worker::Place for Arc<Shared> {
    fn queue(&self) -> &Queue {
        &self.queue
    }

    fn append(&self, meta: &CommitMeta, snapshot: &mut dyn Snapshot) -> Result<CommitInfo, Error> {
        let info = lock(&self.chain_end).append_snapshot(meta, snapshot)?;
        if let Some(supervisor) = &self.supervisor {
            supervisor.alive();
        }
        self.control.saved(info.epoch);
        Ok(info)
    }

    fn tell(&self, hooks: &Hooks, epoch: u64) {
        let context = Context {
            shared: Arc::clone(self),
            open: None,
        };
        Context::tell(&context, hooks, epoch);
    }
}
