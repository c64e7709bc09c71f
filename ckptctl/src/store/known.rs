// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a writer remembers of the pages that the chain has: a digest of each, by which it tells
//! pages that did not change, and pages that are there already.
//!
//! Two pages with the same digest are taken for the same without looking at them. So the digest
//! is one of 128 bits under a key that is drawn anew by every writer and never leaves its memory:
//! not even who chooses the content of pages can make two that agree.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::io;

use highway::HighwayHash;
use highway::HighwayHasher;
use highway::Key;

use super::codec::is_zero;
use super::meta::CommitMeta;

/// Pages that are remembered at most: 16 GiB in pages of 4 KiB. Others are stored each time.
const KNOWN_MAX: usize = 4 << 20;

/// Pages of one record that are remembered at most.
const FRESH_MAX: usize = 1 << 20;

/// Digest of a page; two have values of their own.
pub(super) type Digest = u128;

/// Of a page of which nothing is known.
const UNKNOWN: Digest = 0;
/// Of a page that is zero.
pub(super) const ZERO: Digest = 1;

/// What is known of the pages of an epoch.
///
/// Memory: 16 bytes for each page in parts of 512 pages, and 16 to 32 for finding it by its
/// digest; while a record is written 24, and 16 to 32, for each of its pages.
pub(super) struct Known {
    key: [u64; 4],
    /// The epoch; none when nothing is known.
    epoch: Option<u64>,
    arena_len_pages: u64,
    pages: PageTable,
    finder: Finder,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &mut f.debug_struct("Known");
        fields.field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Known {
    /// Nothing, with a new key.
    pub fn new() -> io::Result<Known> {
        let mut bytes = [[0; 8]; 4];
        getrandom::fill(bytes.as_flattened_mut())?;
        Ok(Known {
            key: bytes.map(u64::from_ne_bytes),
            epoch: None,
            arena_len_pages: 0,
            pages: PageTable::new(KNOWN_MAX),
            finder: Finder::default(),
        })
    }

    /// The digest of a page.
    pub fn digest(&self, page: &[u8]) -> Digest {
        digest(&self.key, page)
    }

    /// Prepares for a record: what is not known of its parent is not known at all.
    pub fn begin(&mut self, parent: Option<u64>) {
        if self.epoch != parent {
            self.forget_all();
        }
    }

    /// Begins to learn what an epoch has, in so many pages.
    pub fn begin_anew(&mut self, pages: u64) {
        self.forget_all();
        self.finder.expect(pages.min(KNOWN_MAX as u64) as usize);
        self.arena_len_pages = u64::MAX;
    }

    /// The key for [`digest`].
    pub fn key(&self) -> [u64; 4] {
        self.key
    }

    /// All of an epoch was learnt.
    pub fn learnt(&mut self, epoch: u64, arena_len_pages: u64) {
        self.epoch = Some(epoch);
        self.arena_len_pages = arena_len_pages;
    }

    fn forget_all(&mut self) {
        self.epoch = None;
        self.pages = PageTable::new(self.pages.max);
        self.finder = Finder::default();
    }

    /// True when a page has this digest.
    pub fn has(&self, pgoff: u64, digest: Digest) -> bool {
        self.pages.get(pgoff) == digest
    }

    /// A page with the content of this digest.
    pub fn find(&self, digest: Digest) -> Option<u64> {
        let of = |page: u32| self.pages.get(page.into());
        self.finder.find(digest, of).map(u64::from)
    }

    /// Page `pgoff` will be something else, and it is too much to remember what.
    fn forget(&mut self, pgoff: u64) {
        self.pages.set(pgoff, UNKNOWN);
    }

    /// A record became durable: what is known is of its epoch now.
    pub fn accept(&mut self, meta: &CommitMeta, fresh: Fresh) {
        self.begin(meta.parent);
        for (&pgoff, &digest) in fresh.pgoffs.iter().zip(&fresh.digests) {
            self.set(pgoff, digest);
        }
        if meta.arena_len_pages < self.arena_len_pages {
            self.pages.cut(meta.arena_len_pages);
        }
        self.arena_len_pages = meta.arena_len_pages;
        self.epoch = Some(meta.epoch);
    }

    /// Notes what a page has.
    pub fn set(&mut self, pgoff: u64, digest: Digest) {
        if !self.pages.set(pgoff, digest) || digest <= ZERO {
            return;
        }
        if let Ok(page) = u32::try_from(pgoff) {
            let of = |page: u32| self.pages.get(page.into());
            self.finder.insert(digest, page, of);
        }
    }
}

/// The digest of a page under a key.
pub(super) fn digest(key: &[u64; 4], page: &[u8]) -> Digest {
    if is_zero(page) {
        return ZERO;
    }
    let [low, high] = HighwayHasher::new(Key(*key)).hash128(page);
    let digest = (Digest::from(high) << 64) | Digest::from(low);
    digest.max(ZERO + 1)
}

/// The pages of a record that is being written.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    pgoffs: Vec<u64>,
    digests: Vec<Digest>,
    /// Finds pages that are stored with their bytes, by their place in the list.
    finder: Finder,
}

