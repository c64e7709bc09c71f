// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A spare: takes a primary's records into a chain of its own, brings an arena to the newest of
//! them, and has all that a program needs to go on from there.
//!
//! # Locks
//!
//! `writer`, then `state`. The one is held while a record is received, by the link that it comes
//! from; the other for a few instructions, and no call is made under it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use super::link::Closer;
use super::link::Link;
use super::message::Progress;
use super::spare_arena::SpareArena;
use super::spare_link;
use super::spare_link::Ended;
use super::term_file;
use crate::error::Error;
use crate::saving::Compacting;
use crate::saving::Tending;
use crate::store;
use crate::store::Chain;
use crate::store::CommitId;
use crate::store::CommitInfo;
use crate::store::Recovery;
use crate::store::Writer;
use crate::sys::thread;
use crate::warm::Kept;

/// Name of the thread that brings the arena to what was received.
const APPLIER: &str = "ckpt-apply";

/// What a spare is.
#[derive(Clone, Debug)]
pub struct SpareOptions {
    /// Its chain's directory.
    pub dir: PathBuf,
    /// The service that it is a spare of.
    pub service: String,
    /// Its own name, for people and for who decides about terms.
    pub node: String,
    /// How its chain is written by whoever takes over.
    pub store: store::Options,
    /// When its chain is compacted.
    pub compacting: Compacting,
    /// Keep an arena of the module's with the newest state.
    pub arena: bool,
}

/// A spare.
pub struct Spare {
    shared: Arc<Shared>,
    applier: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) options: SpareOptions,
    writer: Mutex<Option<Store>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// The chain that is written.
pub(super) struct Store {
    pub(super) writer: Writer,
    pub(super) tending: Tending,
}

#[derive(Default)]
struct State {
    /// The highest term heard of.
    term: u64,
    /// The newest commit in the chain.
    durable: Option<CommitId>,
    /// The commit that the arena has.
    applied: Option<CommitId>,
    /// An arena is wanted.
    wants_arena: bool,
    /// Why there is none then.
    no_arena: Option<String>,
    received_bytes: u64,
    records: u64,
    /// Links so far: each has a number.
    links: u64,
    /// Those of the primary, by number.
    active: BTreeMap<u64, Active>,
    /// What the primary said last of all.
    last: Option<LastWord>,
    /// No more is received.
    closed: bool,
    /// The arena, when no more is received and it has the last commit.
    arena_for_takeover: Option<SpareArena>,
}

struct Active {
    closer: Closer,
    primary: Primary,
}

/// The primary, as the spare knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its node.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Its term.
    pub term: u64,
    /// The newest epoch that it has told of.
    pub newest: u64,
    /// When it was heard of last.
    pub heard: Instant,
}

/// What a primary says when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// Its program has ended by itself: there is nothing to take over.
    Farewell,
    /// The spare shall go on.
    HandOver,
}

/// How a spare is doing.
#[derive(Clone, Debug)]
pub struct SpareStatus {
    /// The primary, when it is connected.
    pub primary: Option<Primary>,
    /// The highest term heard of.
    pub term: u64,
    /// The newest commit in the chain.
    pub durable: Option<CommitId>,
    /// The commit that the arena has.
    pub applied: Option<CommitId>,
    /// Why there is no arena, when one was wanted.
    pub no_arena: Option<String>,
    /// Records received since it was started.
    pub records: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// What the primary said last of all.
    pub last: Option<LastWord>,
}

