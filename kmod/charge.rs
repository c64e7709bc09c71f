// SPDX-License-Identifier: GPL-2.0-only
//! The account of an arena's pages against RLIMIT_MEMLOCK.
//!
//! Pages can be charged ahead, by `CKPT_IOC_RESERVE`; those that were not are charged
//! one by one when they get memory.

use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

use crate::mm::owner::Owner;

struct Account {
    charged: u64,
    resident: u64,
}

/// Pages charged and pages resident of one arena.
#[pin_data(PinnedDrop)]
pub(crate) struct Charge {
    owner: Owner,
    /// Innermost: held over arithmetic alone.
    #[pin]
    account: SpinLock<Account>,
}

impl Charge {
    /// An account of the calling process, with nothing on it.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            owner: Owner::current(),
            account <- new_spinlock!(Account { charged: 0, resident: 0 }),
        })
    }

    /// Whose account it is.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Charges so that `pages` pages in all can be resident. Returns the pages charged.
    pub(crate) fn reserve(&self, pages: u64) -> Result<u64> {
        let mut account = self.account.lock();
        if pages > account.charged {
            self.owner.charge(pages - account.charged)?;
            account.charged = pages;
        }
        Ok(account.charged)
    }

    /// Accounts for one page that gets memory.
    pub(crate) fn take_page(&self) -> Result {
        let mut account = self.account.lock();
        if account.resident == account.charged {
            self.owner.charge(1)?;
            account.charged += 1;
        }
        account.resident += 1;
        Ok(())
    }

    /// Takes back [`Charge::take_page`]. The page stays charged, for the next one.
    pub(crate) fn return_page(&self) {
        self.account.lock().resident -= 1;
    }

    /// Pages resident and pages charged.
    pub(crate) fn pages(&self) -> (u64, u64) {
        let account = self.account.lock();
        (account.resident, account.charged)
    }
}

#[pinned_drop]
impl PinnedDrop for Charge {
    fn drop(self: Pin<&mut Self>) {
        let charged = self.account.lock().charged;
        self.owner.uncharge(charged);
    }
}