impl Fresh {
    /// Notes what a page will be; `stored` when its bytes are stored in the record.
    pub fn note(&mut self, known: &mut Known, pgoff: u64, digest: Digest, stored: bool) {
        if self.pgoffs.len() >= FRESH_MAX {
            return known.forget(pgoff);
        }
        if stored {
            let digests = &self.digests;
            // The page that is being noted is not in the list yet.
            let of = |at: u32| digests.get(at as usize).copied().unwrap_or(digest);
            self.finder.insert(digest, self.pgoffs.len() as u32, of);
        }
        self.pgoffs.push(pgoff);
        self.digests.push(digest);
    }

    /// A page of the record that is stored with the content of this digest.
    pub fn find(&self, digest: Digest) -> Option<u64> {
        let of = |at: u32| self.digests[at as usize];
        let at = self.finder.find(digest, of)?;
        Some(self.pgoffs[at as usize])
    }
}

/// Pages that are together in a [`PageTable`].
const PART: u64 = 512;

/// Digests by page number.
#[derive(Debug)]
struct PageTable {
    parts: HashMap<u64, Box<[Digest; PART as usize]>, BuildHasherDefault<PartHasher>>,
    max: usize,
}

/// Hashes the numbers of parts. They are asked for several times for each page, and none but
/// the program itself chooses them.
#[derive(Default)]
struct PartHasher(u64);

impl Hasher for PartHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The map looks at the lowest bits and at the highest.
        let mixed = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl PageTable {
    fn new(max: usize) -> PageTable {
        PageTable {
            parts: HashMap::default(),
            max,
        }
    }

    fn get(&self, pgoff: u64) -> Digest {
        let part = self.parts.get(&(pgoff / PART));
        part.map_or(UNKNOWN, |part| part[(pgoff % PART) as usize])
    }

    /// False when there is no place for it.
    fn set(&mut self, pgoff: u64, digest: Digest) -> bool {
        let full = (self.parts.len() + 1) * PART as usize > self.max;
        let number = pgoff / PART;
        if (full || digest == UNKNOWN) && !self.parts.contains_key(&number) {
            return false;
        }
        let part = self.parts.entry(number);
        let part = part.or_insert_with(|| Box::new([UNKNOWN; PART as usize]));
        part[(pgoff % PART) as usize] = digest;
        true
    }

    /// Forgets the pages from `end` on.
    fn cut(&mut self, end: u64) {
        self.parts.retain(|&number, part| {
            let first = number * PART;
            let kept = end.saturating_sub(first).min(PART);
            part[kept as usize..].fill(UNKNOWN);
            kept > 0
        });
    }
}

/// Slots of a bucket.
const WAYS: usize = 4;

/// Slots that are enough for so many numbers and one more.
fn slots_for(numbers: usize) -> usize {
    (2 * numbers + 1).next_power_of_two().max(64)
}

/// Finds numbers by their digests, which are kept elsewhere. A number whose digest is another by
/// now is not found, and its slot is used again. Where too many come together one is not found
/// any more.
#[derive(Debug, Default)]
struct Finder {
    slots: Vec<Slot>,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u32,
    /// Of the digest, to look no further most of the time.
    tag: u32,
}

const EMPTY: Slot = Slot {
    number: u32::MAX,
    tag: 0,
};

impl Slot {
    fn of(digest: Digest, number: u32) -> Slot {
        let tag = (digest >> 96) as u32;
        Slot { number, tag }
    }

    fn is_empty(self) -> bool {
        self.number == EMPTY.number
    }

    fn is_right(self, of: impl Fn(u32) -> Digest) -> bool {
        let digest = of(self.number);
        digest > ZERO && Slot::of(digest, self.number).tag == self.tag
    }
}

impl Finder {
    /// Where the two buckets begin in which a digest may be.
    fn buckets(&self, digest: Digest) -> [usize; 2] {
        let buckets = self.slots.len() / WAYS;
        [digest, digest >> 48].map(|part| (part as usize & (buckets - 1)) * WAYS)
    }

    /// The first slot in which a digest may be of which something holds.
    fn slot(&self, digest: Digest, holds: impl Fn(Slot) -> bool) -> Option<usize> {
        self.buckets(digest).into_iter().find_map(|start| {
            let bucket = &self.slots[start..start + WAYS];
            let way = bucket.iter().position(|&slot| holds(slot))?;
            Some(start + way)
        })
    }

