// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes one record behind the end of a segment.

use std::io;
use std::mem;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::codec::Codec;
use super::error::StoreError;
use super::format::BLOCK;
use super::format::FOOTER_BYTES;
use super::format::Footer;
use super::format::HEADER_BYTES;
use super::format::Layout;
use super::format::RecordHeader;
use super::index;
use super::known::Known;
use super::meta::CommitMeta;
use super::page_sink::PageSink;
use super::page_sink::Pages;
use super::record::Record;
use super::writer::Options;
use super::writing::Beside;
use super::writing::Ordered;
use crate::sys::file::File;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes of a record that are written where they are made, before a thread is started: a small
/// commit is done sooner than a thread has begun.
const ALONE_BYTES: u64 = 2 << 20;

/// Where and as part of what a record is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub chain_id: [u8; 16],
    pub segment: u64,
    pub offset: u64,
    pub parent_hash: [u8; 32],
    /// The hash of the record in whose place this one is written into a base. A base is
    /// synced as a whole before it counts, so such a record is not synced by itself.
    pub stands_for: Option<[u8; 32]>,
}

/// What is between a record's header and its footer, written as it comes.
#[derive(Debug)]
pub(super) struct Body {
    file: Arc<File>,
    epoch: u64,
    /// Of the record in the file.
    offset: u64,
    /// Where in the record the buffer goes.
    written: u64,
    buffer: Vec<u8>,
    ordered: Ordered,
    /// Has what `ordered` had, while there is one.
    beside: Option<Beside>,
    /// A thread may be started.
    may_start: bool,
}

impl Body {
    fn new(file: &Arc<File>, epoch: u64, offset: u64, may_start: bool) -> Body {
        Body {
            file: Arc::clone(file),
            epoch,
            offset,
            written: HEADER_BYTES,
            buffer: Vec::new(),
            ordered: Ordered::new(Arc::clone(file)),
            beside: None,
            may_start,
        }
    }

    /// Where in the record the next bytes go.
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Puts bytes behind those that are there.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered and puts it into the hash, or has that done.
    fn flush(&mut self) -> Result<(), StoreError> {
        if self.may_start && self.written >= ALONE_BYTES {
            self.may_start = false;
            self.beside = Beside::start(&self.file, &mut self.ordered);
        }
        let (at, len) = (self.offset + self.written, self.buffer.len());
        if let Some(beside) = &mut self.beside {
            match beside.put(at, mem::take(&mut self.buffer)) {
                Some(empty) => self.buffer = empty,
                None => self.all_written()?,
            }
        } else {
            let written = self.ordered.write(at, &self.buffer, len >= BUFFER_BYTES);
            written.map_err(|error| name_full(error, self.epoch))?;
            self.buffer.clear();
        }
        self.written += len as u64;
        Ok(())
    }

    /// Waits until all that was flushed is written.
    fn all_written(&mut self) -> Result<(), StoreError> {
        if let Some(beside) = self.beside.take() {
            let ended = beside.end();
            self.ordered = ended.map_err(|error| name_full(error, self.epoch))?;
        }
        Ok(())
    }

    /// Fills up with zeros to an offset in the record.
    fn pad_to(&mut self, offset: u64) {
        let pad = offset - self.position();
        self.buffer.resize(self.buffer.len() + pad as usize, 0);
    }
}

