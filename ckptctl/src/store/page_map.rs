// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which page of an image is where.

use std::collections::BTreeMap;
use std::ops::Range;

use super::codec::Codec;
use super::index::Run;

/// The pages of an image that are not zero, and their places. Its cost follows the number of
/// extents, not of pages.
#[derive(Clone, Debug)]
pub(super) struct PageMap<P> {
    /// By first page; disjoint.
    extents: BTreeMap<u64, Extent<P>>,
}

impl<P> Default for PageMap<P> {
    fn default() -> PageMap<P> {
        PageMap {
            extents: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug)]
struct Extent<P> {
    end: u64,
    source: u64,
    place: P,
}

/// Consecutive pages that are in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<P> {
    pub pages: Range<u64>,
    /// What number the first of them has in that place.
    pub source: u64,
    pub place: P,
}

/// A reference to pages that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dangling(pub Run);

impl<P: Clone> PageMap<P> {
    /// Brings the image of a record's parent to that of the record. `place` tells where the
    /// pages of a run with data are; they keep their numbers there.
    ///
    /// # Errors
    ///
    /// A run refers to a page that is zero in the parent's image, or not before
    /// `parent_len_pages`. The image is unchanged then.
    pub fn apply(
        &mut self,
        runs: &[Run],
        parent_len_pages: u64,
        place: impl Fn(&Run) -> P,
    ) -> Result<(), Dangling> {
        let mut copies = Vec::new();
        for run in runs.iter().filter(|run| run.codec == Codec::Parent) {
            let from = run.referred();
            if from.end > parent_len_pages || !self.copy(&from, run.pgoff, &mut copies) {
                return Err(Dangling(*run));
            }
        }
        for run in runs.iter().filter(|run| !run.codec.is_reference()) {
            self.clear(&(run.pgoff..run.end()));
            if run.codec.has_data() {
                let extent = Extent {
                    end: run.end(),
                    source: run.pgoff,
                    place: place(run),
                };
                self.extents.insert(run.pgoff, extent);
            }
        }
        for run in runs.iter().filter(|run| run.codec == Codec::Here) {
            // The index was examined: these are pages that were just set.
            self.copy(&run.referred(), run.pgoff, &mut copies);
        }
        for part in copies {
            self.clear(&part.pages);
            let extent = Extent {
                end: part.pages.end,
                source: part.source,
                place: part.place,
            };
            self.extents.insert(part.pages.start, extent);
        }
        Ok(())
    }

    /// Adds the pages `from`, as if they were at `to`; false when one of them is zero.
    fn copy(&self, from: &Range<u64>, to: u64, copies: &mut Vec<Part<P>>) -> bool {
        let mut at = from.start;
        let before = self.extents.range(..from.start).next_back();
        let within = self.extents.range(from.clone());
        for (&start, extent) in before.into_iter().chain(within) {
            if extent.end <= at {
                continue;
            }
            if start > at {
                return false;
            }
            let end = extent.end.min(from.end);
            copies.push(Part {
                pages: to + (at - from.start)..to + (end - from.start),
                source: extent.source + (at - start),
                place: extent.place.clone(),
            });
            at = end;
        }
        at == from.end
    }

    /// Makes pages zero.
    pub fn clear(&mut self, pages: &Range<u64>) {
        if pages.is_empty() {
            return;
        }
        // Extents are disjoint: the last that starts before the end, and back from there.
        while let Some((&start, extent)) = self.extents.range_mut(..pages.end).next_back() {
            if extent.end <= pages.start {
                return;
            }
            let behind = (extent.end > pages.end).then(|| Extent {
                end: extent.end,
                source: extent.source + (pages.end - start),
                place: extent.place.clone(),
            });
            if start < pages.start {
                extent.end = pages.start;
            } else {
                self.extents.remove(&start);
            }
            if let Some(behind) = behind {
                self.extents.insert(pages.end, behind);
            }
        }
    }

