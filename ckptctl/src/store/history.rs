// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a chain would have cost if every commit had saved the whole image.

use std::collections::BTreeMap;
use std::ops::Range;

use super::chain::Chain;
use super::error::StoreError;
use super::format::IndexEntry;
use super::format::Layout;
use super::format::RUN_MAX_PAGES;
use super::index::Run;
use super::loader;
use super::run_reader::OpenSegment;

/// What a full checkpoint at a commit would have held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullCost {
    /// The commit.
    pub epoch: u64,
    /// Pages of its image that are not zero.
    pub live_pages: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// What a record with all of them would take on disk: as compressed as they
    /// are in this chain, with everything else that a record has.
    pub stored_bytes: u64,
}

impl Chain {
    /// The cost of a full checkpoint at each restorable commit, ascending. Reads
    /// indexes only.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn full_costs(&self) -> Result<Vec<FullCost>, StoreError> {
        let mut costs = Vec::new();
        let mut image = Image::default();
        let mut at = None;
        let mut segment = OpenSegment::default();
        for record in self
            .scan
            .records
            .iter()
            .filter(|record| record.info.restorable)
        {
            let info = &record.info;
            if info.parent != at || at.is_none() {
                image = match info.parent {
                    Some(parent) => self.image(parent)?,
                    None => Image::default(),
                };
            }
            let file = segment.of(self, info.segment)?;
            let runs = self
                .record_file(record, file)
                .runs(&record.header)?
                .map_err(|(offset, what)| self.damaged_now(record, offset, what, info.epoch))?;
            for run in &runs {
                image.set(run.pgoff..run.end(), run);
            }
            at = Some(info.epoch);
            costs.push(FullCost {
                epoch: info.epoch,
                live_pages: image.pages,
                raw_bytes: image.pages << info.page_shift,
                stored_bytes: image.record_bytes(record.header.meta_len.get()),
            });
        }
        Ok(costs)
    }

    fn image(&self, epoch: u64) -> Result<Image, StoreError> {
        let mut image = Image::default();
        for piece in loader::plan(self, epoch)? {
            image.set(piece.live, &piece.run);
        }
        Ok(image)
    }
}

/// A page's share of its run's stored bytes is counted in fractions of a byte,
/// so that many of them add up.
const SHARE_UNIT: u64 = 1 << 16;

/// Which pages of an image are not zero, and what they take on disk.
#[derive(Debug, Default)]
struct Image {
    /// Start to end and each page's share; disjoint.
    ranges: BTreeMap<u64, (u64, u64)>,
    pages: u64,
    share: u64,
}

impl Image {
    /// What a record with the whole image takes.
    fn record_bytes(&self, meta_len: u64) -> u64 {
        let runs = self.pages.div_ceil(u64::from(RUN_MAX_PAGES));
        let layout = Layout {
            meta_len,
            data_len: self.share / SHARE_UNIT,
            index_len: runs * size_of::<IndexEntry>() as u64,
        };
        layout.total_len().unwrap_or(u64::MAX)
    }

    /// A page that is the same as another one takes nothing, as in the chain. So a full
    /// checkpoint is never told to be larger than it would have been.
    fn set(&mut self, pages: Range<u64>, run: &Run) {
        self.clear(&pages);
        if run.codec.is_reference() {
            self.add(pages, 0);
        } else if run.codec.has_data() {
            let share = u64::from(run.stored_len) * SHARE_UNIT / u64::from(run.pages);
            self.add(pages, share);
        }
    }

    fn add(&mut self, pages: Range<u64>, share: u64) {
        if !pages.is_empty() {
            self.pages += pages.end - pages.start;
            self.share += (pages.end - pages.start) * share;
            self.ranges.insert(pages.start, (pages.end, share));
        }
    }

    fn clear(&mut self, pages: &Range<u64>) {
        let touched: Vec<(u64, u64, u64)> = self
            .ranges
            .range(..pages.end)
            .rev()
            .map(|(&start, &(end, share))| (start, end, share))
            .take_while(|&(_, end, _)| end > pages.start)
            .collect();
        for (start, end, share) in touched {
            self.ranges.remove(&start);
            self.pages -= end - start;
            self.share -= (end - start) * share;
            self.add(start..pages.start.max(start), share);
            self.add(pages.end.min(end)..end, share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::Codec;

    fn run(codec: Codec, pages: u32, stored_len: u32) -> Run {
        Run {
            pgoff: 0,
            pages,
            codec,
            data_off: 0,
            stored_len,
            crc: 0,
        }
    }

    #[test]
    fn a_page_written_twice_counts_once_and_with_its_last_size() {
        let mut image = Image::default();
        image.set(0..10, &run(Codec::Lz4, 10, 1000));
        assert_eq!((image.pages, image.share / SHARE_UNIT), (10, 1000));
        image.set(4..6, &run(Codec::None, 2, 8192));
        assert_eq!((image.pages, image.share / SHARE_UNIT), (10, 800 + 8192));
        image.set(5..20, &run(Codec::Zero, 15, 0));
        assert_eq!((image.pages, image.share / SHARE_UNIT), (5, 400 + 4096));
        image.set(0..100, &run(Codec::Zero, 100, 0));
        assert_eq!((image.pages, image.share), (0, 0));
    }
}
