// SPDX-License-Identifier: GPL-2.0-only
//! Page tables, read and changed directly.
//!
//! The entries of a table are an array, and their lock is the table's, so a walk from the
//! top and a lock are needed once for all pages of a chunk that are in the same table.

use kernel::bindings;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use super::shim;
use crate::tracking::bits::Bits;
use crate::tracking::bits::CHUNK_PAGES;
use crate::tracking::bits::WORDS;

/// Entries of one page table, its lock held.
///
/// # Invariants
///
/// `first` is the entry at `addr` of the area `vma`, which maps page `page` of the chunk,
/// and for each page in `pages` the entry as many places behind `first` as the page is
/// behind `page` is in the same table and area.
pub(super) struct Entries {
    vma: *mut bindings::vm_area_struct,
    addr: usize,
    first: *mut bindings::pte_t,
    page: usize,
    pages: Bits,
}

impl Entries {
    /// Calls `work` with each 64 pages that have some in `of` and here: index of the word,
    /// those pages, and place and address of the entry for the word's first page. The
    /// latter two need not be valid, but for the pages' own entries.
    fn words<F>(&self, of: &Bits, mut work: F)
    where
        F: FnMut(usize, u64, *mut bindings::pte_t, c_ulong),
    {
        for index in 0..WORDS {
            let of = of.0[index] & self.pages.0[index];
            if of != 0 {
                let away = (index * 64) as isize - self.page as isize;
                let addr = self.addr.wrapping_add_signed(away * PAGE_SIZE as isize);
                work(index, of, self.first.wrapping_offset(away), addr as c_ulong);
            }
        }
    }

    /// Makes entries clean. Adds those that were dirty; whether there were some.
    pub(super) fn clean(&mut self, of: &Bits, dirty: &mut Bits) -> bool {
        let mut any = false;
        self.words(of, |index, of, pte, addr| {
            // SAFETY: By the invariant the entries are in a table whose lock is held.
            let found = unsafe { shim::ckpt_ptes_clean(self.vma, addr, pte, of) };
            dirty.0[index] |= found;
            any |= found != 0;
        });
        any
    }

    /// Makes entries read-only and clean. Adds those that were dirty; whether any changed.
    pub(super) fn arm(&mut self, of: &Bits, dirty: &mut Bits) -> bool {
        let mut changed = false;
        self.words(of, |index, of, pte, addr| {
            // SAFETY: As above; the flag is ours.
            dirty.0[index] |= unsafe { shim::ckpt_ptes_arm(self.vma, addr, pte, of, &mut changed) };
        });
        changed
    }

    /// Adds the entries that are dirty.
    pub(super) fn dirty(&mut self, of: &Bits, dirty: &mut Bits) {
        self.words(of, |index, of, pte, _| {
            // SAFETY: As above.
            dirty.0[index] |= unsafe { shim::ckpt_ptes_dirty(pte, of) };
        });
    }

    /// Makes those entries writable that are present. Returns them.
    pub(super) fn open(&mut self, of: &Bits) -> Bits {
        let mut open = Bits::default();
        self.words(of, |index, of, pte, addr| {
            // SAFETY: As above.
            open.0[index] = unsafe { shim::ckpt_ptes_open(self.vma, addr, pte, of) };
        });
        open
    }
}

/// Calls `work` for each page table that maps some of the pages `of`, of the chunk that
/// begins at page `first`, in an area.
///
/// # Safety
///
/// `vma` is an area of an arena, and its mmap lock or its own lock is held, for reading at
/// least. None of its pages is huge.
pub(super) unsafe fn visit<F: FnMut(&mut Entries)>(
    vma: *mut bindings::vm_area_struct,
    first: u64,
    of: &Bits,
    mut work: F,
) {
    // SAFETY: The area is valid, and by the lock its extent does not change.
    let (mm, start, end, pgoff) = unsafe {
        let area = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
        (
            (*vma).vm_mm,
            area.vm_start,
            area.vm_end,
            (*vma).vm_pgoff as u64,
        )
    };
    let area_end = pgoff + ((end - start) >> PAGE_SHIFT) as u64;
    let mut page = pgoff.max(first);
    let stop = area_end.min(first + CHUNK_PAGES as u64);
    while page < stop {
        let addr = start + ((page - pgoff) as usize * PAGE_SIZE);
        // A table maps as many pages as a chunk has, but the area need not be aligned.
        let left = CHUNK_PAGES - (addr >> PAGE_SHIFT) % CHUNK_PAGES;
        let next = stop.min(page + left as u64);
        let (from, to) = ((page - first) as usize, (next - first) as usize);
        page = next;
        let pages = of.and(&Bits::range(from, to));
        if pages.is_empty() {
            continue;
        }
        let mut lock = core::ptr::null_mut();
        // SAFETY: The address is in the area, whose map or which itself is locked.
        let pte = unsafe { shim::ckpt_table_lock(mm, addr as c_ulong, &mut lock) };
        if pte.is_null() {
            continue;
        }
        // INVARIANT: The entry is that of the piece's first page, and the others of the piece
        // are in the same table.
        work(&mut Entries {
            vma,
            addr,
            first: pte,
            page: from,
            pages,
        });
        // SAFETY: Locked above.
        unsafe { shim::ckpt_table_unlock(lock) };
    }
}
