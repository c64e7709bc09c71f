// SPDX-License-Identifier: GPL-2.0-only
//! From the program that made an arena to another.

use core::sync::atomic::Ordering;

use kernel::prelude::*;

use super::Arena;

impl Arena {
    /// The calling process is the arena's program from now on: see `CKPT_IOC_TAKEOVER`.
    pub(crate) fn take_over(&self) -> Result {
        // Private is what cannot be opened; the caller has a descriptor.
        if !self.owner().lets_in(false) {
            return Err(EACCES);
        }
        self.program.replace()?;
        // It is there and named, so no other can come between.
        self.owner().take_limit();
        Ok(())
    }

    /// One descriptor more keeps the arena for a program to come.
    pub(crate) fn keep(&self) {
        self.keepers.fetch_add(1, Ordering::Relaxed);
    }

    /// Who keeps it for a program to come is not its program.
    pub(crate) fn is_not_of_caller(&self) {
        self.program.retire();
    }

    /// A descriptor that kept it is closed.
    pub(crate) fn keep_no_longer(&self) {
        self.keepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.keepers.load(Ordering::Relaxed) != 0
    }
}
