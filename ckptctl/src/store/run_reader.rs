// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading the bytes of runs, one file and one run at a time.

use std::io;
use std::sync::Arc;

use super::chain::Chain;
use super::codec::Decompressor;
use super::error::StoreError;
use super::index::Run;
use super::segment_file::SegmentFile;
use crate::sys::file::File;

/// The segment that was read from last, kept open.
#[derive(Debug, Default)]
pub(super) struct OpenSegment {
    open: Option<(u64, Arc<File>)>,
}

impl OpenSegment {
    /// Segment `number` of a chain.
    pub fn of(&mut self, chain: &Chain, number: u64) -> Result<&File, StoreError> {
        self.at(chain.scan.segment(number))
    }

    /// A segment.
    pub fn at(&mut self, segment: &SegmentFile) -> Result<&File, StoreError> {
        let open = match self.open.take() {
            Some(open) if open.0 == segment.number => open,
            _ => (segment.number, segment.open()?),
        };
        Ok(&self.open.insert(open).1)
    }
}

/// The bytes of one run, as stored and as pages.
#[derive(Debug, Default)]
pub(super) struct RunBuffers {
    stored: Vec<u8>,
    raw: Vec<u8>,
    decompressor: Decompressor,
}

impl RunBuffers {
    /// Reads a run, holds it against its checksum and decodes it. The inner
    /// error says what is wrong with it.
    pub fn read(
        &mut self,
        file: &File,
        offset: u64,
        run: &Run,
        page_shift: u32,
    ) -> Result<Result<&[u8], String>, StoreError> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(run.stored_len as usize, 0);
        let read = file.read_exact_at(&mut stored, offset);
        let decoded = match &read {
            Ok(()) => self.decode(&stored, run, page_shift).map(drop),
            Err(_) => Ok(()),
        };
        self.stored = stored;
        match read {
            Ok(()) => Ok(decoded.map(|()| self.raw())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Err(format!("{} are cut off", run.name())))
            }
            Err(error) => Err(StoreError::io("read", file.path())(error)),
        }
    }

    /// Holds the stored bytes of a run against its checksum and decodes them. The error says
    /// what is wrong with it.
    pub fn decode(&mut self, stored: &[u8], run: &Run, page_shift: u32) -> Result<&[u8], String> {
        self.raw.resize((run.pages as usize) << page_shift, 0);
        if crc32c::crc32c(stored) != run.crc {
            Err(format!("{} are damaged", run.name()))
        } else if !self.decompressor.decode(run.codec, stored, &mut self.raw) {
            Err(format!("{} cannot be decompressed", run.name()))
        } else {
            Ok(&self.raw)
        }
    }

    /// The run that was read last, as stored.
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// The pages of the run that was decoded last.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}
