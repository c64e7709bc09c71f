// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is different between two epochs, and which commits changed it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::chain::Chain;
use super::error::StoreError;
use super::loader;
use super::loader::Piece;
use super::run_cache::RunCache;
use super::run_cache::Stored;
use super::run_reader::OpenSegment;

/// A page of which two epochs have different bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageDifference {
    /// The page.
    pub pgoff: u64,
    /// How many of its bytes differ.
    pub bytes: u32,
}

/// What a commit wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The commit.
    pub epoch: u64,
    /// The pages that its record says something about, ascending.
    pub pages: Vec<Range<u64>>,
}

/// The pages of one epoch, ascending, and how to read them.
struct Side<'a> {
    epoch: u64,
    page_shift: u32,
    pieces: Vec<Piece>,
    next: usize,
    runs: RunCache<'a>,
}

impl<'a> Side<'a> {
    fn new(chain: &'a Chain, epoch: u64) -> Result<Side<'a>, StoreError> {
        let mut pieces = loader::plan(chain, epoch)?;
        pieces.sort_unstable_by_key(|piece| piece.live.start);
        Ok(Side {
            epoch,
            page_shift: chain.restorable(epoch)?.info.page_shift,
            pieces,
            next: 0,
            runs: RunCache::new(chain),
        })
    }

    /// Where the page is, if it is not zero, and up to which page that or being zero goes on.
    /// Pages are asked for ascending.
    fn at(&mut self, pgoff: u64) -> (Option<&Piece>, u64) {
        while self
            .pieces
            .get(self.next)
            .is_some_and(|piece| piece.live.end <= pgoff)
        {
            self.next += 1;
        }
        match self.pieces.get(self.next) {
            Some(piece) if piece.live.start <= pgoff => (Some(piece), piece.live.end),
            Some(piece) => (None, piece.live.start),
            None => (None, u64::MAX),
        }
    }

    /// The bytes of a page that was just looked for.
    fn page(&mut self, pgoff: u64) -> Result<Option<&[u8]>, StoreError> {
        let Some(piece) = self.pieces.get(self.next) else {
            return Ok(None);
        };
        if piece.live.start > pgoff {
            return Ok(None);
        }
        let stored = Stored {
            epoch: piece.epoch,
            segment: piece.segment,
            offset: piece.offset,
            run: piece.run,
        };
        let page = piece.source - piece.run.pgoff + (pgoff - piece.live.start);
        let start = (page << self.page_shift) as usize;
        let len = 1 << self.page_shift;
        let run = self.runs.read(&stored, self.page_shift, len, self.epoch)?;
        Ok(Some(&run[start..start + len]))
    }
}

/// How many bytes differ; what is not there is zero.
fn differing(from: Option<&[u8]>, to: Option<&[u8]>) -> u32 {
    let count = match (from, to) {
        (None, None) => 0,
        (Some(bytes), None) | (None, Some(bytes)) => {
            bytes.iter().filter(|&&byte| byte != 0).count()
        }
        (Some(from), Some(to)) if from == to => 0,
        (Some(from), Some(to)) => {
            let pairs = from.iter().zip(to);
            pairs.filter(|(from, to)| from != to).count()
        }
    };
    count as u32
}

impl Chain {
    /// Compares an epoch with one of this chain or of another, and hands the pages that differ to
    /// `on_page`, ascending. What lies beyond the end of the smaller arena is zero there.
    ///
    /// Of one chain, only pages are read that are not in the same place in both epochs. Memory: 32
    /// MiB, and about 100 bytes per run of both images.
    ///
    /// # Errors
    ///
    /// As [`Chain::load`] for both; [`StoreError::PageSizes`] when they have pages of different
    /// sizes.
    pub fn compare(
        &self,
        epoch: u64,
        with: (&Chain, u64),
        mut on_page: impl FnMut(PageDifference),
    ) -> Result<(), StoreError> {
        let mut from = Side::new(self, epoch)?;
        let mut to = Side::new(with.0, with.1)?;
        if from.page_shift != to.page_shift {
            return Err(StoreError::PageSizes {
                bytes: [1 << from.page_shift, 1 << to.page_shift],
            });
        }
        let same_files = std::ptr::eq(self, with.0);
        let mut at = 0;
        loop {
            let (ours, our_end) = from.at(at);
            let (theirs, their_end) = to.at(at);
            let end = our_end.min(their_end);
            let same = match (ours, theirs) {
                (None, None) => true,
                (Some(ours), Some(theirs)) => same_files && ours.is_like(theirs),
                _ => false,
            };
            if end == u64::MAX {
                return Ok(());
            }
            if !same {
                for pgoff in at..end {
                    let bytes = differing(from.page(pgoff)?, to.page(pgoff)?);
                    if bytes > 0 {
                        on_page(PageDifference { pgoff, bytes });
                    }
                }
            }
            at = end;
        }
    }

    /// The commits behind epoch `from` that lead to epoch `to`, oldest first; without those that
    /// they share when one does not descend from the other.
    ///
    /// # Errors
    ///
    /// As [`Chain::load`].
    pub fn written_between(&self, from: u64, to: u64) -> Result<Vec<Written>, StoreError> {
        self.restorable(from)?;
        self.restorable(to)?;
        let before: BTreeSet<u64> = self.lineage(from).map(|record| record.info.epoch).collect();
        let mut open = OpenSegment::default();
        let mut written = Vec::new();
        for record in self.lineage(to) {
            if before.contains(&record.info.epoch) {
                break;
            }
            let file = open.of(self, record.info.segment)?;
            let runs = self
                .record_file(record, file)
                .runs(&record.header)?
                .map_err(|(offset, what)| self.damaged_now(record, offset, what, to))?;
            written.push(Written {
                epoch: record.info.epoch,
                pages: runs.iter().map(|run| run.pgoff..run.end()).collect(),
            });
        }
        written.reverse();
        Ok(written)
    }
}
