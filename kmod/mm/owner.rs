// SPDX-License-Identifier: GPL-2.0-only
//! Who made an arena: credentials, and the account its pages are charged to.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

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
/// `user` is valid and a reference of it is ours.
pub(crate) struct Owner {
    cred: ARef<Credential>,
    user: NonNull<bindings::user_struct>,
    /// Pages that the user may have locked: the limit that the program had when it made the arena
    /// or took it over. Nothing else depends on it, so any order will do.
    limit_pages: AtomicU64,
}

// SAFETY: References to users may be used and dropped from any thread.
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
            // INVARIANT: The reference is ours.
            Owner {
                cred: ARef::from_raw(NonNull::new_unchecked(cred)),
                user: NonNull::new_unchecked(shim::ckpt_current_user_get()),
                limit_pages: AtomicU64::new(limit_of_current()),
            }
        }
    }

    /// Holds what is charged from now on against the calling process's limit, if that process is
    /// of the user that is charged. What is charged stays.
    pub(crate) fn take_limit(&self) {
        // SAFETY: Takes a reference to what the current task has, and gives it back.
        let same = unsafe {
            let user = shim::ckpt_current_user_get();
            bindings::free_uid(user);
            user == self.user.as_ptr()
        };
        if same {
            self.limit_pages
                .store(limit_of_current(), Ordering::Relaxed);
        }
    }

    fn limit(&self) -> u64 {
        self.limit_pages.load(Ordering::Relaxed)
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

    /// Charges pages to the owner's locked memory. `ENOMEM` when that would go over the limit.
    pub(crate) fn charge(&self, pages: u64) -> Result {
        // SAFETY: By the invariant the user is valid.
        let mut old = unsafe { shim::ckpt_locked_vm_read(self.user.as_ptr()) };
        loop {
            let new = (old as u64).checked_add(pages).ok_or(ENOMEM)?;
            if new > self.limit().min(c_long::MAX as u64) {
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
            pages = (pages - 1).min(self.limit().saturating_sub(locked));
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
        // SAFETY: By the invariant the reference is ours.
        unsafe { bindings::free_uid(self.user.as_ptr()) };
    }
}

/// Pages that the calling process may have locked: its RLIMIT_MEMLOCK, but with CAP_IPC_LOCK any.
fn limit_of_current() -> u64 {
    // SAFETY: Both only ask the current task.
    unsafe {
        match bindings::capable(bindings::CAP_IPC_LOCK as c_int) {
            true => u64::MAX,
            false => shim::ckpt_rlimit_memlock() as u64 >> PAGE_SHIFT,
        }
    }
}