    /// What is within a range, ascending.
    pub fn parts(&self, within: &Range<u64>) -> impl Iterator<Item = Part<P>> {
        let before = self.extents.range(..within.start).next_back();
        let inside = self.extents.range(within.clone());
        let (first, end) = (within.start, within.end);
        let touching = before.into_iter().chain(inside);
        touching
            .filter(move |(_, extent)| extent.end > first)
            .map(move |(&start, extent)| Part {
                pages: start.max(first)..extent.end.min(end),
                source: extent.source + (start.max(first) - start),
                place: extent.place.clone(),
            })
    }

    /// All of it, ascending.
    pub fn into_parts(self) -> impl Iterator<Item = Part<P>> {
        self.extents.into_iter().map(|(start, extent)| Part {
            pages: start..extent.end,
            source: extent.source,
            place: extent.place,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 40;

    fn run(pgoff: u64, pages: u32, codec: Codec, data_off: u64) -> Run {
        Run {
            pgoff,
            pages,
            codec,
            data_off,
            stored_len: 0,
            crc: 0,
        }
    }

    /// A record: disjoint runs, references to anywhere.
    fn record() -> impl Strategy<Value = Vec<Run>> {
        let part = (0..3u64, 1..7u32, 0..4u32, 0..PAGES + 4);
        prop::collection::vec(part, 0..9).prop_map(|parts| {
            let (mut at, mut runs) = (0, Vec::new());
            let mut stored: Vec<u64> = Vec::new();
            for (gap, pages, kind, from) in parts {
                let pgoff = at + gap;
                let codec = [Codec::Lz4, Codec::Zero, Codec::Parent, Codec::Here][kind as usize];
                let here = stored.last().copied();
                runs.push(match (codec, here) {
                    (Codec::Here, Some(page)) => run(pgoff, 1, codec, page),
                    (Codec::Here, None) => continue,
                    (Codec::Parent, _) => run(pgoff, pages, codec, from),
                    _ => run(pgoff, pages, codec, 0),
                });
                if codec == Codec::Lz4 {
                    stored.extend(pgoff..pgoff + u64::from(pages));
                }
                at = pgoff + u64::from(pages);
            }
            runs
        })
    }

    proptest! {
        #[test]
        fn it_has_what_a_list_of_pages_has(records in prop::collection::vec(record(), 0..10)) {
            let mut map = PageMap::default();
            let mut model = vec![None; 100];
            for (number, runs) in records.iter().enumerate() {
                let before = model.clone();
                let mut sound = true;
                for run in runs.iter().filter(|run| !run.codec.is_reference()) {
                    for page in run.pgoff..run.end() {
                        model[page as usize] = run.codec.has_data().then_some((number, page));
                    }
                }
                let stored = model.clone();
                for run in runs.iter().filter(|run| run.codec.is_reference()) {
                    let from = if run.codec == Codec::Here { &stored } else { &before };
                    for (page, source) in (run.pgoff..run.end()).zip(run.referred()) {
                        let found = from[source as usize];
                        let there = run.codec == Codec::Here || source < PAGES;
                        sound &= found.is_some() && there;
                        model[page as usize] = found;
                    }
                }
                let applied = map.apply(runs, PAGES, |_| number);
                prop_assert_eq!(applied.is_ok(), sound);
                if !sound {
                    model = before;
                }
                let mut pages = vec![None; 100];
                for part in map.clone().into_parts() {
                    for (page, source) in part.pages.clone().zip(part.source..) {
                        prop_assert_eq!(pages[page as usize], None);
                        pages[page as usize] = Some((part.place, source));
                    }
                }
                prop_assert_eq!(&pages, &model);
                let some = number as u64 * 5..number as u64 * 7 + 1;
                let mut pages = vec![None; some.end as usize];
                for part in map.parts(&some) {
                    for (page, source) in part.pages.zip(part.source..) {
                        prop_assert_eq!(pages[page as usize], None);
                        pages[page as usize] = Some((part.place, source));
                    }
                }
                prop_assert!(pages[..some.start as usize].iter().all(Option::is_none));
                let expected = some.start as usize..some.end as usize;
                prop_assert_eq!(&pages[expected.clone()], &model[expected]);
            }
        }
    }
}
