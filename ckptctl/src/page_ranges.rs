// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sets of pages as ranges.

use crate::track::PageRange;

/// Ranges in order, without overlaps or neighbours.
pub(crate) fn merged(mut ranges: Vec<PageRange>) -> Vec<PageRange> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<PageRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// What of `pages` is not in `others`; both ascending and disjoint.
pub(crate) fn without(pages: &[PageRange], others: Vec<PageRange>) -> Vec<PageRange> {
    let mut left = Vec::new();
    let mut others = others.into_iter().peekable();
    for run in pages {
        let mut at = run.start;
        while at < run.end {
            // Those that end before here do so for all that comes.
            while others.next_if(|other| other.end <= at).is_some() {}
            let next = others.peek().cloned().unwrap_or(u64::MAX..u64::MAX);
            if next.start > at {
                left.push(at..run.end.min(next.start));
            }
            at = next.end.max(at);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_is_what_a_set_would_have_left(
            pages in prop::collection::vec((0..60u64, 0..9u64), 0..12),
            others in prop::collection::vec((0..60u64, 0..9u64), 0..12),
        ) {
            let ranges = |list: Vec<(u64, u64)>| {
                merged(list.into_iter().map(|(start, len)| start..start + len).collect())
            };
            let (pages, others) = (ranges(pages), ranges(others));
            let there = |page: &u64| others.iter().any(|other| other.contains(page));
            let expected: Vec<u64> =
                pages.iter().cloned().flatten().filter(|page| !there(page)).collect();
            let left: Vec<u64> = without(&pages, others.clone()).into_iter().flatten().collect();
            prop_assert_eq!(left, expected);
        }
    }
}
