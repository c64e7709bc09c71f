// SPDX-License-Identifier: GPL-2.0-only
//! Which memory map the areas of an arena are in.

use kernel::bindings;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

/// How many areas there are, and where.
struct Count {
    /// Address of the memory map that had the first of them. Never followed.
    mm: usize,
    /// Areas in that map.
    own: u32,
    /// Areas in others.
    foreign: u32,
    /// An address at or below the own areas, most likely.
    hint: usize,
    /// A page that is most likely in none of the page tables.
    spare: u64,
}

/// The areas that map an arena.
#[pin_data]
pub(crate) struct Areas {
    /// Innermost; held over arithmetic.
    #[pin]
    count: SpinLock<Count>,
}

/// What is known of areas that are all in one memory map.
pub(super) struct Known {
    /// How many.
    pub(super) number: u32,
    /// Where to begin to look for them.
    pub(super) hint: usize,
    /// See [`Areas::move_spare`].
    pub(super) spare: u64,
}

impl Areas {
    /// No areas.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            count <- new_spinlock!(Count {
                mm: 0,
                own: 0,
                foreign: 0,
                hint: 0,
                spare: u64::MAX,
            }),
        })
    }

    /// There is one more.
    ///
    /// # Safety
    ///
    /// The area is valid and being set up.
    pub(super) unsafe fn add(&self, vma: *mut bindings::vm_area_struct) {
        // SAFETY: As this function's contract.
        let (mm, start) = unsafe {
            let area = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
            ((*vma).vm_mm as usize, area.vm_start)
        };
        let mut count = self.count.lock();
        if count.own + count.foreign == 0 {
            count.mm = mm;
            count.hint = start;
        }
        if count.mm == mm {
            count.own += 1;
            count.hint = count.hint.min(start);
        } else {
            count.foreign += 1;
        }
    }

    /// There is one less.
    ///
    /// # Safety
    ///
    /// The area is valid, and `add` was called with it.
    pub(super) unsafe fn remove(&self, vma: *mut bindings::vm_area_struct) {
        // SAFETY: As this function's contract.
        let mm = unsafe { (*vma).vm_mm as usize };
        let mut count = self.count.lock();
        if count.mm == mm {
            count.own -= 1;
        } else {
            count.foreign -= 1;
        }
    }

    /// What is known, if there are areas and all are in the memory map `mm`.
    pub(super) fn known(&self, mm: *mut bindings::mm_struct) -> Option<Known> {
        let count = self.count.lock();
        let all_own = count.own != 0 && count.foreign == 0 && count.mm == mm as usize;
        all_own.then_some(Known {
            number: count.own,
            hint: count.hint,
            spare: count.spare,
        })
    }

    /// The areas begin at `hint`.
    pub(super) fn found(&self, hint: usize) {
        self.count.lock().hint = hint;
    }

    /// A page got an entry. A commit takes the entry of one page away, to have a flush; it
    /// should be one that nobody uses.
    pub(crate) fn move_spare(&self, page: u64) {
        let mut count = self.count.lock();
        if count.spare == page {
            count.spare = page.wrapping_sub(1);
        }
    }

    /// The page whose entry was taken away.
    pub(crate) fn set_spare(&self, page: u64) {
        self.count.lock().spare = page;
    }
}
