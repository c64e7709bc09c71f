// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the pages of an epoch.

use std::ops::Range;
use std::path::PathBuf;

use super::chain::Chain;
use super::damage::Damage;
use super::error::StoreError;
use super::index::Run;
use super::page_map::Dangling;
use super::page_map::PageMap;
use super::record::Record;
use super::run_reader::OpenSegment;
use super::run_reader::RunBuffers;
use super::segment_file::SegmentFile;

/// A part of a run that an epoch's image still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The epoch of the record that holds the run.
    pub epoch: u64,
    pub segment: u64,
    /// Where in the segment the run's bytes begin.
    pub offset: u64,
    pub run: Run,
    pub live: Range<u64>,
    /// Which page of the run the first of them is like. The same, but for references.
    pub source: u64,
}

impl Piece {
    fn place(&self) -> (u64, u64) {
        (self.segment, self.offset)
    }

    /// Where in the segment the run's bytes end.
    pub fn stored_end(&self) -> u64 {
        self.offset + u64::from(self.run.stored_len)
    }

    /// Whether pages that both have are in the same place.
    pub fn is_like(&self, other: &Piece) -> bool {
        self.place() == other.place()
            && self.source + other.live.start == other.source + self.live.start
    }

    /// Its pages, out of those of the run.
    pub fn bytes<'a>(&self, raw: &'a [u8], page_shift: u32) -> &'a [u8] {
        let start = ((self.source - self.run.pgoff) << page_shift) as usize;
        let len = ((self.live.end - self.live.start) << page_shift) as usize;
        &raw[start..start + len]
    }
}

/// Consecutive pages of an epoch, checked.
#[derive(Debug)]
pub struct PageRun<'a> {
    /// The first page.
    pub pgoff: u64,
    /// Their bytes, whole pages.
    pub bytes: &'a [u8],
}

/// Hands out the pages of an epoch: each page that is not zero once, in the order
/// of the files, so not by ascending page number. Every page that it does not
/// hand out is zero in this epoch.
///
/// Memory: about 100 bytes per run or part of a run that the epoch still has,
/// and one run's bytes twice (64 pages each time). Only live runs are read.
#[derive(Debug)]
pub struct Loader {
    epoch: u64,
    page_shift: u32,
    plan: Vec<Piece>,
    next: usize,
    segments: Vec<SegmentFile>,
    open: OpenSegment,
    buffers: RunBuffers,
    /// The run that the buffers hold.
    decoded: Option<(u64, u64)>,
    dir: PathBuf,
}

impl Loader {
    pub(super) fn new(chain: &Chain, epoch: u64) -> Result<Loader, StoreError> {
        let wanted = chain.restorable(epoch)?;
        let plan = plan(chain, epoch)?;
        let mut segments: Vec<SegmentFile> = Vec::new();
        for piece in &plan {
            if segments
                .last()
                .is_none_or(|segment| segment.number != piece.segment)
            {
                segments.push(chain.scan.segment(piece.segment).clone());
            }
        }
        Ok(Loader {
            epoch,
            page_shift: wanted.info.page_shift,
            plan,
            next: 0,
            segments,
            open: OpenSegment::default(),
            buffers: RunBuffers::default(),
            decoded: None,
            dir: chain.dir.clone(),
        })
    }

    /// Pages that will be handed out in all.
    pub fn pages(&self) -> u64 {
        self.plan
            .iter()
            .map(|piece| piece.live.end - piece.live.start)
            .sum()
    }

    /// Their numbers, not in order.
    pub fn pages_of(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.plan.iter().map(|piece| piece.live.clone())
    }

    /// Hands out only these pages: ascending, disjoint.
    pub fn only(mut self, pages: &[Range<u64>]) -> Loader {
        let cut = |piece: Piece| {
            let from = pages.partition_point(|wanted| wanted.end <= piece.live.start);
            let wanted = pages[from..].iter();
            let wanted = wanted.take_while(move |wanted| wanted.start < piece.live.end);
            wanted.map(move |wanted| {
                let start = wanted.start.max(piece.live.start);
                Piece {
                    live: start..wanted.end.min(piece.live.end),
                    source: piece.source + (start - piece.live.start),
                    ..piece.clone()
                }
            })
        };
        self.plan = self.plan.into_iter().flat_map(cut).collect();
        self
    }

