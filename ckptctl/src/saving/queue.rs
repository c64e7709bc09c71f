// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits on their way to the chain, and those who wait for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use super::IN_FLIGHT_MAX;
use super::Stats;
use super::closings::Closings;
use super::numbers::Fate;
use super::numbers::Numbers;
use super::watch::Durable;
use super::watch::Watch;
use super::watch::Watchers;
use crate::error::Error;
use crate::hooks::Hooks;
use crate::store::CommitInfo;
use crate::store::CommitMeta;
use crate::track::Committed;
use crate::track::Snapshot;

/// A commit on its way to the chain.
pub(crate) struct Job {
    /// What the record says, but for its parent.
    pub(crate) meta: CommitMeta,
    pub(crate) snapshot: Box<dyn Snapshot>,
    pub(crate) closed_at: Instant,
    /// Those to be told when it is durable.
    pub(crate) hooks: Hooks,
}

/// A place in the queue, for the thread whose turn it is to commit.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// The snapshot shall have what changed after this epoch.
    pub(crate) since: u64,
    /// The commits before were given up, so who makes this one waits for it.
    pub(crate) wait: bool,
    failures: u64,
}

/// The commits of a context on their way to the chain.
///
/// One thread at a time puts commits in: the one whose turn it is to commit. Its lock is held
/// for a few instructions at a time, and no other is taken under it.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    watchers: Watchers,
}

struct State {
    numbers: Numbers,
    closings: Closings,
    jobs: VecDeque<Job>,
    closing: bool,
    /// The newest epoch that is on another host.
    replicated: u64,
    stats: Stats,
}

impl Queue {
    /// Of a context whose arena begins behind epoch `highest`, with the state of `parent`.
    pub(crate) fn new(highest: u64, parent: Option<u64>) -> Queue {
        Queue {
            state: Mutex::new(State {
                numbers: Numbers::new(highest, parent),
                closings: Closings::default(),
                jobs: VecDeque::new(),
                closing: false,
                replicated: 0,
                stats: Stats::default(),
            }),
            changed: Condvar::new(),
            watchers: Watchers::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; false if the deadline came first.
    fn wait_for_change<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, State>, bool) {
        let Some(deadline) = deadline else {
            let state = self.changed.wait(state);
            return (state.unwrap_or_else(PoisonError::into_inner), true);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (state, false);
        }
        let waited = self.changed.wait_timeout(state, left);
        (waited.unwrap_or_else(PoisonError::into_inner).0, true)
    }

    /// The state was given an epoch of its own, before any commit.
    pub(crate) fn begin_with(&self, epoch: u64) {
        self.lock().numbers = Numbers::new(epoch, Some(epoch));
    }

    /// The epoch that the next commit will probably get.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.lock().numbers.closed() + 1
    }

