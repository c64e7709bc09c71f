// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes one record behind the end of a segment.

use std::io;

use zerocopy::IntoBytes;

use super::codec::Codec;
use super::codec::Compressor;
use super::codec::is_zero;
use super::error::StoreError;
use super::format::FOOTER_BYTES;
use super::format::Footer;
use super::format::HEADER_BYTES;
use super::format::Layout;
use super::format::RUN_MAX_PAGES;
use super::format::RecordHeader;
use super::index;
use super::index::Run;
use super::meta::CommitMeta;
use super::record::Record;
use crate::sys::file::File;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// Where and as part of what a record is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub chain_id: [u8; 16],
    pub segment: u64,
    pub offset: u64,
    pub parent_hash: [u8; 32],
}

/// Takes the pages of a commit, in ascending order, and writes them as they come.
///
/// Every page is read once, so pages that change meanwhile cannot make a record
/// that contradicts itself.
#[derive(Debug)]
pub struct PageSink<'a> {
    file: &'a File,
    epoch: u64,
    offset: u64,
    page_shift: u32,
    arena_len_pages: u64,
    /// Where in the record the buffer goes.
    written: u64,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    compressor: Compressor,
    runs: Vec<Run>,
    /// Pages that go into the next run with data; they end at `next_pgoff`.
    staged: Vec<u8>,
    /// Zero pages that go into the next zero run; they end at `next_pgoff`.
    staged_zeros: u64,
    next_pgoff: u64,
}

