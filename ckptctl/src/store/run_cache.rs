// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads runs of which only parts are needed, and perhaps again.

use std::collections::VecDeque;

use super::chain::Chain;
use super::damage::Damage;
use super::error::StoreError;
use super::index::Run;
use super::run_reader::OpenSegment;
use super::run_reader::RunBuffers;

/// Runs that are needed again are kept decoded up to so many bytes.
const CACHE_BYTES: usize = 16 << 20;

/// Where pages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The epoch of the record that has them.
    pub epoch: u64,
    pub segment: u64,
    /// Where in the segment the run's bytes begin.
    pub offset: u64,
    pub run: Run,
}

/// Reads and checks stored runs. Memory: 16 MiB of decoded runs, and one run more.
#[derive(Debug)]
pub(super) struct RunCache<'a> {
    chain: &'a Chain,
    open: OpenSegment,
    buffers: RunBuffers,
    /// Where a run is, and its pages; what was used last comes last.
    cache: VecDeque<((u64, u64), Vec<u8>)>,
    cached_bytes: usize,
}

impl<'a> RunCache<'a> {
    pub(super) fn new(chain: &'a Chain) -> RunCache<'a> {
        RunCache {
            chain,
            open: OpenSegment::default(),
            buffers: RunBuffers::default(),
            cache: VecDeque::new(),
            cached_bytes: 0,
        }
    }

    /// The pages of a stored run, of which `needed` bytes are needed now, for the sake of
    /// `epoch`.
    pub(super) fn read(
        &mut self,
        stored: &Stored,
        page_shift: u32,
        needed: usize,
        epoch: u64,
    ) -> Result<&[u8], StoreError> {
        let place = (stored.segment, stored.offset);
        let known = self.cache.iter().position(|(at, _)| *at == place);
        if let Some(entry) = known.and_then(|at| self.cache.remove(at)) {
            self.cache.push_back(entry);
        } else {
            let file = self.open.of(self.chain, stored.segment)?;
            let read = self
                .buffers
                .read(file, stored.offset, &stored.run, page_shift)?;
            let pages = read.map_err(|what| {
                self.chain.damaged(Damage {
                    file: file.path().to_owned(),
                    offset: stored.offset,
                    what: format!("epoch {}: {what}", stored.epoch),
                    lost: vec![epoch],
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
