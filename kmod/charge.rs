// SPDX-License-Identifier: GPL-2.0-only
//! The account of an arena's pages against RLIMIT_MEMLOCK.
//!
//! Pages can be charged ahead, by `CKPT_IOC_RESERVE`; those that were not are charged
//! one by one when they get memory.

use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

use crate::mm::folio::Folio;
use crate::mm::folio::FolioTable;
use crate::mm::owner::Owner;

struct Account {
    charged: u64,
    resident: u64,
}

/// Pages charged and pages resident of one arena.
#[pin_data(PinnedDrop)]
pub(crate) struct Charge {
    owner: Owner,
    /// Innermost, and held over arithmetic and the putting in place of a page.
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

    /// Puts a page in its place and accounts for it, in one step: of several that get the same
    /// page at once, one is charged. Gives back a page that came too late.
    pub(crate) fn install(
        &self,
        table: &FolioTable,
        pgoff: u64,
        folio: Folio,
    ) -> Result<Option<Folio>> {
        // Released before `folio` is dropped, which may sleep: parameters outlive locals.
        let mut account = self.account.lock();
        if table.get(pgoff).is_some() {
            return Ok(Some(folio));
        }
        if account.resident == account.charged {
            self.owner.charge(1)?;
            account.charged += 1;
        }
        match table.install(pgoff, folio) {
            Ok(()) => account.resident += 1,
            Err(folio) => return Ok(Some(folio)),
        }
        Ok(None)
    }

    /// Charges as many of `pages` more as the limit lets, for copies. Returns how many.
    pub(crate) fn borrow(&self, pages: u64) -> u64 {
        self.owner.charge_up_to(pages)
    }

    /// Gives back what [`Charge::borrow`] took.
    pub(crate) fn give_back(&self, pages: u64) {
        self.owner.uncharge(pages);
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