/// What a program goes on from.
pub struct TakenOver {
    /// The commit; `None` when there is none.
    pub commit: Option<CommitId>,
    /// The term from now on.
    pub term: u64,
    /// An arena that has it, and what the program has to know of that.
    pub arena: Option<(OwnedFd, Kept)>,
    /// Why there is no arena.
    pub no_arena: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves anything half done that the next one could not bear.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spare {
    /// Opens the chain, or begins it, and loads its newest state.
    ///
    /// # Errors
    ///
    /// As [`Writer::open_or_create`]; [`Error::System`] when the term that is known cannot be read.
    pub fn open(options: SpareOptions) -> Result<(Spare, Recovery), Error> {
        let (writer, recovery) = Writer::open_or_create(&options.dir, options.store.clone())?;
        let term = term_file::known_term(&options.dir).map_err(|source| Error::System {
            doing: "tell which term the chain knows (file TERM)",
            source,
        })?;
        let durable = writer.chain().newest()?.map(CommitInfo::id);
        let tending = Tending::new(
            options.dir.clone(),
            options.store.clone(),
            options.compacting,
        );
        let shared = Arc::new(Shared {
            writer: Mutex::new(Some(Store { writer, tending })),
            state: Mutex::new(State {
                term,
                durable,
                wants_arena: options.arena,
                ..State::default()
            }),
            changed: Condvar::new(),
            options,
        });
        let applier = match shared.options.arena {
            false => None,
            true => {
                let shared = Arc::clone(&shared);
                let spawned = thread::spawn(APPLIER, move || shared.apply());
                Some(spawned.map_err(|source| Error::System {
                    doing: "start a thread",
                    source,
                })?)
            }
        };
        let applier = Mutex::new(applier);
        Ok((Spare { shared, applier }, recovery))
    }

    /// Takes what a primary sends, until the link ends.
    pub fn serve(&self, link: Link) -> Ended {
        spare_link::serve(&self.shared, link)
    }

    /// How it is doing.
    pub fn status(&self) -> SpareStatus {
        let state = lock(&self.shared.state);
        SpareStatus {
            primary: {
                let primaries = state.active.values().map(|active| &active.primary);
                primaries.max_by_key(|primary| primary.heard).cloned()
            },
            term: state.term,
            durable: state.durable,
            applied: state.applied,
            no_arena: state.no_arena.clone(),
            records: state.records,
            received_bytes: state.received_bytes,
            last: state.last,
        }
    }

    /// Its chain's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.options.dir
    }

    /// Ends all links, brings the arena to the last commit that came, and gives the chain's lock
    /// back: a program can go on here now. `term` is above all that were heard of, or 0 for the
    /// next one.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when the term cannot be noted: nothing has changed then but that the links
    /// are closed.
    pub fn take_over(&self, term: u64) -> Result<TakenOver, Error> {
        let shared = &self.shared;
        let term = {
            let state = lock(&shared.state);
            term.max(state.term + 1)
        };
        term_file::note_term(&shared.options.dir, term).map_err(|source| Error::System {
            doing: "note the new term (file TERM)",
            source,
        })?;
        {
            let mut state = lock(&shared.state);
            state.term = term;
            state.closed = true;
            state.close_links();
            shared.changed.notify_all();
        }
        // Whoever was receiving gives it back when its link ends. The lock goes with it.
        drop(lock(&shared.writer).take());
        let commit = lock(&shared.state).durable;
        let (arena, no_arena) = match lock(&self.applier).take() {
            None => (None, None),
            Some(applier) => {
                // It ends when it has come to the last commit.
                let _ = applier.join();
                let mut state = lock(&shared.state);
                let arena = state.arena_for_takeover.take();
                match (arena, state.no_arena.clone()) {
                    (Some(arena), _) => match arena.hand_over() {
                        Ok(arena) => (Some(arena), None),
                        Err(error) => (None, Some(error.to_string())),
                    },
                    (None, why) => (None, why),
                }
            }
        };
        Ok(TakenOver {
            commit,
            term,
            arena,
            no_arena,
        })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        state.close_links();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(applier) = lock(&self.applier).take() {
            let _ = applier.join();
        }
    }
}

impl State {
    fn close_links(&self) {
        for active in self.active.values() {
            active.closer.close();
        }
    }

    fn progress(&self) -> Progress {
        let epoch = |id: Option<CommitId>| id.map_or(0, |id| id.epoch);
        let durable = epoch(self.durable);
        let has_arena = self.wants_arena && self.no_arena.is_none();
        Progress {
            received: durable,
            durable,
            // Without an arena there is nothing left to be done.
            applied: if has_arena {
                epoch(self.applied)
            } else {
                durable
            },
        }
    }
}

impl Shared {
    /// A link begins. Its number, or the term that is known when there is a later one. A primary may
    /// have several: a dead one may linger, and somebody else may send the same chain.
    pub(super) fn begin_link(&self, primary: Primary, closer: Closer) -> Result<u64, Refused> {
        let term = {
            let state = lock(&self.state);
            if state.closed {
                return Err(Refused::Closed);
            }
            if primary.term < state.term {
                return Err(Refused::Fenced(state.term));
            }
            state.term
        };
        if primary.term > term {
            term_file::note_term(&self.options.dir, primary.term).map_err(Refused::Term)?;
        }
        let mut state = lock(&self.state);
        // Somebody may have been faster.
        if primary.term < state.term {
            return Err(Refused::Fenced(state.term));
        }
        if primary.term > state.term {
            // They are of somebody who is no primary any more.
            state.close_links();
            state.active.clear();
        }
        state.term = primary.term;
        state.links += 1;
        let number = state.links;
        state.active.insert(number, Active { closer, primary });
        state.last = None;
        Ok(number)
    }

