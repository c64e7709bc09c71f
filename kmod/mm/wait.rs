// SPDX-License-Identifier: GPL-2.0-only
//! Waiting for something to happen, without a lock.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

use super::fault::Patience;
use super::shim;

/// A thing that happens again and again, and can be waited for.
///
/// # Invariants
///
/// `queue` is initialised and does not move.
#[pin_data]
pub(crate) struct Event {
    /// How often it happened.
    times: AtomicU64,
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: As above; its functions synchronise by themselves.
unsafe impl Sync for Event {}

/// How often an [`Event`] had happened at some time.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

/// What a wait is for.
struct Wanted<'a> {
    event: &'a Event,
    seen: Seen,
}

/// # Safety
///
/// `wanted` is a valid `Wanted`.
unsafe extern "C" fn happened(wanted: *mut c_void) -> bool {
    // SAFETY: As this function's contract.
    let wanted = unsafe { &*wanted.cast::<Wanted<'_>>() };
    wanted.event.times.load(Ordering::Acquire) != wanted.seen.0
}

impl Event {
    /// Something that has not happened yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            times: AtomicU64::new(0),
            // SAFETY: The slot is valid for a wait queue and pinned.
            queue <- Opaque::ffi_init(|queue| unsafe { shim::ckpt_wait_queue_init(queue) }),
        })
    }

    /// What to wait from. To be asked before looking whether waiting is needed.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.times.load(Ordering::Acquire))
    }

    /// It happened.
    pub(crate) fn tell(&self) {
        self.times.fetch_add(1, Ordering::Release);
        // SAFETY: By the invariant the queue is valid. Looking for sleepers is a full barrier:
        // one that is not seen sees the count.
        unsafe {
            if shim::ckpt_has_sleeper(self.queue.get()) {
                shim::ckpt_wake_all(self.queue.get());
            }
        }
    }

    /// Waits until it happens again. An error when a signal comes first. May sleep.
    pub(crate) fn wait(&self, seen: Seen, patience: Patience) -> Result {
        let mut wanted = Wanted { event: self, seen };
        let data = core::ptr::from_mut(&mut wanted).cast();
        let queue = self.queue.get();
        // SAFETY: The queue is valid, and `happened` gets the `Wanted` that it expects.
        to_result(unsafe {
            match patience {
                Patience::Interruptible => shim::ckpt_wait_interruptible(queue, happened, data),
                Patience::Killable => shim::ckpt_wait_killable(queue, happened, data),
            }
        })
    }
}

impl Event {
    /// Waits until it happens again, for so many nanoseconds at most. `ETIMEDOUT` when it has
    /// not, `EINTR` when a signal comes first. May sleep.
    pub(crate) fn wait_timeout(&self, seen: Seen, ns: u64) -> Result {
        let mut wanted = Wanted { event: self, seen };
        let data = core::ptr::from_mut(&mut wanted).cast();
        // SAFETY: The queue is valid, and `happened` gets the `Wanted` that it expects.
        match unsafe { shim::ckpt_wait_timeout(self.queue.get(), happened, data, ns) } {
            0 => Ok(()),
            error if error == -(bindings::ETIME as c_int) => Err(ETIMEDOUT),
            _ => Err(EINTR),
        }
    }
}

/// A thread, to compare with. Never followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(NonNull<c_void>);

impl Thread {
    /// The calling one.
    pub(crate) fn current() -> Self {
        // SAFETY: There is always one, and the pointer is not null.
        Thread(unsafe { NonNull::new_unchecked(shim::ckpt_current()) })
    }

    /// As a number that is not zero.
    pub(crate) fn as_usize(self) -> usize {
        self.0.as_ptr() as usize
    }
}
