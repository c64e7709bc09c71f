// SPDX-License-Identifier: GPL-2.0-only
//! Which process an arena is of.

use core::ptr::NonNull;

use kernel::bindings;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

use super::shim;

/// A process, there or gone.
///
/// # Invariants
///
/// `pid` is valid and a reference of it is ours.
struct Process {
    pid: NonNull<bindings::pid>,
}

// SAFETY: A reference to a pid may be used and dropped from any thread.
unsafe impl Send for Process {}

impl Process {
    /// The calling one.
    fn current() -> Self {
        // SAFETY: Takes a reference to what the current task has, which is not null.
        let pid = unsafe { NonNull::new_unchecked(shim::ckpt_current_tgid_get()) };
        // INVARIANT: The reference is ours.
        Process { pid }
    }

    /// Whether it is there. One that has ended is until it was waited for.
    fn is_there(&self) -> bool {
        // SAFETY: By the invariant the pid is valid.
        unsafe { shim::ckpt_pid_has_process(self.pid.as_ptr()) }
    }

    /// Its number, as the calling process sees it; 0 when it is out of sight.
    fn number(&self) -> i32 {
        // SAFETY: By the invariant the pid is valid.
        unsafe { bindings::pid_vnr(self.pid.as_ptr()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours.
        unsafe { bindings::put_pid(self.pid.as_ptr()) };
    }
}

/// The process that is an arena's program, if one is.
#[pin_data]
pub(crate) struct Program {
    /// Innermost; held over looking at the process and putting another in its place.
    #[pin]
    process: SpinLock<Option<Process>>,
}

impl Program {
    /// The calling process.
    pub(crate) fn current() -> impl PinInit<Self> {
        pin_init!(Self {
            process <- new_spinlock!(Some(Process::current())),
        })
    }

    /// The process, as the calling process sees it; 0 when it is gone or out of sight.
    pub(crate) fn pid(&self) -> i32 {
        match &*self.process.lock() {
            Some(process) if process.is_there() => process.number(),
            _ => 0,
        }
    }

    /// Puts the calling process in the place of one that is gone. `EBUSY` when that is there, and
    /// another.
    pub(crate) fn replace(&self) -> Result {
        let caller = Process::current();
        let mut process = self.process.lock();
        let is_another = |process: &Process| process.pid != caller.pid && process.is_there();
        if process.as_ref().is_some_and(is_another) {
            return Err(EBUSY);
        }
        let before = process.replace(caller);
        // Before the reference to the one that is gone is dropped, which may free it.
        drop(process);
        drop(before);
        Ok(())
    }

    /// The calling process is not the program any more, if it was: nobody is.
    pub(crate) fn retire(&self) {
        let caller = Process::current();
        let mut process = self.process.lock();
        let is_caller = process
            .as_ref()
            .is_some_and(|process| process.pid == caller.pid);
        let before = match is_caller {
            true => process.take(),
            false => None,
        };
        drop(process);
        drop(before);
    }
}