    /// Bytes on the disk of all that will be read.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let mut last = None;
        let first_of_run = |piece: &&Piece| last.replace(piece.place()) != Some(piece.place());
        let runs = self.plan.iter().filter(first_of_run);
        runs.map(|piece| u64::from(piece.run.stored_len)).sum()
    }

    /// log2 of the page size.
    pub fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// The next pages, or `None` when all were handed out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when a checksum is wrong, [`StoreError::Io`].
    /// What was handed out before is then not the whole epoch.
    pub fn next_run(&mut self) -> Result<Option<PageRun<'_>>, StoreError> {
        let Some(piece) = self.plan.get(self.next).cloned() else {
            return Ok(None);
        };
        if self.decoded != Some(piece.place()) {
            self.decoded = None;
            self.decode(&piece)?;
            self.decoded = Some(piece.place());
        }
        self.next += 1;
        Ok(Some(PageRun {
            pgoff: piece.live.start,
            bytes: piece.bytes(self.buffers.raw(), self.page_shift),
        }))
    }

    fn decode(&mut self, piece: &Piece) -> Result<(), StoreError> {
        let segment = segment_in(&self.segments, piece.segment);
        let file = self.open.at(segment)?;
        let read = self
            .buffers
            .read(file, piece.offset, &piece.run, self.page_shift)?;
        match read.map(drop) {
            Ok(()) => Ok(()),
            Err(what) => Err(self.damaged(piece, &what)),
        }
    }

    pub(super) fn plan(&self) -> &[Piece] {
        &self.plan
    }

    /// A segment that the plan has pieces of.
    pub(super) fn segment(&self, number: u64) -> &SegmentFile {
        segment_in(&self.segments, number)
    }

    /// The error for a piece whose run is not as it was written.
    pub(super) fn damaged(&self, piece: &Piece, what: &str) -> StoreError {
        let damage = Damage {
            file: self.segment(piece.segment).path.clone(),
            offset: piece.offset,
            what: format!("epoch {}: {what}", piece.epoch),
            lost: vec![self.epoch],
        };
        let dir = self.dir.display();
        let advice = format!(
            "Nothing damaged is handed out. `ckptctl verify {dir}` names all damage and the \
             epochs that can be restored, with `ckptctl restore {dir}@EPOCH -- CMD`"
        );
        StoreError::Damaged {
            damage: Box::new(damage),
            advice,
        }
    }
}

fn segment_in(segments: &[SegmentFile], number: u64) -> &SegmentFile {
    let segment = segments.iter().find(|segment| segment.number == number);
    let Some(segment) = segment else {
        unreachable!("every piece's segment is listed")
    };
    segment
}

/// The parts of runs that make up an epoch, in the order of the files.
pub(super) fn plan(chain: &Chain, epoch: u64) -> Result<Vec<Piece>, StoreError> {
    let limit = chain.restorable(epoch)?.info.arena_len_pages;
    let mut lineage: Vec<&Record> = chain.lineage(epoch).collect();
    lineage.reverse();
    let mut image = PageMap::default();
    let mut open = OpenSegment::default();
    let mut parent_len_pages = 0;
    for record in lineage {
        let info = &record.info;
        let file = open.of(chain, info.segment)?;
        let runs = chain
            .record_file(record, file)
            .runs(&record.header)?
            .map_err(|(offset, what)| chain.damaged_now(record, offset, what, epoch))?;
        image
            .apply(&runs, parent_len_pages, |run| (record, *run))
            .map_err(|dangling| {
                let (offset, what) = dangling_reference(record, dangling);
                chain.damaged_now(record, offset, what, epoch)
            })?;
        parent_len_pages = info.arena_len_pages;
    }
    image.clear(&(limit..u64::MAX));
    let pieces = image.into_parts().map(|part| {
        let (record, run): (&Record, Run) = part.place;
        Piece {
            epoch: record.info.epoch,
            segment: record.info.segment,
            offset: record.info.offset + run.data_off,
            run,
            live: part.pages,
            source: part.source,
        }
    });
    let mut plan: Vec<Piece> = pieces.collect();
    plan.sort_by_key(|piece| (piece.segment, piece.offset, piece.live.start));
    Ok(plan)
}

/// Where it is wrong, and what, when a record refers to pages that its parent does not have.
pub(super) fn dangling_reference(record: &Record, Dangling(run): Dangling) -> (u64, String) {
    let epoch = record.info.epoch;
    let from = run.referred();
    let what = format!(
        "epoch {epoch}: {} are said to be like pages {} to {} of its parent, which are not there",
        run.name(),
        from.start,
        from.end - 1
    );
    (record.info.offset + record.header.index_off.get(), what)
}
