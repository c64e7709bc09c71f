// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the pages of a difference, ascending, for the record that gets them.

use super::super::chain::Chain;
use super::super::error::StoreError;
use super::super::page_sink::PageSink;
use super::super::run_cache::RunCache;
use super::merge::Merged;
use super::merge::Part;

/// Zero pages that are handed on in one go.
const ZERO_BYTES: usize = 1 << 18;

/// Reads the pages of [`Merged`], ascending.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    runs: RunCache<'a>,
    zeros: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(chain: &'a Chain) -> Reader<'a> {
        Reader {
            runs: RunCache::new(chain),
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
                    let bytes = self.runs.read(stored, shift, len, merged.epoch)?;
                    sink.push(pages.start, &bytes[first..first + len])?;
                    on_bytes(len as u64)?;
                }
            }
        }
        Ok(())
    }
}