    /// The commit that the next one builds on, durable or on its way.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.lock().numbers.newest()
    }

    /// The last durable epoch of this state.
    pub(crate) fn durable(&self) -> Option<u64> {
        self.lock().numbers.parent()
    }

    /// Everything up to this epoch is in the chain.
    pub(crate) fn saved(&self) -> u64 {
        self.lock().numbers.saved()
    }

    /// What commits have cost.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            in_flight: state.numbers.in_flight() as u64,
            ..state.stats
        }
    }

    /// Waits until there is room for a commit.
    pub(crate) fn room(&self) -> Result<Room, Error> {
        let mut state = self.lock();
        let begun = Instant::now();
        if state.numbers.in_flight() >= IN_FLIGHT_MAX {
            state.stats.queue_waits += 1;
            while state.numbers.in_flight() >= IN_FLIGHT_MAX {
                (state, _) = self.wait_for_change(state, None);
            }
            state.stats.queue_wait_ns += begun.elapsed().as_nanos() as u64;
        }
        if state.closing {
            return Err(Error::Invalid(
                "the context was closed: open it again".into(),
            ));
        }
        Ok(Room {
            since: state.numbers.queued(),
            wait: state.numbers.failure().is_some(),
            failures: state.numbers.failures(),
        })
    }

    /// The thread whose turn it is to commit is about to close an epoch.
    pub(crate) fn closing_now(&self) {
        self.lock().closings.begin();
    }

    /// Number of the next attempt to close an epoch: what the caller has written is in the
    /// epoch that this one closes, or a later one.
    pub(crate) fn next_closing(&self) -> u64 {
        self.lock().closings.next()
    }

    /// What is durable, hooks told.
    pub(crate) fn durable_so_far(&self) -> Durable {
        self.lock().durable_so_far()
    }

    /// The newest epoch that was closed, whatever becomes of it.
    pub(crate) fn closed(&self) -> u64 {
        self.lock().numbers.closed()
    }

    /// Tells somebody, from now on, what becomes durable.
    pub(crate) fn watch(&self, watcher: Weak<dyn Watch>) {
        self.watchers.add(watcher);
    }

    /// Puts a commit in, which was closed with this room's snapshot.
    ///
    /// # Errors
    ///
    /// A commit before it could not be saved meanwhile, so this one is given up, too.
    pub(crate) fn push(&self, job: Job, room: Room, committed: Committed) -> Result<(), Error> {
        let mut state = self.lock();
        let epoch = job.meta.epoch;
        let pushed = state.numbers.push(epoch, room.since, room.failures);
        state.note_closed(committed);
        if pushed {
            state.closings.closed(epoch);
            state.jobs.push_back(job);
            drop(state);
            self.changed.notify_all();
            return Ok(());
        }
        state.stats.given_up += 1;
        let fate = state.numbers.fate(epoch);
        // The snapshot ends when the job is dropped, which may take its time.
        drop(state);
        drop(job);
        match fate {
            Fate::GivenUp(source) => Err(Error::NotDurable { epoch, source }),
            _ => unreachable!("it was given up, and nobody else commits"),
        }
    }

    /// The next commit to be saved, and the epoch that it builds on; `None` when there will be
    /// no more.
    pub(crate) fn next(&self) -> Option<(Job, Option<u64>)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, state.numbers.parent()));
            }
            if state.closing {
                return None;
            }
            (state, _) = self.wait_for_change(state, None);
        }
    }

    /// The commit that `next` gave is durable. Those who wait for it go on only when
    /// [`Queue::told`] says so.
    pub(crate) fn durable_now(&self, info: &CommitInfo, closed_at: Instant) {
        let mut state = self.lock();
        state.numbers.save(info.epoch);
        state.note_durable(info, closed_at);
    }

    /// Hooks have been told of the commit that became durable.
    pub(crate) fn told(&self, epoch: u64) {
        let mut state = self.lock();
        state.numbers.tell(epoch);
        state.closings.tell(epoch);
        let now = state.durable_so_far();
        drop(state);
        self.changed.notify_all();
        self.watchers.tell(|watcher| watcher.durable(now));
    }

    /// The commit that `next` gave could not be saved: it and those behind it are given up.
    pub(crate) fn failed(&self, error: Error) {
        let mut state = self.lock();
        state.stats.given_up += state.numbers.fail(Arc::new(error)) as u64;
        state.closings.fail();
        let given_up = std::mem::take(&mut state.jobs);
        drop(state);
        self.changed.notify_all();
        // Their snapshots end here, which may take its time.
        drop(given_up);
    }

    /// Waits until nothing is on its way.
    pub(crate) fn drain(&self) -> Result<(), Error> {
        let mut state = self.lock();
        while state.numbers.in_flight() > 0 {
            (state, _) = self.wait_for_change(state, None);
        }
        match state.closing {
            true => Err(Error::Invalid(
                "the context was closed: open it again".into(),
            )),
            false => Ok(()),
        }
    }

    /// A commit was saved, or not, without a place in the queue, while it was empty. When it
    /// was, [`Queue::told`] must follow.
    pub(crate) fn saved_now(
        &self,
        committed: Committed,
        closed_at: Instant,
        saved: Result<CommitInfo, Error>,
    ) -> Result<CommitInfo, Error> {
        let mut state = self.lock();
        let epoch = committed.epoch;
        state.note_closed(committed);
        match saved {
            Ok(info) => {
                state.numbers.save_now(epoch, None);
                state.closings.closed(epoch);
                state.note_durable(&info, closed_at);
                Ok(info)
            }
            Err(error) => {
                let source = Arc::new(error);
                state.numbers.save_now(epoch, Some(Arc::clone(&source)));
                state.stats.given_up += 1;
                Err(Error::NotDurable { epoch, source })
            }
        }
    }

    /// A commit is made synchronously because there can be no snapshot. True the first time.
    pub(crate) fn note_fallback(&self) -> bool {
        let mut state = self.lock();
        state.stats.fallbacks += 1;
        state.stats.fallbacks == 1
    }

    /// Waits until an epoch, 0 for the newest, is durable and hooks have been told.
    pub(crate) fn wait(&self, epoch: u64, timeout: Option<Duration>) -> Result<(), Error> {
        // A time that is too far away to be told is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        let epoch = match epoch {
            0 => state.numbers.closed(),
            epoch => epoch,
        };
        loop {
            match state.numbers.fate(epoch) {
                Fate::Durable => return Ok(()),
                Fate::GivenUp(source) => return Err(Error::NotDurable { epoch, source }),
                Fate::Future => {
                    return Err(Error::Invalid(format!(
                        "epoch {epoch} was not committed yet, the last commit is {}: wait for one that was",
                        state.numbers.closed()
                    )));
                }
                Fate::OnItsWay => {
                    let in_time;
                    (state, in_time) = self.wait_for_change(state, deadline);
                    if !in_time {
                        return Err(Error::TimedOut { epoch });
                    }
                }
            }
        }
    }

    /// An epoch, and all before it, is on another host.
    pub(crate) fn replicated(&self, epoch: u64) {
        let mut state = self.lock();
        if epoch <= state.replicated {
            return;
        }
        state.replicated = epoch;
        let now = state.durable_so_far();
        drop(state);
        self.changed.notify_all();
        self.watchers.tell(|watcher| watcher.durable(now));
    }

    /// Waits until an epoch, 0 for the newest, is durable, and on another host.
    pub(crate) fn wait_replicated(
        &self,
        epoch: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let epoch = match epoch {
            0 => self.closed(),
            epoch => epoch,
        };
        self.wait(epoch, timeout)?;
        let mut state = self.lock();
        while epoch > state.replicated {
            let in_time;
            (state, in_time) = self.wait_for_change(state, deadline);
            if !in_time {
                return Err(Error::TimedOut { epoch });
            }
        }
        Ok(())
    }

    /// Nothing is put in any more. What is in it is still saved.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// The state is that of epoch `to` again, as epoch `epoch`, of which there is a record or
    /// not. Nothing is on its way. [`Queue::taken_back`] must follow.
    pub(crate) fn went_back(
        &self,
        epoch: u64,
        to: u64,
        saved: Result<CommitInfo, Error>,
    ) -> Result<u64, Error> {
        let saved = saved.map(|_| ()).map_err(Arc::new);
        let mut state = self.lock();
        state.numbers.go_back(epoch, to, saved.clone().err());
        state.closings.fail();
        drop(state);
        self.changed.notify_all();
        match saved {
            Ok(()) => Ok(epoch),
            Err(source) => Err(Error::NotDurable { epoch, source }),
        }
    }

    /// What is not durable was taken back. Nothing is on its way.
    pub(crate) fn taken_back(&self) {
        self.watchers.tell(|watcher| watcher.taken_back());
    }

    /// The thread that saves has ended, and so has the context.
    pub(crate) fn ended(&self) {
        self.watchers.tell(|watcher| watcher.ended());
    }
}

impl State {
    fn durable_so_far(&self) -> Durable {
        Durable {
            epoch: self.numbers.told(),
            closing: self.closings.durable(),
            replicated: self.replicated,
        }
    }

    fn note_closed(&mut self, committed: Committed) {
        let stats = &mut self.stats;
        stats.commits += 1;
        stats.pause_ns += committed.pause_ns;
        stats.pause_ns_max = stats.pause_ns_max.max(committed.pause_ns);
        stats.pause_ns_last = committed.pause_ns;
    }

    fn note_durable(&mut self, info: &CommitInfo, closed_at: Instant) {
        let stats = &mut self.stats;
        let took = closed_at.elapsed().as_nanos() as u64;
        stats.saved += 1;
        stats.durable_ns += took;
        stats.durable_ns_max = stats.durable_ns_max.max(took);
        stats.durable_ns_last = took;
        stats.pages += info.pages();
        stats.stored_bytes += info.stored_bytes;
        stats.unchanged_pages += info.unchanged_pages;
        stats.shared_pages += info.shared_pages;
    }
}