    /// Whether a link is one of the primary's; notes that it was heard of.
    pub(super) fn is_active(&self, link: u64, newest: Option<u64>) -> bool {
        let mut state = lock(&self.state);
        let closed = state.closed;
        let Some(active) = state.active.get_mut(&link) else {
            return false;
        };
        active.primary.heard = Instant::now();
        if let Some(newest) = newest {
            active.primary.newest = active.primary.newest.max(newest);
        }
        !closed
    }

    /// A link has ended.
    pub(super) fn end_link(&self, link: u64) {
        let mut state = lock(&self.state);
        state.active.remove(&link);
        drop(state);
        self.changed.notify_all();
    }

    /// What is known of the term.
    pub(super) fn term(&self) -> u64 {
        lock(&self.state).term
    }

    /// The chain, to be written to; `None` when no more is received.
    pub(super) fn store(&self) -> MutexGuard<'_, Option<Store>> {
        lock(&self.writer)
    }

    /// A commit is in the chain.
    pub(super) fn received(&self, info: &CommitInfo) {
        let mut state = lock(&self.state);
        state.durable = Some(info.id());
        state.records += 1;
        state.received_bytes += info.stored_bytes;
        drop(state);
        self.changed.notify_all();
    }

    /// What the chain has, and the arena.
    pub(super) fn progress(&self) -> Progress {
        lock(&self.state).progress()
    }

    /// Waits until more was received or applied, for so long at most.
    pub(super) fn wait_for_progress(&self, seen: Progress, timeout: Duration) -> Progress {
        let state = lock(&self.state);
        if state.closed || state.progress() != seen {
            return state.progress();
        }
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0.progress()
    }

    /// The primary goes.
    pub(super) fn last_word(&self, word: LastWord) {
        lock(&self.state).last = Some(word);
        self.changed.notify_all();
    }

    /// Waits until the arena has a commit, or there will be none, or the time is over.
    pub(super) fn wait_applied(&self, id: CommitId, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if state.applied == Some(id) || state.no_arena.is_some() || !self.options.arena {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Brings the arena to what was received, again and again. Leaves it in the state when no more
    /// will be.
    fn apply(&self) {
        let mut arena: Option<SpareArena> = None;
        let mut chain: Option<Chain> = None;
        loop {
            let mut state = lock(&self.state);
            let wanted = loop {
                let at = arena.as_ref().and_then(SpareArena::at);
                if state.durable.is_some() && state.durable != at {
                    break state.durable;
                }
                if state.closed {
                    state.arena_for_takeover = arena;
                    return;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            let Some(id) = wanted else { continue };
            let applied = self.bring(&mut arena, &mut chain, id);
            let mut state = lock(&self.state);
            match applied {
                Ok(()) => state.applied = Some(id),
                Err(error) => {
                    state.no_arena = Some(error.to_string());
                    state.applied = None;
                    drop(state);
                    self.changed.notify_all();
                    return;
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Brings the arena to a commit that is in the chain, or makes one that has it.
    fn bring(
        &self,
        arena: &mut Option<SpareArena>,
        chain: &mut Option<Chain>,
        id: CommitId,
    ) -> Result<(), Error> {
        let chain = match chain {
            Some(chain) => {
                chain.follow()?;
                chain
            }
            None => chain.insert(Chain::open(&self.options.dir)?),
        };
        let fits = match &*arena {
            Some(arena) => arena.fits(chain, id.epoch)?,
            None => false,
        };
        if !fits {
            // The old one's memory first.
            *arena = None;
            *arena = Some(SpareArena::open(&self.options.service, chain, id.epoch)?);
        }
        match arena {
            Some(arena) => arena.bring_to(chain, id.epoch).map(drop),
            None => unreachable!("made above"),
        }
    }
}

/// Why a link may not be.
#[derive(Debug)]
pub(super) enum Refused {
    /// No more is received.
    Closed,
    /// There is a later term.
    Fenced(u64),
    /// The term cannot be noted.
    Term(io::Error),
}
