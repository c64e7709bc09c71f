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
use crate::tracking::bits::CHUNK_PAGES;

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

    /// Write-protects pages `first .. first + len` in all mappings, then cleans their
    /// page-table entries.
    ///
    /// The order matters: write-protecting leaves an entry dirty, and `mprotect()` makes
    /// a dirty entry writable again. The range must not cross a chunk. Returns the pages,
    /// counted from the start of the chunk, whose entries were dirty. `page` finds a page by
    /// its offset. May sleep.
    #[cfg(CONFIG_MAPPING_DIRTY_HELPERS)]
    pub(crate) fn rearm<'a, F>(&self, first: u64, len: u64, _page: F) -> Bits
    where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        let base = first - first % CHUNK_PAGES as u64;
        debug_assert!(first + len <= base + CHUNK_PAGES as u64);
        let mut dirty = Bits::default();
        // Out of order on purpose: the kernel's way of saying that nothing is set yet.
        let mut start: c_ulong = 1;
        let mut end: c_ulong = 0;
        // SAFETY: The mapping is valid. All pages mapped through it are on no LRU list, so
        // no entry is a migration entry; `mmap` lets only shared writable-able areas in;
        // there are no huge pages. The bitmap has a bit for each page of the chunk, and
        // the range lies in the chunk.
        unsafe {
            bindings::wp_shared_mapping_range(self.as_ptr(), first as c_ulong, len as c_ulong);
            bindings::clean_record_shared_mapping_range(
                self.as_ptr(),
                first as c_ulong,
                len as c_ulong,
                base as c_ulong,
                dirty.0.as_mut_ptr().cast(),
                &mut start,
                &mut end,
            );
        }
        dirty
    }

    /// As above, where the kernel lacks the functions for ranges: page by page, each with a
    /// TLB flush of its own, and without a way to tell which entries were dirty.
    #[cfg(not(CONFIG_MAPPING_DIRTY_HELPERS))]
    pub(crate) fn rearm<'a, F>(&self, first: u64, len: u64, page: F) -> Bits
    where
        F: Fn(u64) -> Option<FolioRef<'a>>,
    {
        for pgoff in first..first + len {
            if let Some(folio) = page(pgoff) {
                // SAFETY: The mapping is valid, and the folio is its page `pgoff`.
                unsafe {
                    shim::mapping_wrprotect_range(self.as_ptr(), pgoff as c_ulong, folio.pfn(), 1)
                };
            }
        }
        Bits::default()
    }
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
