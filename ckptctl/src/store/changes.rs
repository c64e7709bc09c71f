// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bringing an image from one epoch to another, by what changed between them.

use std::collections::BTreeSet;
use std::ops::Range;

use super::chain::Chain;
use super::codec::Codec;
use super::error::StoreError;
use super::index::Run;
use super::record::Record;
use super::run_reader::OpenSegment;
use super::run_reader::RunBuffers;
use crate::page_ranges::merged;
use crate::page_ranges::without;

/// Memory with the pages of an epoch.
pub trait Image {
    /// Copies pages out, from page `pgoff` on.
    fn read(&self, pgoff: u64, to: &mut [u8]);

    /// Copies pages in, from page `pgoff` on; false when they do not fit.
    fn write(&mut self, pgoff: u64, bytes: &[u8]) -> bool;

    /// Makes pages zero; false when they are not there.
    fn clear(&mut self, pages: Range<u64>) -> bool;
}

impl Chain {
    /// Brings an image of an epoch's parent, or of nothing when it has none, to that epoch. Reads
    /// the epoch's record only. Returns how many pages that took.
    ///
    /// Memory: the pages that are to be like others of the parent's image, where these change as
    /// well; and one run's bytes twice.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], [`StoreError::Io`], [`StoreError::Invalid`] when the image is too
    /// small: the image is undefined then.
    pub fn step(&self, epoch: u64, image: &mut impl Image) -> Result<u64, StoreError> {
        let record = self.restorable(epoch)?;
        let page_bytes = 1usize << record.info.page_shift;
        let mut open = OpenSegment::default();
        let file = open.of(self, record.info.segment)?;
        let runs = self.runs_of(record, epoch)?;
        let too_small = || StoreError::Invalid {
            epoch,
            what: "it has pages outside of the arena".into(),
        };
        let as_in_parent = || runs.iter().filter(|run| run.codec == Codec::Parent);
        let source = |run: &Run, image: &dyn Image| {
            let mut bytes = vec![0; run.pages as usize * page_bytes];
            image.read(run.referred().start, &mut bytes);
            bytes
        };
        // What changes is read before anything does.
        let changing = as_in_parent().filter(|run| overlaps(&runs, &run.referred()));
        let changing: Vec<_> = changing.map(|run| (run, source(run, image))).collect();
        for run in as_in_parent().filter(|run| !overlaps(&runs, &run.referred())) {
            let bytes = source(run, image);
            if !image.write(run.pgoff, &bytes) {
                return Err(too_small());
            }
        }
        for (run, bytes) in changing {
            if !image.write(run.pgoff, &bytes) {
                return Err(too_small());
            }
        }
        let mut buffers = RunBuffers::default();
        for run in &runs {
            let there = match run.codec {
                Codec::Zero => image.clear(run.pgoff..run.end()),
                Codec::None | Codec::Lz4 | Codec::Zstd => {
                    let at = record.info.offset + run.data_off;
                    let read = buffers.read(file, at, run, record.info.page_shift)?;
                    let bytes = read.map_err(|what| self.damaged_now(record, at, what, epoch))?;
                    image.write(run.pgoff, bytes)
                }
                Codec::Parent | Codec::Here => true,
            };
            if !there {
                return Err(too_small());
            }
        }
        for run in runs.iter().filter(|run| run.codec == Codec::Here) {
            let bytes = source(run, image);
            if !image.write(run.pgoff, &bytes) {
                return Err(too_small());
            }
        }
        Ok(runs.iter().map(|run| u64::from(run.pages)).sum())
    }

    /// Brings an image of epoch `from`, or of nothing, to epoch `to`, whatever lies between them.
    /// Touches the pages that any commit between one of them and the last epoch that both build
    /// on says something of. Returns how many.
    ///
    /// # Errors
    ///
    /// As [`Chain::step`].
    pub fn jump(
        &self,
        from: Option<u64>,
        to: u64,
        image: &mut impl Image,
    ) -> Result<u64, StoreError> {
        self.restorable(to)?;
        let of = |epoch: Option<u64>| -> BTreeSet<u64> {
            let lineage = epoch.into_iter().flat_map(|epoch| self.lineage(epoch));
            lineage.map(|record| record.info.epoch).collect()
        };
        let (ours, theirs) = (of(from), of(Some(to)));
        let mut pages = Vec::new();
        for &epoch in ours.symmetric_difference(&theirs) {
            let record = self.restorable(epoch)?;
            let runs = self.runs_of(record, epoch)?;
            pages.extend(runs.iter().map(|run| run.pgoff..run.end()));
        }
        let pages = merged(pages);
        let mut loader = self.load(to)?.only(&pages);
        let has = merged(loader.pages_of().collect());
        let too_small = || StoreError::Invalid {
            epoch: to,
            what: "it has pages outside of the arena".into(),
        };
        for zero in without(&pages, has) {
            if !image.clear(zero) {
                return Err(too_small());
            }
        }
        while let Some(run) = loader.next_run()? {
            if !image.write(run.pgoff, run.bytes) {
                return Err(too_small());
            }
        }
        Ok(pages.iter().map(|run| run.end - run.start).sum())
    }

    fn runs_of(&self, record: &Record, epoch: u64) -> Result<Vec<Run>, StoreError> {
        let mut open = OpenSegment::default();
        let file = open.of(self, record.info.segment)?;
        self.record_file(record, file)
            .runs(&record.header)?
            .map_err(|(offset, what)| self.damaged_now(record, offset, what, epoch))
    }
}

/// Whether any run, they ascend, says something of these pages.
fn overlaps(runs: &[Run], pages: &Range<u64>) -> bool {
    let first = runs.partition_point(|run| run.end() <= pages.start);
    runs.get(first).is_some_and(|run| run.pgoff < pages.end)
}
