// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the pages of a difference, ascending, for the record that gets them.

use std::collections::VecDeque;

use super::super::chain::Chain;
use super::super::damage::Damage;
use super::super::error::StoreError;
use super::super::page_sink::PageSink;
use super::super::run_reader::OpenSegment;
use super::super::run_reader::RunBuffers;
use super::merge::Merged;
use super::merge::Part;
use super::merge::Stored;

/// Runs that are needed again are kept decoded up to so many bytes.
const CACHE_BYTES: usize = 16 << 20;
/// Zero pages that are handed on in one go.
const ZERO_BYTES: usize = 1 << 18;

/// Reads the pages of [`Merged`], ascending. Memory: 16 MiB of decoded runs, and one run more.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    chain: &'a Chain,
    open: OpenSegment,
    buffers: RunBuffers,
    /// Where a run is, and its pages; what was used last comes last.
    cache: VecDeque<((u64, u64), Vec<u8>)>,
    cached_bytes: usize,
    zeros: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(chain: &'a Chain) -> Reader<'a> {
        Reader {
            chain,
            open: OpenSegment::default(),
            buffers: RunBuffers::default(),
            cache: VecDeque::new(),
            cached_bytes: 0,
            zeros: vec![0; ZERO_BYTES],
        }
    }

    /// Puts all pages into a record; `on_pages` is told how many bytes they had, and can end it.
    pub(super) fn copy(
        &mut self,
        merged: &Merged,
        sink: &mut PageSink<'_>,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let shift = merged.page_shift;
        for Part { pages, stored } in &merged.parts {
            match stored {
                None => {
                    let step = self.zeros.len() >> shift;
                    for start in pages.clone().step_by(step) {
                        let count = (pages.end - start).min(step as u64) as usize;
                        sink.push(start, &self.zeros[..count << shift])?;
                    }
                }
                Some((stored, source)) => {
                    let first = ((source - stored.run.pgoff) << shift) as usize;
                    let len = ((pages.end - pages.start) << shift) as usize;
                    let bytes = self.run(merged, stored, len)?;
                    sink.push(pages.start, &bytes[first..first + len])?;
                    on_bytes(len as u64)?;
                }
            }
        }
        Ok(())
    }

    /// The pages of a stored run, of which `needed` bytes are needed now.
    fn run(
        &mut self,
        merged: &Merged,
        stored: &Stored,
        needed: usize,
    ) -> Result<&[u8], StoreError> {
        let place = (stored.segment, stored.offset);
        let known = self.cache.iter().position(|(at, _)| *at == place);
        if let Some(entry) = known.and_then(|at| self.cache.remove(at)) {
            self.cache.push_back(entry);
        } else {
            let file = self.open.of(self.chain, stored.segment)?;
            let read = self
                .buffers
                .read(file, stored.offset, &stored.run, merged.page_shift)?;
            let pages = read.map_err(|what| {
                self.chain.damaged(Damage {
                    file: file.path().to_owned(),
                    offset: stored.offset,
                    what: format!("epoch {}: {what}", stored.epoch),
                    lost: vec![merged.epoch],
                })
            })?;
            if needed == pages.len() {
                // Nobody else has a part of it here.
                return Ok(self.buffers.raw());
            }
            let pages = pages.to_vec();
            self.cached_bytes += pages.len();
            self.cache.push_back((place, pages));
            while self.cached_bytes > CACHE_BYTES && self.cache.len() > 1 {
                let oldest = self.cache.pop_front();
                self.cached_bytes -= oldest.map_or(0, |(_, pages)| pages.len());
            }
        }
        let Some((_, pages)) = self.cache.back() else {
            unreachable!("just put there")
        };
        Ok(pages)
    }
}
