// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Those who want to know what became durable, without waiting for it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;

/// What of the program's state is durable, hooks told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// The newest durable epoch of this state, 0 before any.
    pub(crate) epoch: u64,
    /// The attempt to close an epoch that closed it, see [`super::closings`].
    pub(crate) closing: u64,
    /// The newest epoch that is on another host, 0 before any.
    pub(crate) replicated: u64,
}

/// Somebody who is told. No lock is held when this is done, so what is told may be old: the
/// calls of two threads can come in either order.
pub(crate) trait Watch: Send + Sync {
    /// More is durable.
    fn durable(&self, now: Durable);

    /// What was not durable was taken back: the program's state is an earlier one again.
    fn taken_back(&self);

    /// The context was closed. What is not durable now will not be.
    fn ended(&self);
}

/// All of them.
#[derive(Default)]
pub(super) struct Watchers {
    list: Mutex<Vec<Weak<dyn Watch>>>,
}

impl Watchers {
    pub(super) fn add(&self, watcher: Weak<dyn Watch>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|watcher| watcher.strong_count() > 0);
        list.push(watcher);
    }

    /// Tells each.
    pub(super) fn tell(&self, what: impl Fn(&dyn Watch)) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let watchers: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        drop(list);
        for watcher in watchers {
            what(&*watcher);
        }
    }
}
