// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Putting pages into an arena that is new.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;
use crate::sys::span::Span;

static ZEROS: [u8; PAGE] = [0; PAGE];

/// So many pages or more, one behind the other, are made by one call before they are written,
/// which costs less than a fault for each.
const AT_ONCE: usize = 8;

/// An arena in which no page was written yet, and which nobody but the threads that fill it uses.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    base: NonNull<u8>,
    len_bytes: usize,
    mapping: PhantomData<&'a Mapping>,
}

// SAFETY: The pointer is to memory that belongs to the process, not to a thread. Threads write to
// different pages of it, as `put` demands.
unsafe impl Sync for Filling<'_> {}

impl<'a> Filling<'a> {
    pub(super) fn new(mapping: &'a Mapping) -> Filling<'a> {
        Filling {
            base: mapping.base(),
            len_bytes: mapping.len_bytes(),
            mapping: PhantomData,
        }
    }

    /// Copies pages in, from page `first` on. A page that is zero is one already: it is not
    /// touched, so that it takes no memory. False when they reach beyond the arena.
    ///
    /// # Safety
    ///
    /// No page is put while or after it was put by another thread.
    pub(crate) unsafe fn put(&self, first: u64, bytes: &[u8]) -> bool {
        let fits = usize::try_from(first)
            .ok()
            .and_then(|first| first.checked_mul(PAGE))
            .filter(|offset| self.len_bytes.saturating_sub(*offset) >= bytes.len());
        let Some(offset) = fits else {
            return false;
        };
        let mut at = 0;
        let is_zero = |page: &&[u8]| **page == ZEROS[..page.len()];
        while at < bytes.len() {
            let pages = bytes[at..].chunks(PAGE);
            let zeros = pages.take_while(is_zero).count();
            let start = bytes.len().min(at + zeros * PAGE);
            let pages = bytes[start..].chunks(PAGE);
            let others = pages.take_while(|page| !is_zero(page)).count();
            at = bytes.len().min(start + others * PAGE);
            let stretch = &bytes[start..at];
            // SAFETY: The pages lie in the arena, and as this function's contract no other
            // thread uses them. The program has no pointer to them yet.
            unsafe {
                let to = self.base.add(offset + start);
                if others >= AT_ONCE {
                    Span::new(to, stretch.len()).make_pages();
                }
                std::ptr::copy_nonoverlapping(stretch.as_ptr(), to.as_ptr(), stretch.len());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::sys::fake;

    /// Whether the pages of a mapping take memory.
    fn present(mapping: &Mapping) -> Vec<bool> {
        let pages = mapping.len_bytes() / PAGE;
        let first = mapping.base().as_ptr() as u64 / PAGE as u64;
        let mut entries = vec![0; 8 * pages];
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        pagemap.read_exact_at(&mut entries, 8 * first).unwrap();
        entries
            .chunks_exact(8)
            .map(|entry| entry[7] >> 7 == 1)
            .collect()
    }

    #[test]
    fn pages_arrive_whether_they_can_be_made_at_once_or_not() {
        let len = 3 * AT_ONCE * PAGE;
        let mut bytes = vec![7; len];
        bytes[AT_ONCE * PAGE..(AT_ONCE + 1) * PAGE].fill(0);
        for refused in [false, true] {
            let mapping = Mapping::anonymous(0, len).unwrap();
            let _failing = refused.then(|| {
                let advice = nix::sys::mman::MmapAdvise::MADV_POPULATE_WRITE;
                fake::fail(fake::Call::Advise(advice), nix::libc::EINVAL)
            });
            // SAFETY: There is one thread.
            assert!(unsafe { Filling::new(&mapping).put(0, &bytes) });
            let present = present(&mapping).into_iter();
            assert_eq!(present.filter(|there| !there).count(), 1);
            // SAFETY: The mapping is this test's.
            let filled = unsafe { std::slice::from_raw_parts(mapping.base().as_ptr(), len) };
            assert!(filled == bytes);
        }
    }

    #[test]
    fn a_page_that_is_zero_is_not_touched() {
        let mapping = Mapping::anonymous(0, 6 * PAGE).unwrap();
        let filling = Filling::new(&mapping);
        let mut bytes = vec![0; 4 * PAGE];
        bytes[PAGE] = 1;
        bytes[4 * PAGE - 1] = 2;
        // SAFETY: There is one thread.
        assert!(unsafe { filling.put(1, &bytes) });
        assert_eq!(present(&mapping), [false, false, true, false, true, false]);
        // SAFETY: The mapping is this test's.
        let filled = unsafe { std::slice::from_raw_parts(mapping.base().as_ptr(), 6 * PAGE) };
        assert!(filled[PAGE..5 * PAGE] == bytes);
    }

    #[test]
    fn what_reaches_beyond_the_arena_is_refused() {
        let mapping = Mapping::anonymous(0, 2 * PAGE).unwrap();
        let filling = Filling::new(&mapping);
        for first in [1, 2, 1 << 52, u64::MAX] {
            // SAFETY: There is one thread.
            assert!(!unsafe { filling.put(first, &[1; 2 * PAGE]) });
        }
    }
}
