// SPDX-License-Identifier: GPL-2.0-only
//! An arena's address space: the inode through which the kernel finds all mappings of
//! the arena, and the callbacks by which it tells of writes.

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::bindings;
use kernel::prelude::*;

use super::folio::FolioRef;
use super::shim;

use crate::tracking::bits::Bits;
#[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
use crate::tracking::tracker::spans;
use crate::tracking::tracker::Costs;
use crate::tracking::tracker::Plan;

/// What is told when a page is written by other means than a fault.
pub(crate) trait Noting: Send + Sync {
    /// Page `pgoff` may have been written. Atomic context: must not sleep.
    fn note_late(&self, pgoff: u64);
}

/// An address space with an inode of its own.
///
/// # Invariants
///
/// `inode` is valid and one reference of it ours. No page is ever in the mapping's page
/// cache.
pub(crate) struct Mapping {
    inode: NonNull<bindings::inode>,
}

// SAFETY: Inodes may be used and released from any thread that may sleep.
unsafe impl Send for Mapping {}
// SAFETY: As above; what is changed after creation is changed under the kernel's locks.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes a reference to the inode of a file, and gives it a size.
    ///
    /// # Safety
    ///
    /// `file` is valid, not shared with anybody yet, and its inode belongs to it alone.
    pub(super) unsafe fn of_new_file(file: *mut bindings::file, len_bytes: u64) -> Self {
        // SAFETY: The file is valid, and so is its inode.
        let inode = unsafe { shim::ckpt_file_inode(file) };
        // SAFETY: As above, and as this function's contract.
        unsafe {
            bindings::ihold(inode);
            set_len(file, len_bytes);
        }
        // SAFETY: A file's inode is not null.
        let inode = unsafe { NonNull::new_unchecked(inode) };
        // INVARIANT: The reference just taken is ours.
        Mapping { inode }
    }

    /// The raw address space.
    pub(super) fn as_ptr(&self) -> *mut bindings::address_space {
        // SAFETY: By the invariant the inode is valid.
        unsafe { (*self.inode.as_ptr()).i_mapping }
    }

    /// The size of the arena in bytes.
    pub(super) fn len_bytes(&self) -> u64 {
        // SAFETY: By the invariant the inode is valid.
        unsafe { len_of(self.inode.as_ptr()) }
    }

    /// From now on, `noting` is told of writes that no fault tells of.
    ///
    /// # Safety
    ///
    /// `noting` stays valid for as long as there is a folio with this mapping.
    pub(crate) unsafe fn tell<N: Noting>(&self, noting: *const N) {
        let mapping = self.as_ptr();
        // SAFETY: The mapping is valid, and no page of it exists yet, so nobody reads
        // these fields.
        unsafe {
            (*(*mapping).host).i_private = noting.cast_mut().cast();
            (*mapping).a_ops = &Callbacks::<N>::TABLE;
        }
    }

    /// Whether an area maps this.
    ///
    /// # Safety
    ///
    /// The area is valid and its map locked.
    pub(super) unsafe fn maps(&self, vma: *mut bindings::vm_area_struct) -> bool {
        // SAFETY: As this function's contract; the file of an area is null or valid.
        unsafe {
            let file = (*vma).vm_file;
            !file.is_null() && (*file).f_mapping == self.as_ptr()
        }
    }

    /// Takes away all page-table entries of pages `first .. first + len`, or of all pages from
    /// `first` on if `len` is zero.
    pub(crate) fn unmap(&self, first: u64, len: u64) {
        // SAFETY: The mapping is valid. There are no private copies.
        unsafe {
            bindings::unmap_mapping_pages(self.as_ptr(), first as c_ulong, len as c_ulong, false)
        };
    }

    /// As [`Hardware::harvest`](crate::tracking::tracker::Hardware::harvest), in all
    /// mappings, by what the kernel offers for ranges. `page` finds a page by its number;
    /// `passes` and `entries` are counted up. May sleep.
    #[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
    pub(crate) fn harvest<'a, F>(&self, first: u64, plan: &Plan, page: F, work: &mut Work) -> Bits
    where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        let mut dirty = Bits::default();
        self.arm(
            first,
            &plan.arm,
            &plan.keep,
            &plan.known,
            &page,
            &mut dirty,
            work,
        );
        for (start, len) in spans(&plan.keep, Costs::RANGES.gap) {
            self.clean(first, start, len, &mut dirty, work);
        }
        if plan.freeze {
            let known = dirty.and(&plan.keep);
            self.arm(
                first,
                &known,
                &plan.keep.minus(&known),
                &known,
                &page,
                &mut dirty,
                work,
            );
        }
        dirty
    }

    /// As above, where the kernel lacks the functions for ranges.
    #[cfg(not(CONFIG_MAPPING_DIRTY_HELPERS))]
    pub(crate) fn harvest<'a, F>(&self, first: u64, plan: &Plan, page: F, work: &mut Work) -> Bits
    where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        for index in plan.arm.iter() {
            self.arm_one(first + index as u64, &page, work);
        }
        // What was left open by a commit that could read page tables may have been written.
        plan.arm.minus(&plan.known)
    }

    /// Makes the entries of pages read-only and clean, but not those of `not`. Adds to
    /// `dirty`; pages of `known` may be missing there.
    #[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
    #[allow(clippy::too_many_arguments)]
    fn arm<'a, F>(
        &self,
        first: u64,
        of: &Bits,
        not: &Bits,
        known: &Bits,
        page: &F,
        dirty: &mut Bits,
        work: &mut Work,
    ) where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        for (start, len) in spans_but(of, not, ARM_GAP) {
            let span = of.and(&Bits::range(start, start + len));
            // A few known pages are done one by one, each in one step. To learn of the others
            // takes two passes and a third to be sure.
            if span.minus(known).is_empty() && span.len() < PASS_MIN {
                for index in span.iter() {
                    self.arm_one(first + index as u64, page, work);
                }
                continue;
            }
            self.arm_span(first, start, len, dirty, work);
        }
    }

    /// Makes the entries of a run of pages of a chunk read-only and clean.
    ///
    /// The order matters: write-protecting leaves an entry dirty, and `mprotect()` makes
    /// a dirty entry writable again. It can do so between the two passes; then the entry is
    /// clean and writable when they are done. So it is done again until there was nothing
    /// left to protect: a clean entry is safe.
    #[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
    fn arm_span(&self, first: u64, start: usize, len: usize, dirty: &mut Bits, work: &mut Work) {
        let protect = |work: &mut Work| {
            work.passes += 1;
            work.entries += len as u64;
            let pgoff = (first + start as u64) as c_ulong;
            // SAFETY: As in `clean`.
            unsafe { bindings::wp_shared_mapping_range(self.as_ptr(), pgoff, len as c_ulong) }
        };
        protect(work);
        // At least once: an entry can have been read-only and dirty before.
        loop {
            self.clean(first, start, len, dirty, work);
            if protect(work) == 0 {
                return;
            }
        }
    }

    /// Makes the entries of a run of pages of a chunk clean. Adds those that were dirty.
    #[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
    fn clean(&self, first: u64, start: usize, len: usize, dirty: &mut Bits, work: &mut Work) {
        work.passes += 1;
        work.entries += len as u64;
        // Out of order on purpose: the kernel's way of saying that nothing is set yet.
        let mut from: c_ulong = 1;
        let mut to: c_ulong = 0;
        // SAFETY: The mapping is valid. All pages mapped through it are on no LRU list, so
        // no entry is a migration entry; `mmap` lets only shared writable-able areas in;
        // there are no huge pages. The bitmap has a bit for each page of the chunk, and
        // the range lies in the chunk.
        unsafe {
            bindings::clean_record_shared_mapping_range(
                self.as_ptr(),
                (first + start as u64) as c_ulong,
                len as c_ulong,
                first as c_ulong,
                dirty.0.as_mut_ptr().cast(),
                &mut from,
                &mut to,
            );
        }
    }

    /// Makes the entries of one page read-only and clean, in one step, with a flush of its
    /// own. It is not told whether they were dirty.
    fn arm_one<'a, F>(&self, pgoff: u64, page: &F, work: &mut Work)
    where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        if let Some(folio) = page(pgoff) {
            work.passes += 1;
            work.entries += 1;
            // SAFETY: The mapping is valid, and the folio is its page `pgoff`.
            unsafe {
                shim::mapping_wrprotect_range(self.as_ptr(), pgoff as c_ulong, folio.pfn(), 1)
            };
        }
    }
}