/// Writes a record. When it fails, anything may stand behind the position, but no
/// footer that was not durable before.
pub(super) fn append<E: From<StoreError>>(
    file: &Arc<File>,
    meta: &CommitMeta,
    position: &Position,
    options: &Options,
    mut known: Option<&mut Known>,
    fill: impl FnOnce(&mut PageSink<'_>) -> Result<(), E>,
) -> Result<Record, E> {
    let section = meta.encode().map_err(|what| StoreError::Invalid {
        epoch: meta.epoch,
        what,
    })?;
    let mut body = Body::new(file, meta.epoch, position.offset, options.threads > 0);
    body.buffer.extend_from_slice(&section);
    let mut sink = PageSink::new(body, meta, options, known.as_deref_mut());
    fill(&mut sink)?;
    let (body, pages) = sink.finish()?;
    let record = finish(body, &pages, meta, &section, position)?;
    if let Some(known) = known {
        known.accept(meta, pages.fresh);
    }
    Ok(record)
}

/// Writes all that is left; the commit is durable when this returns.
fn finish(
    mut body: Body,
    pages: &Pages,
    meta: &CommitMeta,
    meta_section: &[u8],
    position: &Position,
) -> Result<Record, StoreError> {
    let index_section = index::encode(&pages.runs);
    let pages_of = |wanted: fn(Codec) -> bool| -> u64 {
        let runs = pages.runs.iter().filter(|run| wanted(run.codec));
        runs.map(|run| u64::from(run.pages)).sum()
    };
    let layout = Layout {
        meta_len: meta_section.len() as u64,
        data_len: body.position() - HEADER_BYTES - meta_section.len() as u64,
        index_len: index_section.len() as u64,
    };
    let ends = layout.index_off().zip(layout.total_len());
    let (index_off, total_len) = ends.ok_or_else(|| StoreError::Invalid {
        epoch: meta.epoch,
        what: "it is too large for a record".into(),
    })?;

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
    header.data_pages = pages_of(Codec::has_data).into();
    header.zero_pages = pages_of(|codec| codec == Codec::Zero).into();
    header.shared_pages = pages_of(Codec::is_reference).into();
    header.unchanged_pages = pages.unchanged.into();
    header.meta_crc = crc32c::crc32c(meta_section).into();
    header.index_crc = crc32c::crc32c(&index_section).into();
    if let Some(hash) = position.stands_for {
        header.stand_for(hash);
    }
    header.seal();

    body.pad_to(index_off);
    body.buffer.extend_from_slice(&index_section);
    body.pad_to(total_len - FOOTER_BYTES);
    body.flush()?;
    body.all_written()?;
    let body_hash = body.ordered.hash();
    let alone = position.stands_for.is_none();
    seal(&body.file, &header, position.parent_hash, body_hash, alone)
}

/// Writes header and footer around a body that is there. With `alone` the record is durable when
/// this returns.
pub(super) fn seal(
    file: &File,
    header: &RecordHeader,
    parent_hash: [u8; 32],
    body_hash: [u8; 32],
    alone: bool,
) -> Result<Record, StoreError> {
    let epoch = header.epoch.get();
    let at = header.offset.get();
    let footer_at = at + header.total_len.get() - FOOTER_BYTES;
    let write = |bytes: &[u8], at: u64| write(file, bytes, at, epoch);
    write(&[0; FOOTER_BYTES as usize], footer_at)?;
    write(header.as_bytes(), at)?;
    // No footer before what it vouches for is durable.
    if alone {
        sync(file, epoch)?;
    }
    let footer = Footer::new(header, parent_hash, body_hash);
    write(footer.as_bytes(), footer_at)?;
    if alone {
        sync(file, epoch)?;
    }
    Ok(Record::new(header, Some(&footer)))
}

/// Writes at an offset in the file, for a commit.
pub(super) fn write(file: &File, bytes: &[u8], at: u64, epoch: u64) -> Result<(), StoreError> {
    file.write_all_at(bytes, at)
        .map_err(StoreError::io("write", file.path()))
        .map_err(|error| name_full(error, epoch))
}

fn sync(file: &File, epoch: u64) -> Result<(), StoreError> {
    file.sync_data()
        .map_err(StoreError::io("sync", file.path()))
        .map_err(|error| name_full(error, epoch))
}

/// Writes the footer that ends a segment once more, so that the next sync is one of it.
///
/// It is the only part of a record that somebody can read and that is not on the disk: what comes
/// before it was synced. When a sync fails, the system tells that once, and takes what it could not
/// save for saved from then on; whom it told may be gone.
pub(super) fn write_footer_again(file: &File, end: u64) -> Result<(), StoreError> {
    if end == BLOCK {
        return Ok(());
    }
    let mut footer = [0; FOOTER_BYTES as usize];
    let at = end - FOOTER_BYTES;
    file.read_exact_at(&mut footer, at)
        .map_err(StoreError::io("read", file.path()))?;
    file.write_all_at(&footer, at)
        .map_err(StoreError::io("write", file.path()))
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
