// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that is written to.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::Result;
use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mmap_anonymous;
use nix::sys::mman::munmap;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Private memory, page by page.
pub struct Private {
    base: NonNull<u8>,
    len: usize,
}

impl Private {
    /// Memory of so many pages, none of them huge.
    pub fn new(pages: u64) -> Result<Private> {
        let len = pages as usize * PAGE;
        let length = NonZeroUsize::new(len).ok_or_else(|| anyhow::anyhow!("no pages"))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping wherever there is room.
        let base = unsafe { mmap_anonymous(None, length, protection, flags) }?.cast();
        // SAFETY: The mapping just made. All mechanisms but the module could have huge pages
        // here, which would make them tell of 512 pages for one.
        unsafe {
            nix::sys::mman::madvise(
                base.cast(),
                len,
                nix::sys::mman::MmapAdvise::MADV_NOHUGEPAGE,
            )?;
        }
        Ok(Private { base, len })
    }

    /// The first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: Mapped in `new`, zeroed by the kernel, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: Mapped in `new`, and nobody uses it any more.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// Eight increments in each page, 512 bytes apart.
///
/// # Safety
///
/// The pages are in the memory at `base`, which this thread alone writes.
pub unsafe fn write(base: NonNull<u8>, pages: &[u64]) {
    for &page in pages {
        for place in (0..PAGE).step_by(512) {
            // SAFETY: As this function's contract.
            unsafe {
                let byte = base.as_ptr().add(page as usize * PAGE + place);
                byte.write_volatile(byte.read_volatile().wrapping_add(1));
            }
        }
    }
}