/// What harvesting took.
#[derive(Default)]
pub(crate) struct Work {
    /// Passes over runs of entries.
    pub(crate) passes: u64,
    /// Entries that they went over.
    pub(crate) entries: u64,
}

/// Whether pages are ever left open in this kernel.
pub(crate) const ADAPTS: bool = COSTS.opens || super::direct::POSSIBLE;

/// What harvesting costs in this kernel, where page tables cannot be read directly.
pub(crate) const COSTS: &Costs = if cfg!(CONFIG_MAPPING_DIRTY_HELPERS) {
    &Costs::RANGES
} else {
    &Costs::PAGES
};

/// Pages to be armed with at most this many between them share a pass.
#[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
const ARM_GAP: usize = 12;

/// From so many pages on, passes cost less than one by one.
#[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
const PASS_MIN: usize = 4;

/// The runs of `of`, those joined that have small gaps between them and nothing of `not` in
/// the gaps.
#[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
fn spans_but<'a>(
    of: &'a Bits,
    not: &'a Bits,
    gap: usize,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut runs = of.runs().peekable();
    core::iter::from_fn(move || {
        let (first, len) = runs.next()?;
        let mut end = first + len;
        while let Some(&(next, len)) = runs.peek() {
            if next - end > gap || !not.and(&Bits::range(end, next)).is_empty() {
                break;
            }
            end = next + len;
            runs.next();
        }
        Some((first, end - first))
    })
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mapping = self.as_ptr();
        // The inode can outlive the module by a moment, when the last file's release lets
        // the module go and its inode after that.
        //
        // SAFETY: By the invariant the inode is valid and one reference ours. No folio has
        // this mapping any more, so nobody uses the callbacks.
        unsafe {
            (*mapping).a_ops = &raw const bindings::empty_aops;
            (*(*mapping).host).i_private = core::ptr::null_mut();
            bindings::iput(self.inode.as_ptr());
        }
    }
}

