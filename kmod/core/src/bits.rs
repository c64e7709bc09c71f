// SPDX-License-Identifier: GPL-2.0-only
//! A set of the pages of one chunk.

use core::sync::atomic::{AtomicU64, Ordering};

use super::slot::Zeroed;

/// log2 of the pages in a chunk.
pub const CHUNK_SHIFT: u32 = 9;
/// Pages in a chunk: 512, what one page-table page maps.
pub const CHUNK_PAGES: usize = 1 << CHUNK_SHIFT;
/// Words of a [`Bits`].
pub const WORDS: usize = CHUNK_PAGES / 64;

/// A set of pages of a chunk, bit `n` standing for page `n`.
///
/// The layout is that of the kernel's bitmaps on 64-bit machines, so that a
/// kernel function can fill one in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bits(pub [u64; WORDS]);

impl Bits {
    /// Puts a page into the set.
    pub fn insert(&mut self, page: usize) {
        self.0[page / 64] |= 1 << (page % 64);
    }

    /// All pages of a chunk.
    pub const ALL: Bits = Bits([u64::MAX; WORDS]);

    /// The pages `first .. end` of a chunk.
    pub fn range(first: usize, end: usize) -> Bits {
        let mut bits = Bits::default();
        if first >= end {
            return bits;
        }
        let (from, to) = (first / 64, (end - 1) / 64);
        bits.0[from..=to].fill(u64::MAX);
        bits.0[from] &= u64::MAX << (first % 64);
        bits.0[to] &= u64::MAX >> (63 - (end - 1) % 64);
        bits
    }

    /// Whether a page is in the set.
    #[cfg(test)]
    pub fn contains(&self, page: usize) -> bool {
        self.0[page / 64] & (1 << (page % 64)) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Number of pages in the set.
    pub fn len(&self) -> usize {
        // Counting is slow where the processor's instruction for it may not be used, and most
        // words are empty or full.
        let count = |word: u64| match word {
            0 => 0,
            u64::MAX => 64,
            word => word.count_ones() as usize,
        };
        self.0.iter().map(|&word| count(word)).sum()
    }

    /// The pages that are in this set or in another.
    pub fn or(&self, other: &Bits) -> Bits {
        Bits(core::array::from_fn(|n| self.0[n] | other.0[n]))
    }

    /// The pages that are in both sets.
    pub fn and(&self, other: &Bits) -> Bits {
        Bits(core::array::from_fn(|n| self.0[n] & other.0[n]))
    }

    /// The pages of this set that are not in another.
    pub fn minus(&self, other: &Bits) -> Bits {
        Bits(core::array::from_fn(|n| self.0[n] & !other.0[n]))
    }

    /// Adds all pages of another set.
    pub fn union(&mut self, other: &Bits) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// The runs of pages in the set, ascending, as `(first, len)`.
    pub fn runs(&self) -> Runs<'_> {
        Runs { bits: self, at: 0 }
    }

    /// The pages in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            core::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }

    /// First page at or after `from` whose membership is `wanted`.
    fn find(&self, from: usize, wanted: bool) -> Option<usize> {
        let flip = if wanted { 0 } else { u64::MAX };
        let mut index = from / 64;
        let mut mask = u64::MAX << (from % 64);
        while index < WORDS {
            let word = (self.0[index] ^ flip) & mask;
            if word != 0 {
                return Some(index * 64 + word.trailing_zeros() as usize);
            }
            mask = u64::MAX;
            index += 1;
        }
        None
    }
}

/// A set of the pages of one chunk that several may change at the same time.
///
/// Each page's membership changes in one step; nothing is said about order, which is up
/// to what protects the set.
#[repr(transparent)]
pub struct SharedBits(pub [AtomicU64; WORDS]);

// SAFETY: An array of atomic integers has the representation of their integers.
unsafe impl Zeroed for SharedBits {}

impl SharedBits {
    /// A set with these pages.
    pub fn new(bits: &Bits) -> Self {
        SharedBits(core::array::from_fn(|n| AtomicU64::new(bits.0[n])))
    }

    /// The pages now in the set.
    pub fn load(&self) -> Bits {
        Bits(core::array::from_fn(|n| self.0[n].load(Ordering::Relaxed)))
    }

    /// Makes these the pages of the set.
    pub fn store(&self, bits: &Bits) {
        for (word, &bits) in self.0.iter().zip(&bits.0) {
            word.store(bits, Ordering::Relaxed);
        }
    }

    /// Adds pages.
    pub fn insert(&self, bits: &Bits) {
        for (word, &bits) in self.0.iter().zip(&bits.0) {
            if bits != 0 {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Takes pages out.
    pub fn remove(&self, bits: &Bits) {
        for (word, &bits) in self.0.iter().zip(&bits.0) {
            if bits != 0 {
                word.fetch_and(!bits, Ordering::Relaxed);
            }
        }
    }

    /// Whether a page is in the set.
    pub fn contains(&self, page: usize) -> bool {
        self.0[page / 64].load(Ordering::Relaxed) & (1 << (page % 64)) != 0
    }
}

/// Iterator over the runs of a [`Bits`].
pub struct Runs<'a> {
    bits: &'a Bits,
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        if self.at >= CHUNK_PAGES {
            return None;
        }
        let first = self.bits.find(self.at, true)?;
        let end = self.bits.find(first, false).unwrap_or(CHUNK_PAGES);
        self.at = end;
        Some((first, end - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pages: &[usize]) -> Bits {
        let mut bits = Bits::default();
        for &page in pages {
            bits.insert(page);
        }
        bits
    }

    #[test]
    fn runs_join_neighbours_across_words() {
        let bits = set(&[0, 1, 62, 63, 64, 65, 300, 511]);
        let runs: Vec<_> = bits.runs().collect();
        assert_eq!(runs, [(0, 2), (62, 4), (300, 1), (511, 1)]);
    }

    #[test]
    fn a_full_set_is_one_run() {
        let bits = Bits([u64::MAX; WORDS]);
        assert_eq!(bits.runs().collect::<Vec<_>>(), [(0, CHUNK_PAGES)]);
        assert_eq!(bits.len(), CHUNK_PAGES);
    }

    #[test]
    fn a_range_is_the_pages_from_first_to_end() {
        for (first, end) in [
            (0, 0),
            (0, 512),
            (63, 65),
            (64, 128),
            (5, 6),
            (500, 512),
            (1, 511),
        ] {
            let pages: Vec<_> = (first..end).collect();
            assert_eq!(Bits::range(first, end), set(&pages), "{first}..{end}");
        }
    }

    #[test]
    fn sets_join_meet_and_part() {
        let (a, b) = (set(&[1, 70, 300]), set(&[70, 301]));
        assert_eq!(a.or(&b), set(&[1, 70, 300, 301]));
        assert_eq!(a.and(&b), set(&[70]));
        assert_eq!(a.minus(&b), set(&[1, 300]));
    }

    #[test]
    fn iteration_gives_back_what_was_put_in() {
        let pages = [3, 63, 64, 127, 128, 400, 511];
        let bits = set(&pages);
        assert_eq!(bits.iter().collect::<Vec<_>>(), pages);
        assert!(pages.iter().all(|&page| bits.contains(page)));
        assert!(!bits.contains(4));
        assert!(Bits::default().is_empty() && !bits.is_empty());
    }
}