impl<'a> PageSink<'a> {
    fn new(file: &'a File, meta: &CommitMeta, offset: u64) -> PageSink<'a> {
        PageSink {
            file,
            epoch: meta.epoch,
            offset,
            page_shift: meta.page_shift,
            arena_len_pages: meta.arena_len_pages,
            written: HEADER_BYTES,
            buffer: Vec::new(),
            hasher: blake3::Hasher::new(),
            compressor: Compressor::default(),
            runs: Vec::new(),
            staged: Vec::new(),
            staged_zeros: 0,
            next_pgoff: 0,
        }
    }

    /// Adds consecutive pages from page `pgoff` on, which must not be before the
    /// end of what was added last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] when the pages are not whole, not ascending or
    /// beyond the arena; [`StoreError::Io`]. The commit then fails as a whole.
    pub fn push(&mut self, pgoff: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let page_bytes = 1usize << self.page_shift;
        let pages = (bytes.len() >> self.page_shift) as u64;
        if bytes.len() % page_bytes != 0 {
            return Err(self.invalid(format!("{} bytes are not whole pages", bytes.len())));
        }
        if pgoff < self.next_pgoff {
            return Err(self.invalid(format!(
                "page {pgoff} comes after page {}: add pages in ascending order, each once",
                self.next_pgoff - 1
            )));
        }
        if pgoff
            .checked_add(pages)
            .is_none_or(|end| end > self.arena_len_pages)
        {
            return Err(self.invalid(format!(
                "{pages} pages from {pgoff} on reach beyond the arena of {} pages",
                self.arena_len_pages
            )));
        }
        if pgoff != self.next_pgoff {
            self.end_runs()?;
            self.next_pgoff = pgoff;
        }
        for page in bytes.chunks_exact(page_bytes) {
            if is_zero(page) {
                self.end_data_run()?;
                if self.staged_zeros == u64::from(u32::MAX) {
                    self.end_zero_run();
                }
                self.staged_zeros += 1;
            } else {
                self.end_zero_run();
                if self.staged.len() >> self.page_shift == RUN_MAX_PAGES as usize {
                    self.end_data_run()?;
                }
                self.staged.extend_from_slice(page);
            }
            self.next_pgoff += 1;
        }
        Ok(())
    }

    fn end_runs(&mut self) -> Result<(), StoreError> {
        self.end_zero_run();
        self.end_data_run()
    }

    fn end_zero_run(&mut self) {
        let pages = std::mem::take(&mut self.staged_zeros);
        if pages > 0 {
            self.runs.push(Run {
                pgoff: self.next_pgoff - pages,
                pages: pages as u32,
                codec: Codec::Zero,
                data_off: 0,
                stored_len: 0,
                crc: 0,
            });
        }
    }

    fn end_data_run(&mut self) -> Result<(), StoreError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let pages = (self.staged.len() >> self.page_shift) as u32;
        let (codec, stored) = self.compressor.encode(&self.staged);
        self.runs.push(Run {
            pgoff: self.next_pgoff - u64::from(pages),
            pages,
            codec,
            data_off: self.written + self.buffer.len() as u64,
            stored_len: stored.len() as u32,
            crc: crc32c::crc32c(stored),
        });
        self.buffer.extend_from_slice(stored);
        self.staged.clear();
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what was gathered and puts it into the hash.
    fn flush(&mut self) -> Result<(), StoreError> {
        self.write(&self.buffer, self.written)?;
        self.hasher.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, self.offset + at)
            .map_err(StoreError::io("write", self.file.path()))
            .map_err(|error| name_full(error, self.epoch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(StoreError::io("sync", self.file.path()))
            .map_err(|error| name_full(error, self.epoch))
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Fills up with zeros to an offset in the record.
    fn pad_to(&mut self, offset: u64) {
        let pad = offset - self.position();
        self.buffer.resize(self.buffer.len() + pad as usize, 0);
    }

    /// Writes all that is left; the commit is durable when this returns.
    fn finish(
        mut self,
        meta: &CommitMeta,
        meta_section: &[u8],
        position: &Position,
    ) -> Result<Record, StoreError> {
        self.end_runs()?;
        let index_section = index::encode(&self.runs);
        let pages_of = |zero: bool| -> u64 {
            let runs = self
                .runs
                .iter()
                .filter(|run| (run.codec == Codec::Zero) == zero);
            runs.map(|run| u64::from(run.pages)).sum()
        };
        let layout = Layout {
            meta_len: meta_section.len() as u64,
            data_len: self.position() - HEADER_BYTES - meta_section.len() as u64,
            index_len: index_section.len() as u64,
        };
        let ends = layout.index_off().zip(layout.total_len());
        let (index_off, total_len) =
            ends.ok_or_else(|| self.invalid("it is too large for a record".into()))?;

        let mut header = RecordHeader::new(meta.kind);
        header.total_len = total_len.into();
        header.epoch = meta.epoch.into();
        header.parent = meta.parent.unwrap_or(0).into();
        header.chain_id = position.chain_id;
        header.segment = position.segment.into();
        header.offset = position.offset.into();
        header.generation = meta.generation;
        header.time_ns = meta.time_ns.into();
        header.pause_ns = meta.pause_ns.into();
        header.arena_base = meta.arena_base.into();
        header.arena_len_pages = meta.arena_len_pages.into();
        header.page_shift = meta.page_shift.into();
        header.meta_len = layout.meta_len.into();
        header.data_len = layout.data_len.into();
        header.index_off = index_off.into();
        header.index_len = layout.index_len.into();
        header.data_pages = pages_of(false).into();
        header.zero_pages = pages_of(true).into();
        header.meta_crc = crc32c::crc32c(meta_section).into();
        header.index_crc = crc32c::crc32c(&index_section).into();
        header.seal();

        self.pad_to(index_off);
        self.buffer.extend_from_slice(&index_section);
        self.pad_to(total_len - FOOTER_BYTES);
        self.flush()?;
        self.write(&[0; FOOTER_BYTES as usize], self.written)?;
        self.write(header.as_bytes(), 0)?;
        // No footer before what it vouches for is durable.
        self.sync()?;
        let body_hash = *self.hasher.finalize().as_bytes();
        let footer = Footer::new(&header, position.parent_hash, body_hash);
        self.write(footer.as_bytes(), total_len - FOOTER_BYTES)?;
        self.sync()?;
        Ok(Record::new(&header, Some(&footer)))
    }

    fn invalid(&self, what: String) -> StoreError {
        StoreError::Invalid {
            epoch: self.epoch,
            what,
        }
    }
}

/// Writes a record. When it fails, anything may stand behind the position, but no
/// footer that was not durable before.
pub(super) fn append<E: From<StoreError>>(
    file: &File,
    meta: &CommitMeta,
    position: &Position,
    fill: impl FnOnce(&mut PageSink<'_>) -> Result<(), E>,
) -> Result<Record, E> {
    let section = meta.encode().map_err(|what| StoreError::Invalid {
        epoch: meta.epoch,
        what,
    })?;
    let mut sink = PageSink::new(file, meta, position.offset);
    sink.buffer.extend_from_slice(&section);
    fill(&mut sink)?;
    Ok(sink.finish(meta, &section, position)?)
}

/// Says what a full disk means for a commit.
pub(super) fn name_full(error: StoreError, epoch: u64) -> StoreError {
    match error {
        StoreError::Io { path, source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            let dir = path.parent().unwrap_or(&path).to_owned();
            StoreError::NoSpace { dir, epoch, source }
        }
        error => error,
    }
}
