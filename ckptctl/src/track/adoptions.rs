// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of the program's, outside of the arena's addresses, that is a part of the arena.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::PageRange;
use crate::error::Error;
use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;
use crate::sys::span::Span;

/// Memory that was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The pages of the arena that it is.
    pub pages: PageRange,
    /// Where it is.
    pub memory: Span,
}

impl Adoption {
    /// Its addresses.
    pub fn addresses(&self) -> Range<u64> {
        let start = self.memory.base().as_ptr() as u64;
        start..start + self.memory.len_bytes() as u64
    }
}

/// All memory that an arena has adopted, by ascending pages.
#[derive(Debug, Default)]
pub struct Adoptions {
    list: Vec<Adoption>,
}

impl Adoptions {
    pub(super) fn add(&mut self, pages: PageRange, memory: Span) {
        let at = self.list.partition_point(|it| it.pages.start < pages.start);
        self.list.insert(at, Adoption { pages, memory });
    }

    pub(super) fn remove(&mut self, pages: &PageRange) {
        self.list.retain(|it| it.pages != *pages);
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Adoption> {
        self.list.iter()
    }

    /// The memory that is these pages.
    pub fn find(&self, pages: &PageRange) -> Option<Span> {
        let mut found = self.list.iter().filter(|it| it.pages == *pages);
        found.next().map(|it| it.memory)
    }

    /// Where pages are, in order: in adopted memory, or else in the mapping.
    pub(super) fn places(
        &self,
        mapping: &Mapping,
        pages: PageRange,
    ) -> Vec<(PageRange, NonNull<u8>)> {
        let at = |span: Span, page: u64, pages: &PageRange| {
            let (offset, len) = (
                page as usize * PAGE,
                (pages.end - pages.start) as usize * PAGE,
            );
            span.part(offset, len).base()
        };
        let mut places = Vec::new();
        let mut next = pages.start;
        let first = self.list.partition_point(|it| it.pages.end <= pages.start);
        for it in &self.list[first..] {
            if it.pages.start >= pages.end {
                break;
            }
            let before = next..it.pages.start.max(next);
            if !before.is_empty() {
                places.push((before.clone(), at(mapping.span(), before.start, &before)));
            }
            let within = before.end..it.pages.end.min(pages.end);
            let offset = within.start - it.pages.start;
            places.push((within.clone(), at(it.memory, offset, &within)));
            next = within.end;
        }
        let rest = next..pages.end;
        if !rest.is_empty() {
            places.push((rest.clone(), at(mapping.span(), rest.start, &rest)));
        }
        places
    }
}

/// Makes the pages of a span what those of another are, and touches none that is already.
///
/// # Safety
///
/// Nobody uses them but by atomic or volatile accesses, and what is lost of such writes is not
/// missed.
pub(super) unsafe fn copy(from: Span, to: Span) {
    assert_eq!(from.len_bytes(), to.len_bytes());
    let mut bytes = Vec::with_capacity(PAGE);
    let mut now = Vec::with_capacity(PAGE);
    for offset in (0..from.len_bytes()).step_by(PAGE) {
        bytes.clear();
        now.clear();
        from.append_to(&mut bytes, offset, PAGE);
        to.append_to(&mut now, offset, PAGE);
        if bytes != now {
            // SAFETY: Within the span, and as this function's contract.
            unsafe {
                let to = to.base().add(offset).as_ptr();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, PAGE);
            }
        }
    }
}

/// Makes the pages of a span zero, and touches none that is.
///
/// # Safety
///
/// Nobody uses them.
pub(super) unsafe fn clear(span: Span) {
    let mut now = Vec::with_capacity(PAGE);
    for offset in (0..span.len_bytes()).step_by(PAGE) {
        now.clear();
        span.append_to(&mut now, offset, PAGE);
        if now.iter().any(|&byte| byte != 0) {
            // SAFETY: Within the span, and as this function's contract.
            unsafe { span.base().add(offset).as_ptr().write_bytes(0, PAGE) };
        }
    }
}

/// The part of an arena's mapping that pages have.
pub(super) fn part(mapping: &Mapping, pages: &PageRange) -> Span {
    let (first, len) = (pages.start as usize, (pages.end - pages.start) as usize);
    mapping.span().part(first * PAGE, len * PAGE)
}

/// Brings pages of an arena to the memory that they are in from now on. Those at the arena's own
/// addresses are not used any more.
///
/// # Safety
///
/// Nobody uses either, and what was in the memory is not wanted.
pub(super) unsafe fn bring(mapping: &Mapping, pages: &PageRange, memory: Span) {
    let here = part(mapping, pages);
    // SAFETY: As this function's contract.
    unsafe {
        copy(here, memory);
        // A copy that stays costs memory, and nothing else.
        let _ = here.discard();
    }
}

/// An error of the system.
pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_looked_for_where_they_are() {
        let mapping = Mapping::anonymous(0, 20 * PAGE).unwrap();
        let others = [3, 2].map(|pages| Mapping::anonymous(0, pages * PAGE).unwrap());
        let mut adoptions = Adoptions::default();
        adoptions.add(10..12, others[1].span());
        adoptions.add(4..7, others[0].span());
        let place = |mapping: &Mapping, page: usize| mapping.span().part(page * PAGE, PAGE).base();
        let all = adoptions.places(&mapping, 0..20);
        assert_eq!(
            all,
            [
                (0..4, place(&mapping, 0)),
                (4..7, place(&others[0], 0)),
                (7..10, place(&mapping, 7)),
                (10..12, place(&others[1], 0)),
                (12..20, place(&mapping, 12)),
            ]
        );
        assert_eq!(
            adoptions.places(&mapping, 5..11),
            [
                (5..7, place(&others[0], 1)),
                (7..10, place(&mapping, 7)),
                (10..11, place(&others[1], 0)),
            ]
        );
        assert_eq!(
            adoptions.places(&mapping, 6..7),
            [(6..7, place(&others[0], 2))]
        );
        adoptions.remove(&(4..7));
        assert_eq!(
            adoptions.places(&mapping, 6..7),
            [(6..7, place(&mapping, 6))]
        );
        assert_eq!(adoptions.places(&mapping, 6..6), []);
        assert_eq!(adoptions.find(&(10..12)), Some(others[1].span()));
    }

    #[test]
    fn a_copy_touches_what_differs() {
        let [from, to] = [(); 2].map(|()| Mapping::anonymous(0, 3 * PAGE).unwrap());
        // SAFETY: Both are this test's.
        unsafe {
            from.base().add(PAGE).write(1);
            to.base().add(2 * PAGE).write(2);
            copy(from.span(), to.span());
            assert_eq!(to.base().add(PAGE).read(), 1);
            assert_eq!(to.base().add(2 * PAGE).read(), 0);
        }
    }
}