    fn find(&self, digest: Digest, of: impl Fn(u32) -> Digest) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let tag = Slot::of(digest, 0).tag;
        let has = |slot: Slot| slot.tag == tag && !slot.is_empty() && of(slot.number) == digest;
        let at = self.slot(digest, has)?;
        Some(self.slots[at].number)
    }

    /// Makes room for so many.
    fn expect(&mut self, numbers: usize) {
        if self.slots.is_empty() {
            self.slots = vec![EMPTY; slots_for(numbers)];
        }
    }

    /// Adds a number, unless there is one for the digest.
    fn insert(&mut self, digest: Digest, number: u32, of: impl Fn(u32) -> Digest) {
        if 2 * self.used >= self.slots.len() {
            self.rebuild(&of);
        }
        self.place(digest, number, of);
    }

    fn place(&mut self, digest: Digest, number: u32, of: impl Fn(u32) -> Digest) {
        if self.find(digest, &of).is_some() {
            return;
        }
        let empty = self.slot(digest, Slot::is_empty);
        let wrong = || self.slot(digest, |slot| !slot.is_right(&of));
        let at = empty.or_else(wrong).unwrap_or_else(|| {
            let way = (digest >> 80) as usize % (2 * WAYS);
            self.buckets(digest)[way / WAYS] + way % WAYS
        });
        self.used += usize::from(empty.is_some());
        self.slots[at] = Slot::of(digest, number);
    }

    /// Makes room: twice as much, unless much of what is there is not right any more.
    fn rebuild(&mut self, of: &impl Fn(u32) -> Digest) {
        let old = std::mem::take(&mut self.slots);
        let right = |slot: &&Slot| !slot.is_empty() && slot.is_right(of);
        let needed = old.iter().filter(right).count();
        self.slots = vec![EMPTY; slots_for(needed)];
        self.used = 0;
        for &Slot { number, .. } in old.iter().filter(right) {
            self.place(of(number), number, of);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::meta;

    /// A record of pages with these contents, over `known`; what the sink would find.
    fn record(known: &mut Known, parent: Option<u64>, pages: &[(u64, u8)]) -> Fresh {
        known.begin(parent);
        let mut fresh = Fresh::default();
        for &(pgoff, content) in pages {
            let digest = known.digest(&[content; 64]);
            let stored = fresh.find(digest).is_none();
            fresh.note(known, pgoff, digest, stored);
        }
        fresh
    }

    proptest! {
        #[test]
        fn what_is_found_has_the_content_that_was_looked_for(
            records in prop::collection::vec(
                (prop::collection::btree_map(0..600u64, 0..40u8, 0..80), any::<bool>()),
                1..12,
            ),
        ) {
            let mut known = Known::new().unwrap();
            let mut model: HashMap<u64, u8> = HashMap::new();
            let mut parent = None;
            for (epoch, (pages, succeeds)) in (1..).zip(records) {
                let pages: Vec<(u64, u8)> = pages.into_iter().collect();
                let fresh = record(&mut known, parent, &pages);
                for content in 0..40u8 {
                    let digest = known.digest(&[content; 64]);
                    let found = fresh.find(digest);
                    prop_assert!(found.is_none_or(|found| pages.contains(&(found, content))));
                    if let Some(found) = known.find(digest) {
                        prop_assert_eq!(model.get(&found), Some(&content));
                    }
                    for (&pgoff, &there) in &model {
                        prop_assert_eq!(known.has(pgoff, digest), there == content);
                    }
                }
                if succeeds {
                    let meta = CommitMeta { parent, arena_len_pages: 600, ..meta(epoch) };
                    known.accept(&meta, fresh);
                    model.extend(pages);
                    parent = Some(epoch);
                }
            }
        }
    }

    #[test]
    fn with_another_parent_all_is_forgotten() {
        let mut known = Known::new().unwrap();
        let fresh = record(&mut known, None, &[(3, 7)]);
        known.accept(&meta(1), fresh);
        let digest = known.digest(&[7; 64]);
        known.begin(Some(1));
        assert_eq!(known.find(digest), Some(3));
        known.begin(Some(2));
        assert_eq!(known.find(digest), None);
        assert!(!known.has(3, digest));
    }

    #[test]
    fn pages_that_are_cut_off_are_forgotten() {
        let mut known = Known::new().unwrap();
        let fresh = record(&mut known, None, &[(3, 7), (31, 8)]);
        known.accept(&meta(1), fresh);
        let smaller = CommitMeta {
            arena_len_pages: 31,
            ..meta(2)
        };
        known.accept(&smaller, Fresh::default());
        let digest = |content| known.digest(&[content; 64]);
        assert_eq!(known.find(digest(7)), Some(3));
        assert_eq!(known.find(digest(8)), None);
    }

    #[test]
    fn there_is_a_limit_to_what_is_remembered() {
        let mut table = PageTable::new(2 * PART as usize);
        let kept = (0..10).filter(|part| table.set(part * PART, 9)).count();
        assert_eq!((kept, table.parts.len()), (2, 2));
        assert!(table.set(PART + 1, 9));
    }

    #[test]
    fn most_pages_are_found_again() {
        let mut finder = Finder::default();
        let digests: Vec<Digest> = (0..50_000u64)
            .map(|page| digest(&[1, 2, 3, 4], &page.to_le_bytes()))
            .collect();
        for (page, &digest) in (0..).zip(&digests) {
            finder.insert(digest, page, |page| digests[page as usize]);
        }
        let found = (0..)
            .zip(&digests)
            .filter(|&(page, &digest)| {
                finder.find(digest, |page| digests[page as usize]) == Some(page)
            })
            .count();
        assert!(found > 49_500, "{found} of 50000");
        assert!(finder.slots.len() <= 4 * 50_000);
    }
}
