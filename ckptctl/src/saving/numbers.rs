// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which epochs are closed, on their way, durable, given up. Pure: who waits for what is the
//! queue's.

use std::sync::Arc;

use crate::error::Error;

/// What holds of an epoch.
pub(super) enum Fate {
    /// Nobody has committed it yet.
    Future,
    /// It, or a later one that has what it had, will be durable or given up.
    OnItsWay,
    /// It, or a later one that has what it had, is durable, and hooks have been told.
    Durable,
    /// It was given up, for this reason.
    GivenUp(Arc<Error>),
}

/// The epochs of a context.
///
/// # Invariants
///
/// `told <= saved <= queued <= closed`. `saved == queued` when nothing is on its way. Without a
/// failure `queued == closed`.
pub(super) struct Numbers {
    /// The newest epoch that was closed.
    closed: u64,
    /// Everything up to here is in the chain or on its way there: the cursor of the next
    /// snapshot.
    queued: u64,
    /// Everything up to here is in the chain: the cursor after a failure.
    saved: u64,
    /// As `saved`, and the hooks have been told.
    told: u64,
    /// The durable epoch that the next record builds on; there may be none.
    parent: Option<u64>,
    /// Commits on their way.
    in_flight: usize,
    /// Why what is between `saved` and `closed` was given up, if it was.
    failure: Option<Arc<Error>>,
    /// Failures so far.
    failures: u64,
}

impl Numbers {
    /// Of a context whose arena begins behind epoch `highest`, with the state of `parent`.
    pub(super) fn new(highest: u64, parent: Option<u64>) -> Numbers {
        Numbers {
            closed: highest,
            queued: highest,
            saved: highest,
            told: highest,
            parent,
            in_flight: 0,
            failure: None,
            failures: 0,
        }
    }

    pub(super) fn closed(&self) -> u64 {
        self.closed
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    pub(super) fn parent(&self) -> Option<u64> {
        self.parent
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Why the newest commits were given up, if they were and nothing was saved since.
    pub(super) fn failure(&self) -> Option<&Arc<Error>> {
        self.failure.as_ref()
    }

    /// What the next commit builds on: durable, or on its way to be.
    pub(super) fn newest(&self) -> Option<u64> {
        match self.queued > self.saved {
            true => Some(self.queued),
            false => self.parent,
        }
    }

    pub(super) fn fate(&self, epoch: u64) -> Fate {
        if epoch <= self.told {
            return Fate::Durable;
        }
        if epoch > self.closed {
            return Fate::Future;
        }
        match &self.failure {
            // A failure gives up all that is on its way, so what is now began later.
            Some(error) if self.in_flight == 0 => Fate::GivenUp(Arc::clone(error)),
            _ => Fate::OnItsWay,
        }
    }

    /// An epoch was closed, with a snapshot since `since`, when there had been `failures`
    /// failures. False if it is given up at once: a failure since then has made what it builds
    /// on unsaved.
    pub(super) fn push(&mut self, epoch: u64, since: u64, failures: u64) -> bool {
        self.closed = epoch;
        if failures != self.failures {
            return false;
        }
        debug_assert_eq!(since, self.queued);
        self.queued = epoch;
        self.in_flight += 1;
        true
    }

    /// The oldest on its way is durable.
    pub(super) fn save(&mut self, epoch: u64) {
        self.saved = epoch;
        self.parent = Some(epoch);
        self.failure = None;
    }

    /// The hooks of the oldest on its way have been told.
    pub(super) fn tell(&mut self, epoch: u64) {
        self.told = epoch;
        self.in_flight -= 1;
    }

    /// The oldest on its way could not be saved. All are given up; how many that is.
    pub(super) fn fail(&mut self, error: Arc<Error>) -> usize {
        self.queued = self.saved;
        self.failure = Some(error);
        self.failures += 1;
        std::mem::take(&mut self.in_flight)
    }

    /// The same steps in one, for a commit that was saved without being on its way: nothing
    /// else is.
    pub(super) fn save_now(&mut self, epoch: u64, error: Option<Arc<Error>>) {
        let pushed = self.push(epoch, self.queued, self.failures);
        debug_assert!(pushed);
        match error {
            None => self.save(epoch),
            Some(error) => {
                self.fail(error);
            }
        }
    }
}
