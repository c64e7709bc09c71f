// SPDX-License-Identifier: GPL-2.0-only
//! An arena's pages.
//!
//! They are single-page folios that belong to the arena alone: in no page cache and on
//! no LRU list, so that nothing migrates, reclaims or swaps them. Each says by
//! `mapping` and `index` where it belongs, as the fault and dirty paths of the kernel
//! need it. A page stays until its arena goes.

use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::iov::IovIterDest;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use super::mapping::Mapping;
use super::shim;
use crate::tracking::bits::CHUNK_PAGES;
use crate::tracking::slot::Zeroed;

/// A page of an arena, owned.
///
/// # Invariants
///
/// `folio` is an order-0 folio of which this owns one reference, and which belongs to the
/// mapping it was allocated for until it is detached.
pub(crate) struct Folio {
    folio: NonNull<bindings::folio>,
}

impl Folio {
    /// A zeroed page, charged to the memory cgroup, for page `pgoff` of a mapping.
    ///
    /// The mapping outlives the page: the arena owns both and drops its pages first.
    pub(crate) fn new(mapping: &Mapping, pgoff: u64) -> Result<Self> {
        // SAFETY: Allocates, or returns null.
        let folio = NonNull::new(unsafe { shim::ckpt_folio_alloc() }).ok_or(ENOMEM)?;
        // SAFETY: The folio is new, so nobody else looks at its fields.
        unsafe {
            shim::ckpt_folio_set_index(folio.as_ptr(), pgoff as c_ulong);
            shim::ckpt_folio_set_mapping(folio.as_ptr(), mapping.as_ptr());
        }
        // INVARIANT: The reference of the allocation is ours.
        Ok(Folio { folio })
    }

    fn into_raw(self) -> NonNull<bindings::folio> {
        core::mem::ManuallyDrop::new(self).folio
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        detach(self.folio);
        // SAFETY: By the invariant the folio is valid and one reference of it ours.
        unsafe { shim::ckpt_folio_put(self.folio.as_ptr()) };
    }
}

/// Takes a valid folio out of its mapping.
///
/// The kernel may still hold references to it, of a DMA that is under way. It dirties such
/// a folio under the folio lock, and finds no mapping after this.
fn detach(folio: NonNull<bindings::folio>) {
    // SAFETY: The folio is valid.
    unsafe {
        shim::ckpt_folio_lock(folio.as_ptr());
        shim::ckpt_folio_set_mapping(folio.as_ptr(), core::ptr::null_mut());
        bindings::folio_unlock(folio.as_ptr());
    }
}

/// A page of an arena, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct FolioRef<'a> {
    folio: NonNull<bindings::folio>,
    _table: core::marker::PhantomData<&'a FolioTable>,
}

impl FolioRef<'_> {
    /// The page structure of the folio's only page.
    pub(super) fn page(&self) -> *mut bindings::page {
        // SAFETY: The folio is owned by the table that `self` borrows from.
        unsafe { shim::ckpt_folio_page(self.folio.as_ptr()) }
    }

    /// The raw folio.
    pub(super) fn as_ptr(&self) -> *mut bindings::folio {
        self.folio.as_ptr()
    }

    /// Writes the page, as it is at this moment, to user space.
    pub(crate) fn write_to(&self, to: *mut c_void) -> Result {
        // SAFETY: The folio is owned by the table that `self` borrows from.
        unsafe { super::copies::folio_to_user(self.folio, to) }
    }

    /// Number of the page frame.
    pub(super) fn pfn(&self) -> c_ulong {
        // SAFETY: The folio is owned by the table that `self` borrows from.
        unsafe { shim::ckpt_folio_pfn(self.folio.as_ptr()) }
    }

    /// Whether the page may be pinned for DMA. Can say yes wrongly, never no.
    pub(crate) fn maybe_dma_pinned(&self) -> bool {
        // SAFETY: The folio is owned by the table that `self` borrows from.
        unsafe { shim::ckpt_folio_maybe_dma_pinned(self.folio.as_ptr()) }
    }

    /// Copies from the page, as it is at this moment, to user space. Returns the bytes
    /// copied.
    pub(crate) fn copy_to(&self, offset: usize, len: usize, to: &mut IovIterDest<'_>) -> usize {
        let len = len.min(PAGE_SIZE - offset % PAGE_SIZE);
        // SAFETY: The page is valid and the range within it. The bytes may change
        // meanwhile, which C's copy allows.
        unsafe { bindings::copy_page_to_iter(self.page(), offset % PAGE_SIZE, len, to.as_raw()) }
    }
}

/// The pages of one chunk.
///
/// # Invariants
///
/// A place is null or the raw form of a [`Folio`] that the table owns; once not null it
/// does not change.
#[repr(transparent)]
pub(crate) struct FolioTable {
    places: [AtomicPtr<bindings::folio>; CHUNK_PAGES],
}

// SAFETY: Only an array of atomic pointers, of which null is a valid value.
unsafe impl Zeroed for FolioTable {}

// SAFETY: Folios may be used from any thread; the places are atomic.
unsafe impl Send for FolioTable {}
// SAFETY: As above.
unsafe impl Sync for FolioTable {}

impl FolioTable {
    /// The page at a place: `pgoff` modulo the pages of a chunk.
    pub(crate) fn get(&self, pgoff: u64) -> Option<FolioRef<'_>> {
        let place = &self.places[pgoff as usize % CHUNK_PAGES];
        Some(FolioRef {
            folio: NonNull::new(place.load(Ordering::Acquire))?,
            _table: core::marker::PhantomData,
        })
    }

    /// Puts a page in its place. Gives it back when there is one already.
    pub(crate) fn install(&self, pgoff: u64, folio: Folio) -> Result<(), Folio> {
        let place = &self.places[pgoff as usize % CHUNK_PAGES];
        let raw = folio.into_raw();
        // INVARIANT: The place goes from null to a folio that is now the table's.
        let put = place.compare_exchange(
            core::ptr::null_mut(),
            raw.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match put {
            Ok(_) => Ok(()),
            // INVARIANT: Not stored, so still owned here alone.
            Err(_) => Err(Folio { folio: raw }),
        }
    }
}

impl FolioTable {
    /// Takes all pages out of their mapping. None may be mapped any more.
    pub(crate) fn detach(&self) {
        for place in &self.places {
            if let Some(folio) = NonNull::new(place.load(Ordering::Acquire)) {
                detach(folio);
            }
        }
        // SAFETY: Detaching takes folio locks, so sleeping is allowed.
        unsafe { shim::ckpt_cond_resched() };
    }
}

impl Drop for FolioTable {
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some(folio) = NonNull::new(*place.get_mut()) {
                // INVARIANT: By the table's invariant the folio is its own.
                drop(Folio { folio });
            }
        }
        // SAFETY: Arenas are dropped where sleeping is allowed: in the release of a file
        // or when a creation fails.
        unsafe { shim::ckpt_cond_resched() };
    }
}