/// Gives the inode of a new file a size.
///
/// # Safety
///
/// `file` is valid, not shared with anybody yet, and its inode belongs to it alone.
pub(super) unsafe fn set_len(file: *mut bindings::file, len_bytes: u64) {
    // SAFETY: The file and its inode are valid. Nobody else uses the inode yet, so its size
    // needs no lock.
    unsafe { shim::ckpt_inode_set_size(shim::ckpt_file_inode(file), len_bytes as i64) };
}

/// The size of an inode in bytes.
///
/// # Safety
///
/// `inode` is valid.
pub(super) unsafe fn len_of(inode: *mut bindings::inode) -> u64 {
    // SAFETY: As this function's contract.
    (unsafe { shim::ckpt_inode_size(inode) }) as u64
}

/// The address space operations that tell an `N`.
struct Callbacks<N>(PhantomData<N>);

impl<N: Noting> Callbacks<N> {
    const TABLE: bindings::address_space_operations = bindings::address_space_operations {
        dirty_folio: Some(Self::dirty_folio),
        ..pin_init::zeroed()
    };

    /// The kernel wrote to a page, or found a dirty page-table entry on removing it.
    ///
    /// # Safety
    ///
    /// `folio` has the mapping `mapping`, for which [`Mapping::tell`] was called with an
    /// `N`, and keeps it during the call.
    unsafe extern "C" fn dirty_folio(
        mapping: *mut bindings::address_space,
        folio: *mut bindings::folio,
    ) -> bool {
        // SAFETY: By `Mapping::tell` the pointer is to an `N` that is valid for as long as
        // a folio with this mapping exists.
        let noting = unsafe { &*(*(*mapping).host).i_private.cast::<N>() };
        // SAFETY: The folio is valid.
        noting.note_late(unsafe { shim::ckpt_folio_index(folio) } as u64);
        // Not newly dirty: the folio's own dirty flag stays clear for good.
        false
    }
}
