// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A set of page numbers, kept as disjoint ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of pages; its cost follows the number of ranges, not of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageSet {
    /// Start to end; never empty, overlapping or touching.
    ranges: BTreeMap<u64, u64>,
}

impl PageSet {
    /// Adds a range and returns the parts of it that were not in the set, ascending.
    pub(super) fn insert(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut fresh = Vec::new();
        if range.is_empty() {
            return fresh;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut at = range.start;
        // Ranges are disjoint, so the last one that starts at or before the new
        // end is the last that can touch it; going back from there, the first
        // that ends before the new start ends the search.
        let touching: Vec<(u64, u64)> = self
            .ranges
            .range(..=range.end)
            .rev()
            .take_while(|&(_, &old_end)| old_end >= range.start)
            .map(|(&old_start, &old_end)| (old_start, old_end))
            .collect();
        for &(old_start, old_end) in touching.iter().rev() {
            if at < old_start {
                fresh.push(at..old_start.min(range.end));
            }
            at = at.max(old_end);
            start = start.min(old_start);
            end = end.max(old_end);
            self.ranges.remove(&old_start);
        }
        if at < range.end {
            fresh.push(at..range.end);
        }
        self.ranges.insert(start, end);
        fresh
    }

    /// The ranges, ascending, not touching.
    #[cfg(test)]
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_numbers_holds(
            inserted in prop::collection::vec((0..60u64, 0..12u64), 0..30),
        ) {
            let mut set = PageSet::default();
            let mut model = BTreeSet::new();
            for (start, len) in inserted {
                let fresh = set.insert(start..start + len);
                let fresh: Vec<u64> = fresh.into_iter().flatten().collect();
                let expected: Vec<u64> =
                    (start..start + len).filter(|page| model.insert(*page)).collect();
                prop_assert_eq!(fresh, expected);
                let ranges: Vec<_> = set.ranges().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                let held: Vec<u64> = ranges.into_iter().flatten().collect();
                prop_assert_eq!(held, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
