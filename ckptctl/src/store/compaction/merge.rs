// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The difference between two kept epochs, out of all records between them.

use std::collections::HashSet;
use std::ops::Range;

use super::super::chain::Chain;
use super::super::error::StoreError;
use super::super::format::IndexEntry;
use super::super::format::Layout;
use super::super::format::RUN_MAX_PAGES;
use super::super::index::Run;
use super::super::loader;
use super::super::page_map::PageMap;
use super::super::record::Record;
use super::super::run_cache::Stored;
use super::super::run_reader::OpenSegment;

/// Consecutive pages that differ.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub pages: Range<u64>,
    /// Where they are, and which page of the run the first of them is like; none: they are zero.
    pub stored: Option<(Stored, u64)>,
}

/// What has to be said to get from one kept epoch to the next.
#[derive(Debug)]
pub(super) struct Merged {
    pub epoch: u64,
    pub page_shift: u32,
    meta_len: u64,
    /// Ascending.
    pub parts: Vec<Part>,
}

/// Goes from one kept epoch to the next. Reads indexes only. Memory: about 100 bytes per run or
/// part of a run that the image has, or that changed.
#[derive(Debug)]
pub(super) struct Merger<'a> {
    chain: &'a Chain,
    open: OpenSegment,
    image: PageMap<Stored>,
    /// The epoch that the image is of; none: nothing.
    at: Option<u64>,
    arena_len_pages: u64,
}

impl<'a> Merger<'a> {
    pub(super) fn new(chain: &'a Chain) -> Merger<'a> {
        Merger {
            chain,
            open: OpenSegment::default(),
            image: PageMap::default(),
            at: None,
            arena_len_pages: 0,
        }
    }

    /// What makes `epoch` out of the image of `parent`, which it descends from, or out of
    /// nothing. Quick when `parent` is what was asked for last.
    pub(super) fn step(&mut self, epoch: u64, parent: Option<u64>) -> Result<Merged, StoreError> {
        let kept = self.chain.restorable(epoch)?;
        if self.at != parent {
            self.image = PageMap::default();
            self.arena_len_pages = 0;
            for record in self.between(parent, None) {
                self.apply(record, epoch)?;
            }
        }
        let mut changed = Ranges::default();
        for record in self.between(Some(epoch), parent) {
            let runs = self.apply(record, epoch)?;
            changed.add(runs.iter().map(|run| run.pgoff..run.end()));
        }
        self.at = Some(epoch);
        let limit = kept.info.arena_len_pages;
        let mut parts = Vec::new();
        for range in changed.into_disjoint() {
            let range = range.start..range.end.min(limit);
            if range.is_empty() {
                break;
            }
            let mut next = range.start;
            // What nothing is said of is zero where there is no parent.
            let zero = |parts: &mut Vec<Part>, pages: Range<u64>| {
                if parent.is_some() && !pages.is_empty() {
                    let stored = None;
                    parts.push(Part { pages, stored });
                }
            };
            for part in self.image.parts(&range) {
                zero(&mut parts, next..part.pages.start);
                next = part.pages.end;
                parts.push(Part {
                    pages: part.pages,
                    stored: Some((part.place, part.source)),
                });
            }
            zero(&mut parts, next..range.end);
        }
        Ok(Merged {
            epoch,
            page_shift: kept.info.page_shift,
            meta_len: kept.header.meta_len.get(),
            parts,
        })
    }

    /// The records that lead from one epoch to another, oldest first.
    fn between(&self, epoch: Option<u64>, ancestor: Option<u64>) -> Vec<&'a Record> {
        let chain = self.chain;
        let mut records: Vec<&Record> = epoch
            .into_iter()
            .flat_map(|epoch| chain.lineage(epoch))
            .take_while(|record| Some(record.info.epoch) != ancestor)
            .collect();
        records.reverse();
        records
    }

    /// Brings the image to the next record, for the sake of `epoch`.
    fn apply(&mut self, record: &Record, epoch: u64) -> Result<Vec<Run>, StoreError> {
        let info = &record.info;
        let file = self.open.of(self.chain, info.segment)?;
        let damaged = |(offset, what)| self.chain.damaged_now(record, offset, what, epoch);
        let runs = self
            .chain
            .record_file(record, file)
            .runs(&record.header)?
            .map_err(damaged)?;
        let stored = |run: &Run| Stored {
            epoch: info.epoch,
            segment: info.segment,
            offset: info.offset + run.data_off,
            run: *run,
        };
        self.image
            .apply(&runs, self.arena_len_pages, stored)
            .map_err(|dangling| damaged(loader::dangling_reference(record, dangling)))?;
        self.arena_len_pages = info.arena_len_pages;
        Ok(runs)
    }
}

/// Page numbers.
#[derive(Debug, Default)]
struct Ranges {
    /// The first ones are disjoint, ascending and do not touch; the others any.
    ranges: Vec<Range<u64>>,
    disjoint: usize,
}

impl Ranges {
    fn add(&mut self, ranges: impl Iterator<Item = Range<u64>>) {
        self.ranges.extend(ranges);
        if self.ranges.len() > 2 * self.disjoint + 4096 {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.ranges.sort_unstable_by_key(|range| range.start);
        self.ranges.dedup_by(|next, before| {
            let touches = next.start <= before.end;
            if touches {
                before.end = before.end.max(next.end);
            }
            touches
        });
        self.disjoint = self.ranges.len();
    }

    /// All of them, ascending.
    fn into_disjoint(mut self) -> Vec<Range<u64>> {
        self.settle();
        self.ranges
    }
}

impl Merged {
    /// About what a record with this will take.
    pub(super) fn estimated_bytes(&self) -> u64 {
        let (mut data_len, mut entries) = (0, 0);
        let mut referred = HashSet::new();
        for Part { pages, stored } in &self.parts {
            let count = pages.end - pages.start;
            entries += count.div_ceil(RUN_MAX_PAGES.into());
            let Some((stored, source)) = stored else {
                continue;
            };
            // What was stored once is stored once.
            let moved = *source != pages.start;
            if !moved || referred.insert((stored.segment, stored.offset, *source)) {
                data_len += u64::from(stored.run.stored_len) * count / u64::from(stored.run.pages);
            }
        }
        let layout = Layout {
            meta_len: self.meta_len,
            data_len,
            index_len: entries * size_of::<IndexEntry>() as u64,
        };
        layout.total_len().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_have_what_a_set_of_numbers_has(
            added in prop::collection::vec(
                prop::collection::vec((0..500u64, 1..9u64), 0..20), 0..40),
            eager in any::<bool>(),
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for some in added {
                ranges.add(some.iter().map(|(start, len)| *start..start + len));
                model.extend(some.into_iter().flat_map(|(start, len)| start..start + len));
                if eager {
                    ranges.settle();
                }
            }
            let ranges = ranges.into_disjoint();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            let pages: Vec<u64> = ranges.into_iter().flatten().collect();
            prop_assert_eq!(pages, model.into_iter().collect::<Vec<_>>());
        }
    }
}
