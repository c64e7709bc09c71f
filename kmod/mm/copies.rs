// SPDX-License-Identifier: GPL-2.0-only
//! Pages copied aside for snapshots.

use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use super::folio::FolioRef;
use super::shim;
use crate::tracking::bits::Bits;
use crate::tracking::bits::CHUNK_PAGES;
use crate::tracking::slot::Zeroed;

/// The content of a page at some time. Several snapshots can share it.
///
/// # Invariants
///
/// `folio` is an order-0 folio of which this owns one reference, and whose content does not
/// change.
pub(crate) struct PageCopy {
    folio: NonNull<bindings::folio>,
}

// SAFETY: Folios may be used and let go of from any thread.
unsafe impl Send for PageCopy {}

impl PageCopy {
    /// Copies a page as it is now. May sleep.
    pub(crate) fn of(page: FolioRef<'_>) -> Result<Self> {
        // SAFETY: Allocates, or returns null.
        let folio = NonNull::new(unsafe { shim::ckpt_folio_alloc_copy() }).ok_or(ENOMEM)?;
        // SAFETY: Both are valid single-page folios, and the new one is ours alone.
        unsafe { shim::ckpt_folio_copy(folio.as_ptr(), page.as_ptr()) };
        // INVARIANT: The reference of the allocation is ours.
        Ok(PageCopy { folio })
    }
}

impl Clone for PageCopy {
    fn clone(&self) -> Self {
        // SAFETY: By the invariant the folio is valid.
        unsafe { shim::ckpt_folio_get(self.folio.as_ptr()) };
        // INVARIANT: The reference just taken is the new one's.
        PageCopy { folio: self.folio }
    }
}

impl Drop for PageCopy {
    fn drop(&mut self) {
        // SAFETY: By the invariant one reference is ours.
        unsafe { shim::ckpt_folio_put(self.folio.as_ptr()) };
    }
}

/// The copies of pages of one chunk.
///
/// # Invariants
///
/// A place is null or the raw form of a [`PageCopy`] that the table owns.
#[repr(transparent)]
pub(crate) struct Copies {
    places: [AtomicPtr<bindings::folio>; CHUNK_PAGES],
}

// SAFETY: Only an array of atomic pointers, of which null is a valid value.
unsafe impl Zeroed for Copies {}

impl Copies {
    /// Puts a copy in its place, which is empty.
    pub(crate) fn put(&self, page: usize, copy: PageCopy) {
        let copy = core::mem::ManuallyDrop::new(copy);
        // INVARIANT: The reference goes to the table. The release pairs with the acquire of
        // a reader, who then sees the content.
        let old = self.places[page].swap(copy.folio.as_ptr(), Ordering::AcqRel);
        debug_assert!(old.is_null());
    }

    /// Drops the copies of pages. Nobody reads them any more.
    pub(crate) fn remove(&self, pages: &Bits) {
        for page in pages.iter() {
            let old = self.places[page].swap(core::ptr::null_mut(), Ordering::AcqRel);
            if let Some(folio) = NonNull::new(old) {
                // INVARIANT: The reference was the table's.
                drop(PageCopy { folio });
            }
        }
    }

    /// Writes a page to user space, if there is a copy of it. The caller keeps `remove` away.
    pub(crate) fn write_to(&self, page: usize, to: *mut c_void) -> Option<Result> {
        let folio = NonNull::new(self.places[page].load(Ordering::Acquire))?;
        // SAFETY: By the invariant the folio is valid, and it is not removed meanwhile.
        Some(unsafe { folio_to_user(folio, to) })
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.remove(&Bits::ALL);
    }
}

/// Copies a page to user space.
///
/// # Safety
///
/// The folio is valid and stays so.
pub(super) unsafe fn folio_to_user(folio: NonNull<bindings::folio>, to: *mut c_void) -> Result {
    // SAFETY: As this function's contract; the destination is checked by the call.
    let left = unsafe { shim::ckpt_folio_to_user(to, folio.as_ptr()) };
    debug_assert!(left as usize <= PAGE_SIZE);
    match left {
        0 => Ok(()),
        _ => Err(EFAULT),
    }
}
