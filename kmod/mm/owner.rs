// SPDX-License-Identifier: GPL-2.0-only
//! Who made an arena: credentials, process, and the account its pages are charged to.

use core::ptr::NonNull;

use kernel::bindings;
use kernel::cred::Credential;
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::task::Kuid;

use super::shim;

/// The creator of an arena.
///
/// # Invariants
///
/// `user` and `process` are valid and one reference of each is ours.
pub(crate) struct Owner {
    cred: ARef<Credential>,
    user: NonNull<bindings::user_struct>,
    process: NonNull<bindings::pid>,
    /// Pages that the user may have locked: the creator's limit when it created.
    limit_pages: u64,
}

// SAFETY: References to users and pids may be used and dropped from any thread.
unsafe impl Send for Owner {}
// SAFETY: As above; nothing is changed but the user's atomic account.
unsafe impl Sync for Owner {}

impl Owner {
    /// The calling process.
    pub(crate) fn current() -> Self {
        // SAFETY: Takes references to what the current task has; none of them is null.
        // `Credential` is `struct cred`, and `ARef` takes over the reference.
        unsafe {
            let cred = shim::ckpt_current_cred_get()
                .cast_mut()
                .cast::<Credential>();
            // INVARIANT: Both references are ours.
            Owner {
                cred: ARef::from_raw(NonNull::new_unchecked(cred)),
                user: NonNull::new_unchecked(shim::ckpt_current_user_get()),
                process: NonNull::new_unchecked(shim::ckpt_current_tgid_get()),
                limit_pages: match bindings::capable(bindings::CAP_IPC_LOCK as c_int) {
                    true => u64::MAX,
                    false => shim::ckpt_rlimit_memlock() as u64 >> PAGE_SHIFT,
                },
            }
        }
    }

    /// Whether the calling process may open what this owner made.
    pub(crate) fn lets_in(&self, private: bool) -> bool {
        if !private && Kuid::current_euid() == self.cred.euid() {
            return true;
        }
        // SAFETY: The credentials are valid.
        unsafe {
            shim::ckpt_cred_ns_capable(
                self.cred.as_ptr(),
                bindings::CAP_CHECKPOINT_RESTORE as c_int,
            )
        }
    }

    /// The owner's effective uid, as the calling process sees it; the overflow uid when it has
    /// none there.
    pub(crate) fn uid(&self) -> u32 {
        let uid = self.cred.euid().into_raw();
        // SAFETY: The namespace is the current task's.
        unsafe { bindings::from_kuid_munged(bindings::current_user_ns(), uid) }
    }

    /// The process, as the calling process sees it; 0 when it is gone or out of sight.
    pub(crate) fn pid(&self) -> i32 {
        // SAFETY: By the invariant the pid is valid.
        unsafe {
            if shim::ckpt_pid_has_process(self.process.as_ptr()) {
                bindings::pid_vnr(self.process.as_ptr())
            } else {
                0
            }
        }
    }

    /// Charges pages to the owner's locked memory. `ENOMEM` when that would go over the
    /// RLIMIT_MEMLOCK that the owner had, unless it had CAP_IPC_LOCK.
    pub(crate) fn charge(&self, pages: u64) -> Result {
        // SAFETY: By the invariant the user is valid.
        let mut old = unsafe { shim::ckpt_locked_vm_read(self.user.as_ptr()) };
        loop {
            let new = (old as u64).checked_add(pages).ok_or(ENOMEM)?;
            if new > self.limit_pages.min(c_long::MAX as u64) {
                return Err(ENOMEM);
            }
            // SAFETY: As above; `old` is ours.
            if unsafe {
                shim::ckpt_locked_vm_try_cmpxchg(self.user.as_ptr(), &mut old, new as c_long)
            } {
                return Ok(());
            }
        }
    }

    /// Charges as many of `pages` as the limit lets. Returns how many.
    pub(crate) fn charge_up_to(&self, pages: u64) -> u64 {
        let mut pages = pages;
        while pages != 0 {
            if self.charge(pages).is_ok() {
                return pages;
            }
            // SAFETY: By the invariant the user is valid.
            let locked = unsafe { shim::ckpt_locked_vm_read(self.user.as_ptr()) } as u64;
            pages = (pages - 1).min(self.limit_pages.saturating_sub(locked));
        }
        0
    }

    /// Gives back what [`Owner::charge`] or [`Owner::charge_up_to`] took.
    pub(crate) fn uncharge(&self, pages: u64) {
        // SAFETY: By the invariant the user is valid.
        unsafe { shim::ckpt_locked_vm_sub(self.user.as_ptr(), pages as c_long) };
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: By the invariant both references are ours.
        unsafe {
            bindings::free_uid(self.user.as_ptr());
            bindings::put_pid(self.process.as_ptr());
        }
    }
}
