// SPDX-License-Identifier: GPL-2.0-only
//! The commit barrier: a read-write semaphore.
//!
//! Faults hold it for reading while they note a page and change its page-table entry,
//! a commit holds it for writing. It is a plain `rw_semaphore`: a per-CPU one would
//! make every commit pay an RCU grace period.

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::LockClassKey;
use kernel::types::NotThreadSafe;
use kernel::types::Opaque;

use super::shim;

/// A read-write semaphore that protects an order of events, not data.
///
/// # Invariants
///
/// `sem` is initialised and does not move.
#[pin_data]
pub(crate) struct Barrier {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
}

// SAFETY: A semaphore may be used from any thread.
unsafe impl Send for Barrier {}
// SAFETY: As above; its functions synchronise by themselves.
unsafe impl Sync for Barrier {}

impl Barrier {
    /// A free barrier. The kernel's lock validator takes those of one `class` for one lock.
    pub(crate) fn new(
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            sem <- Opaque::ffi_init(|sem| {
                // SAFETY: The slot is valid for a semaphore and pinned; the name and the
                // class stay.
                unsafe { shim::ckpt_rwsem_init(sem, name.as_char_ptr(), class.as_ptr()) }
            }),
        })
    }

    /// Waits until no writer holds the barrier, and holds it with other readers.
    pub(crate) fn read(&self) -> ReadGuard<'_> {
        // SAFETY: By the invariant `sem` is a valid semaphore.
        unsafe { bindings::down_read(self.sem.get()) };
        ReadGuard {
            barrier: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Waits until nobody holds the barrier, and holds it alone. `EINTR` when a fatal
    /// signal comes first.
    pub(crate) fn write_killable(&self) -> Result<WriteGuard<'_>> {
        // SAFETY: By the invariant `sem` is a valid semaphore.
        to_result(unsafe { bindings::down_write_killable(self.sem.get()) })?;
        Ok(WriteGuard {
            barrier: self,
            _not_send: NotThreadSafe,
        })
    }
}

/// Holds a [`Barrier`] for reading.
#[must_use = "the barrier is released when the guard is dropped"]
pub(crate) struct ReadGuard<'a> {
    barrier: &'a Barrier,
    _not_send: NotThreadSafe,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: This guard's thread took the semaphore for reading.
        unsafe { bindings::up_read(self.barrier.sem.get()) };
    }
}

/// Holds a [`Barrier`] for writing.
#[must_use = "the barrier is released when the guard is dropped"]
pub(crate) struct WriteGuard<'a> {
    barrier: &'a Barrier,
    _not_send: NotThreadSafe,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: This guard's thread took the semaphore for writing.
        unsafe { bindings::up_write(self.barrier.sem.get()) };
    }
}
