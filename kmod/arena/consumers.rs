// SPDX-License-Identifier: GPL-2.0-only
//! What a program and the consumers of its commits tell each other.

use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::Arena;
use crate::mm::control::ControlPage;
use crate::mm::control::Fields;
use crate::mm::wait::Seen;
use crate::subscription::Subscription;
use crate::uapi;

/// How far an epoch has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Committed,
    Durable,
    Replicated,
}

impl Level {
    /// As the ABI has it.
    pub(crate) fn from_number(number: u32) -> Result<Self> {
        match number {
            uapi::CKPT_LEVEL_COMMITTED => Ok(Level::Committed),
            uapi::CKPT_LEVEL_DURABLE => Ok(Level::Durable),
            uapi::CKPT_LEVEL_REPLICATED => Ok(Level::Replicated),
            _ => Err(EINVAL),
        }
    }
}

// The page is the ABI's.
macro_rules! same_place {
    ($($field:ident),*) => {$(
        const _: () = assert!(
            core::mem::offset_of!(Fields, $field)
                == core::mem::offset_of!(uapi::ckpt_control, $field)
        );
    )*};
}
same_place!(pending, reserved, epoch, durable, replicated);
const _: () = assert!(size_of::<Fields>() == size_of::<uapi::ckpt_control>());

impl Arena {
    /// The page that shows all this to programs.
    pub(crate) fn control(&self) -> &ControlPage {
        &self.control
    }

    /// The last commit that everybody is told of, or the epoch that the arena began with.
    pub(crate) fn told_epoch(&self) -> u64 {
        self.control.fields().epoch.load(Ordering::Acquire)
    }

    /// Asks the program for a commit. Returns the last one.
    pub(crate) fn request(&self) -> u64 {
        // Before the mark: else the commit that takes the mark away could be this one, and the
        // one that answers would be waited for though nothing asks for it.
        let epoch = self.told_epoch();
        self.control.fields().pending.store(1, Ordering::SeqCst);
        self.committed.notify_all();
        epoch
    }

    /// Whether a commit is requested.
    pub(crate) fn is_requested(&self) -> bool {
        self.control.fields().pending.load(Ordering::Relaxed) != 0
    }

    /// A consumer has everything up to an epoch. Returns the highest that was acknowledged.
    pub(crate) fn acknowledge(&self, epoch: u64, level: Level) -> Result<u64> {
        if epoch > self.epoch() {
            return Err(ERANGE);
        }
        let fields = self.control.fields();
        let field = match level {
            Level::Committed => return Err(EINVAL),
            Level::Durable => &fields.durable,
            Level::Replicated => &fields.replicated,
        };
        let before = field.fetch_max(epoch, Ordering::Release);
        if before < epoch {
            self.progress.tell();
        }
        Ok(before.max(epoch))
    }

    /// The highest epoch that has come so far.
    pub(crate) fn reached(&self, level: Level) -> u64 {
        let fields = self.control.fields();
        match level {
            Level::Committed => self.told_epoch(),
            Level::Durable => fields.durable.load(Ordering::Acquire),
            Level::Replicated => fields.replicated.load(Ordering::Acquire),
        }
    }

    /// What to wait from, to be asked before [`Arena::reached`].
    pub(crate) fn seen_progress(&self) -> Seen {
        self.progress.seen()
    }

    /// Waits until an epoch has come further, for so many nanoseconds at most.
    pub(crate) fn wait_for_progress(&self, seen: Seen, ns: u64) -> Result {
        self.progress.wait_timeout(seen, ns)
    }

    /// Asks for a snapshot of the next commit.
    ///
    /// The caller sees to it that it is [left](Arena::unsubscribe).
    pub(crate) fn subscribe(&self, since: u64, reserve: u64) -> Result<Arc<Subscription>> {
        if since > self.epoch() {
            return Err(ERANGE);
        }
        let subscription = Arc::pin_init(Subscription::new(since, reserve), GFP_KERNEL)?;
        let open = self.snapshots.lock().len();
        let mut subscriptions = self.subscriptions.lock();
        if open + subscriptions.len() >= uapi::CKPT_SNAPSHOTS_MAX as usize {
            return Err(EBUSY);
        }
        subscriptions.push(subscription.clone(), GFP_KERNEL)?;
        self.subscribed
            .store(subscriptions.len(), Ordering::Relaxed);
        Ok(subscription)
    }

    /// Gives a subscription up, or ends its snapshot.
    pub(crate) fn unsubscribe(&self, subscription: &Arc<Subscription>) {
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.retain(|one| !Arc::ptr_eq(one, subscription));
        self.subscribed
            .store(subscriptions.len(), Ordering::Relaxed);
        drop(subscriptions);
        if let Some(snapshot) = subscription.close() {
            self.release(&snapshot);
        }
    }

    /// Takes those who wait for a commit.
    pub(super) fn take_subscriptions(&self) -> KVec<Arc<Subscription>> {
        if self.subscribed.load(Ordering::Relaxed) == 0 {
            return KVec::new();
        }
        let mut subscriptions = self.subscriptions.lock();
        self.subscribed.store(0, Ordering::Relaxed);
        core::mem::replace(&mut *subscriptions, KVec::new())
    }
}
