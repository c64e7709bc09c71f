// SPDX-License-Identifier: GPL-2.0-only
//! What to do with a chunk at commit.
//!
//! The tracker decides; [`Hardware`] carries out. Here every page is *armed*: its
//! page-table entries are read-only, the first write of an epoch faults and notes
//! the page, and a commit arms the noted pages again.

use super::bits::Bits;

/// What a tracker can ask of the machine.
///
/// Implemented by the module over the arena's mappings, and by models in tests.
pub trait Hardware {
    /// Write-protects pages `first .. first + len` in every mapping, *then* cleans
    /// their page-table entries, so that a write after the call faults and a write
    /// before it is known. The pages lie in one chunk.
    ///
    /// Returns the pages, counted from `first`'s chunk, whose entries were dirty;
    /// empty where the machine cannot tell.
    fn rearm(&mut self, first: u64, len: u64) -> Bits;

    /// Whether a device or the kernel may be writing the page right now, without
    /// going through a page-table entry. Asked after the page was armed.
    fn pinned(&mut self, page: u64) -> bool;
}

/// What came of one chunk at commit.
pub struct Outcome {
    /// Pages that may have changed.
    pub changed: Bits,
    /// Those of them that may still be changing: noted for the next commit, too.
    pub again: Bits,
}

/// The tracking policy of an arena.
pub struct Tracker {
    /// Two runs with at most this many pages between them are armed in one pass.
    merge_gap: usize,
}

/// A pass costs a lock, a walk from the top of the page tables and a TLB flush, as
/// much as going over some dozens of entries that need nothing.
const MERGE_GAP: usize = 32;

impl Tracker {
    /// The armed path for every page.
    pub const fn armed() -> Self {
        Tracker {
            merge_gap: MERGE_GAP,
        }
    }

    /// Harvests the noted pages of the chunk that begins at page `first`.
    ///
    /// An entry that turns out dirty without its page having been noted counts as
    /// changed: better once too often.
    pub fn harvest<W: Hardware>(&self, first: u64, noted: &Bits, hardware: &mut W) -> Outcome {
        let mut changed = *noted;
        for (start, len) in spans(noted, self.merge_gap) {
            changed.union(&hardware.rearm(first + start as u64, len as u64));
        }
        let mut again = Bits::default();
        for page in changed.iter() {
            if hardware.pinned(first + page as u64) {
                again.insert(page);
            }
        }
        Outcome { changed, again }
    }
}

/// The runs of a set, those with small gaps between them joined.
fn spans(bits: &Bits, gap: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut runs = bits.runs().peekable();
    core::iter::from_fn(move || {
        let (first, len) = runs.next()?;
        let mut end = first + len;
        while let Some(&(next, len)) = runs.peek() {
            if next - end > gap {
                break;
            }
            end = next + len;
            runs.next();
        }
        Some((first, end - first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Machine {
        rearmed: Vec<(u64, u64)>,
        dirty: Bits,
        pinned: Vec<u64>,
    }

    impl Hardware for Machine {
        fn rearm(&mut self, first: u64, len: u64) -> Bits {
            self.rearmed.push((first, len));
            self.dirty
        }
        fn pinned(&mut self, page: u64) -> bool {
            self.pinned.contains(&page)
        }
    }

    fn set(pages: &[usize]) -> Bits {
        let mut bits = Bits::default();
        pages.iter().for_each(|&page| bits.insert(page));
        bits
    }

    #[test]
    fn every_noted_page_is_rearmed_and_near_runs_share_a_pass() {
        let mut machine = Machine::default();
        let noted = set(&[0, 1, 20, 100, 511]);
        let outcome = Tracker::armed().harvest(1024, &noted, &mut machine);
        assert_eq!(machine.rearmed, [(1024, 21), (1124, 1), (1535, 1)]);
        assert_eq!(outcome.changed, noted);
        assert!(outcome.again.is_empty());
    }

    #[test]
    fn a_dirty_entry_nobody_noted_counts_as_changed() {
        let mut machine = Machine {
            dirty: set(&[7]),
            ..Machine::default()
        };
        let outcome = Tracker::armed().harvest(0, &set(&[5]), &mut machine);
        assert_eq!(outcome.changed, set(&[5, 7]));
    }

    #[test]
    fn a_pinned_page_is_noted_again() {
        let mut machine = Machine {
            pinned: vec![515],
            ..Machine::default()
        };
        let outcome = Tracker::armed().harvest(512, &set(&[3, 4]), &mut machine);
        assert_eq!(outcome.changed, set(&[3, 4]));
        assert_eq!(outcome.again, set(&[3]));
    }
}
