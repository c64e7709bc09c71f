// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the first pages of somebody else's arena say.

use super::head::HEAD_PAGES;
use super::head::Head;
use crate::store::Identity;
use crate::store::RegionEntry;
use crate::sys::memory::PAGE;

/// An arena as its head describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideView {
    /// The address at which the program has it.
    pub base: u64,
    /// Its regions.
    pub regions: Vec<RegionEntry>,
    /// The program, if it told.
    pub identity: Option<Identity>,
}

impl OutsideView {
    /// What the head of an arena of `len_pages` pages says; `None` if these pages are no head, as
    /// with programs that do without this library, or a wrong one.
    pub fn of(pages: &[u8], len_pages: u64) -> Option<OutsideView> {
        assert_eq!(pages.len(), HEAD_PAGES as usize * PAGE);
        // SAFETY: Any bytes are a head, and there are enough of them; it need not be aligned.
        let mut head = unsafe { Box::new(pages.as_ptr().cast::<Head>().read_unaligned()) };
        let base = head.base();
        head.resume(base, len_pages * PAGE as u64).ok()?;
        Some(OutsideView {
            base,
            regions: head.table(),
            identity: head.identity(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages_of(head: &Head) -> Vec<u8> {
        let mut pages = vec![0; HEAD_PAGES as usize * PAGE];
        // SAFETY: A head is plain bytes, and fits.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(head).cast::<u8>(), size_of::<Head>())
        };
        pages[..bytes.len()].copy_from_slice(bytes);
        pages
    }

    fn head() -> Box<Head> {
        // SAFETY: Integers and arrays, for which zero is a value.
        let mut head: Box<Head> = unsafe { Box::new(std::mem::zeroed()) };
        head.begin(0x2000_0000_0000, 1 << 30);
        head
    }

    #[test]
    fn a_head_tells_base_regions_and_program() {
        let mut head = head();
        head.add("table", 3, 10, 20).unwrap();
        let identity = Identity {
            path: "/bin/program".into(),
            build_id: vec![1, 2, 3],
            ..Identity::default()
        };
        head.set_identity(&identity);
        let view = OutsideView::of(&pages_of(&head), 1 << 18).unwrap();
        assert_eq!(view.base, 0x2000_0000_0000);
        assert_eq!(view.regions.len(), 1);
        assert_eq!(view.regions[0].name, "table");
        assert_eq!(view.identity, Some(identity));
    }

    #[test]
    fn pages_of_something_else_are_no_head() {
        let len = HEAD_PAGES as usize * PAGE;
        assert_eq!(OutsideView::of(&vec![0; len], 1 << 18), None);
        assert_eq!(OutsideView::of(&vec![0xff; len], 1 << 18), None);
        let mut head = head();
        head.add("table", 3, 10, 1 << 17).unwrap();
        assert_eq!(OutsideView::of(&pages_of(&head), 1 << 16), None, "too long");
    }

    #[test]
    fn regions_of_one_name_or_in_one_place_are_no_regions() {
        let view = |damage: fn(&mut Head)| {
            let mut head = head();
            head.add("table", 3, 10, 20).unwrap();
            head.add("other", 3, 10, 20).unwrap();
            damage(&mut head);
            OutsideView::of(&pages_of(&head), 1 << 18)
        };
        assert!(view(|_| {}).is_some());
        assert_eq!(view(|head| head.entry_mut(1).offset_pages -= 1), None);
        assert_eq!(view(|head| *head.entry_mut(1) = *head.entry_mut(0)), None);
        assert_eq!(view(|head| head.rename(1, "table")), None);
        assert_eq!(view(|head| head.rename(1, "")), None);
    }

    #[test]
    fn what_is_free_begins_behind_head_and_regions() {
        let mut head = head();
        head.add("table", 3, 10, 20).unwrap();
        head.take_back();
        assert!(OutsideView::of(&pages_of(&head), 1 << 18).is_some());
        head.set_next_page(3);
        assert_eq!(OutsideView::of(&pages_of(&head), 1 << 18), None);
    }
}
