// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which epoch last changed each page.

use std::collections::BTreeMap;

use super::PageRange;
use super::push_page;

/// Pages of a chunk.
const CHUNK: u64 = 512;
/// Pages of a word of bits.
const BITS: u64 = u64::BITS as u64;

/// Pages side by side.
struct Chunk {
    /// The newest of the stamps.
    newest: u64,
    /// For each page the epoch that last changed it, 0 if none did.
    stamps: [u64; CHUNK as usize],
    /// For each page a bit: it is not zero, as far as is known.
    held: [u64; (CHUNK / BITS) as usize],
}

/// The stamps of an arena's pages.
#[derive(Default)]
pub(super) struct Stamps {
    chunks: BTreeMap<u64, Box<Chunk>>,
}

/// The parts of a range in the chunks or words that it touches: which, and the places in it.
fn parts(range: PageRange, size: u64) -> impl Iterator<Item = (u64, PageRange)> {
    let touched = range.start / size..range.end.div_ceil(size);
    touched.filter_map(move |part| {
        let first = part * size;
        let within = range.start.max(first) - first..range.end.min(first + size) - first;
        (!within.is_empty()).then_some((part, within))
    })
}

impl Chunk {
    fn new() -> Box<Chunk> {
        Box::new(Chunk {
            newest: 0,
            stamps: [0; CHUNK as usize],
            held: [0; (CHUNK / BITS) as usize],
        })
    }
}

/// The words that have the bits of places, and which bits.
fn words(places: PageRange) -> impl Iterator<Item = (usize, u64)> {
    parts(places, BITS).map(|(word, bits)| {
        let mask = (u64::MAX >> (BITS - (bits.end - bits.start))) << bits.start;
        (word as usize, mask)
    })
}

impl Stamps {
    /// Epoch `epoch` changed these pages, which hold memory of their own now.
    pub(super) fn change(&mut self, pages: PageRange, epoch: u64) {
        for (number, places) in parts(pages, CHUNK) {
            let chunk = self.chunks.entry(number).or_insert_with(Chunk::new);
            chunk.newest = epoch;
            chunk.stamps[places.start as usize..places.end as usize].fill(epoch);
            for (word, mask) in words(places) {
                chunk.held[word] |= mask;
            }
        }
    }

    /// These pages are zero. If they were not before, epoch `epoch` changed them.
    pub(super) fn vacate(&mut self, pages: PageRange, epoch: u64) {
        if pages.is_empty() {
            return;
        }
        let touched = pages.start / CHUNK..pages.end.div_ceil(CHUNK);
        for (number, chunk) in self.chunks.range_mut(touched) {
            let first = number * CHUNK;
            let end = pages.end.min(first + CHUNK) - first;
            let places = pages.start.saturating_sub(first)..end;
            for (word, mask) in words(places) {
                let mut lost = chunk.held[word] & mask;
                chunk.held[word] &= !mask;
                while lost != 0 {
                    let place = word * BITS as usize + lost.trailing_zeros() as usize;
                    chunk.stamps[place] = epoch;
                    chunk.newest = epoch;
                    lost &= lost - 1;
                }
            }
        }
    }

    /// The pages that epochs after `since` changed.
    pub(super) fn after(&self, since: u64) -> Vec<PageRange> {
        let mut ranges = Vec::new();
        for (number, chunk) in &self.chunks {
            if chunk.newest <= since {
                continue;
            }
            for (page, stamp) in (number * CHUNK..).zip(chunk.stamps) {
                if stamp > since {
                    push_page(&mut ranges, page);
                }
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_that_were_never_there_do_not_change_when_they_are_not_there() {
        let mut stamps = Stamps::default();
        stamps.change(3..5, 1);
        stamps.vacate(0..3, 2);
        stamps.vacate(5..100_000, 2);
        assert_eq!(stamps.after(1), []);
        stamps.vacate(0..100_000, 3);
        assert_eq!(stamps.after(2), [3..5]);
        stamps.vacate(0..100_000, 4);
        assert_eq!(stamps.after(3), []);
    }

    proptest! {
        #[test]
        fn stamps_are_those_of_a_map_of_pages(
            steps in prop::collection::vec((0u64..2000, 0u64..700, any::<bool>()), 1..40)
        ) {
            let mut stamps = Stamps::default();
            let mut model = vec![(0, false); 2700];
            for (epoch, &(first, len, there)) in (1..).zip(&steps) {
                let pages = first..first + len;
                match there {
                    true => stamps.change(pages.clone(), epoch),
                    false => stamps.vacate(pages.clone(), epoch),
                }
                for (stamp, held) in &mut model[first as usize..(first + len) as usize] {
                    if there || *held {
                        *stamp = epoch;
                    }
                    *held = there;
                }
            }
            for since in 0..=steps.len() as u64 {
                let found: Vec<u64> = stamps.after(since).into_iter().flatten().collect();
                let expected: Vec<u64> = (0..2700)
                    .filter(|&page: &u64| model[page as usize].0 > since)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
