// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records as they lie in a segment: reading their parts and judging them.

use std::path::Path;

use super::codec;
use super::damage::TornTail;
use super::error::StoreError;
use super::format::BLOCK;
use super::format::FOOTER_BYTES;
use super::format::Footer;
use super::format::HEADER_BYTES;
use super::format::Kind;
use super::format::RecordHeader;
use super::index;
use super::index::Run;
use super::meta;
use super::meta::Identity;
use super::meta::RegionEntry;
use crate::sys::file::File;

/// A commit in a chain, without its region table and identity, which
/// [`Chain::get`](super::Chain::get) reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its epoch.
    pub epoch: u64,
    /// The epoch that its pages are a delta to; `None` when it stands alone.
    pub parent: Option<u64>,
    /// Commit or restore.
    pub kind: Kind,
    /// Random id, made anew by every restore.
    pub generation: [u8; 16],
    /// Wall clock of the commit, nanoseconds since 1970.
    pub time_ns: u64,
    /// For how long the commit held up the program's writers.
    pub pause_ns: u64,
    /// Address at which the arena is mapped.
    pub arena_base: u64,
    /// Size of the arena.
    pub arena_len_pages: u64,
    /// log2 of the page size.
    pub page_shift: u32,
    /// Pages stored in it.
    pub data_pages: u64,
    /// Pages it says are zero.
    pub zero_pages: u64,
    /// Pages that are the same as others, which are stored.
    pub shared_pages: u64,
    /// Pages that were written, but not changed, and so were left out.
    pub unchanged_pages: u64,
    /// What the record takes on disk.
    pub stored_bytes: u64,
    /// Number of the segment that holds it.
    pub segment: u64,
    /// Where in the segment it begins.
    pub offset: u64,
    /// What a record that builds on it is chained to. Compaction does not change it.
    pub hash: [u8; 32],
    /// It stands for all commits between its parent and itself, which were dropped.
    pub compacted: bool,
    /// False when it, or a record it builds on, is damaged in more than its
    /// pages; those are only looked at by `load` and `verify`.
    pub restorable: bool,
}

impl CommitInfo {
    /// Pages that were written before it, and perhaps changed.
    pub fn pages(&self) -> u64 {
        let stored = self.data_pages + self.zero_pages + self.shared_pages;
        stored + self.unchanged_pages
    }

    /// Bytes of these pages.
    pub fn raw_bytes(&self) -> u64 {
        self.pages() << self.page_shift
    }
}

/// A record whose header is intact.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub info: CommitInfo,
    pub header: RecordHeader,
    pub parent_hash: [u8; 32],
    pub body_hash: [u8; 32],
    /// Hash of this very record; of one that was made by compaction not the one that
    /// records are chained to.
    pub own_hash: [u8; 32],
    /// Header, footer, meta and index are as they were written, and so is the
    /// link to the parent.
    pub sound: bool,
}

impl Record {
    /// A record of which header and footer are known.
    pub fn new(header: &RecordHeader, footer: Option<&Footer>) -> Record {
        let parent = header.parent.get();
        let info = CommitInfo {
            epoch: header.epoch.get(),
            parent: (parent != 0).then_some(parent),
            kind: header.kind().unwrap_or(Kind::Commit),
            generation: header.generation,
            time_ns: header.time_ns.get(),
            pause_ns: header.pause_ns.get(),
            arena_base: header.arena_base.get(),
            arena_len_pages: header.arena_len_pages.get(),
            page_shift: header.page_shift.get(),
            data_pages: header.data_pages.get(),
            zero_pages: header.zero_pages.get(),
            shared_pages: header.shared_pages.get(),
            unchanged_pages: header.unchanged_pages.get(),
            stored_bytes: header.total_len.get(),
            segment: header.segment.get(),
            offset: header.offset.get(),
            hash: footer.map_or([0; 32], |footer| header.stands_for().unwrap_or(footer.hash)),
            compacted: header.stands_for().is_some(),
            restorable: footer.is_some(),
        };
        Record {
            info,
            header: *header,
            parent_hash: footer.map_or([0; 32], |footer| footer.parent_hash),
            body_hash: footer.map_or([0; 32], |footer| footer.body_hash),
            own_hash: footer.map_or([0; 32], |footer| footer.hash),
            sound: footer.is_some(),
        }
    }
}

/// What stands where a header or a footer should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<T> {
    /// What should be there: intact in the sense of the specification.
    Intact(T),
    /// Zeros.
    Zero,
    /// Something else, or not enough.
    Wrong,
}

impl<T> Place<T> {
    fn of(bytes: &[u8], found: Option<T>) -> Place<T> {
        match found {
            Some(found) => Place::Intact(found),
            None if codec::is_zero(bytes) => Place::Zero,
            None => Place::Wrong,
        }
    }
}

/// The first intact thing behind a damaged place.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextIntact {
    /// Where a record begins or could begin.
    pub at: u64,
    /// The epoch of the record that ends there, if its footer is what was found.
    pub ended_epoch: Option<u64>,
}

/// A place in a record that is not as it was written, and what is wrong.
pub(super) type Fault = (u64, String);

/// A segment to read records from.
#[derive(Debug)]
pub(super) struct RecordFile<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub len: u64,
    pub number: u64,
    pub chain_id: [u8; 16],
    /// It is a base.
    pub base: bool,
}

impl RecordFile<'_> {
    /// Reads a part of the segment that is known to be there.
    pub fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; len as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(StoreError::io("read", self.path))?;
        Ok(bytes)
    }

    /// What is at `at`, where a record should begin.
    pub fn header_at(&self, at: u64) -> Result<Place<RecordHeader>, StoreError> {
        let bytes = self.read(at, HEADER_BYTES.min(self.len - at))?;
        Ok(Place::of(&bytes, self.parse_header(&bytes, at)))
    }

    /// What is before `end`, where a record should end.
    pub fn footer_before(&self, end: u64) -> Result<Place<Footer>, StoreError> {
        let bytes = self.read(end - FOOTER_BYTES, FOOTER_BYTES)?;
        Ok(Place::of(&bytes, self.parse_footer(&bytes, end)))
    }

    fn parse_header(&self, bytes: &[u8], at: u64) -> Option<RecordHeader> {
        RecordHeader::parse(bytes).filter(|header| {
            header.fault().is_none()
                && header.chain_id == self.chain_id
                && header.segment.get() == self.number
                && header.offset.get() == at
        })
    }

    fn parse_footer(&self, bytes: &[u8], end: u64) -> Option<Footer> {
        Footer::parse(bytes).filter(|footer| {
            footer.chain_id == self.chain_id
                && footer.segment.get() == self.number
                && footer.offset.get() >= BLOCK
                && footer.offset.get().checked_add(footer.total_len.get()) == Some(end)
        })
    }

    /// Looks behind `at` for the first intact header or footer.
    pub fn next_intact(&self, at: u64) -> Result<Option<NextIntact>, StoreError> {
        let mut block_at = at;
        while block_at < self.len {
            let block = self.read(block_at, BLOCK.min(self.len - block_at))?;
            if block_at > at && self.parse_header(&block, block_at).is_some() {
                return Ok(Some(NextIntact {
                    at: block_at,
                    ended_epoch: None,
                }));
            }
            let end = block_at + BLOCK;
            let footer = block
                .get((BLOCK - FOOTER_BYTES) as usize..)
                .and_then(|bytes| self.parse_footer(bytes, end))
                .filter(|footer| footer.offset.get() >= at);
            if let Some(footer) = footer {
                return Ok(Some(NextIntact {
                    at: end,
                    ended_epoch: Some(footer.epoch.get()),
                }));
            }
            block_at = end;
        }
        Ok(None)
    }

    /// Judges a record with an intact header by all but its page data.
    pub fn check(
        &self,
        header: &RecordHeader,
        footer: &Place<Footer>,
    ) -> Result<Result<Record, Fault>, StoreError> {
        let at = header.offset.get();
        let end = at + header.total_len.get();
        let epoch = header.epoch.get();
        let fault = |offset: u64, what: &str| Ok(Err((offset, format!("epoch {epoch}: {what}"))));
        let footer = match footer {
            Place::Intact(footer) if footer.ends(header) => footer,
            Place::Zero => {
                return fault(end - FOOTER_BYTES, "zeros stand where its footer should be");
            }
            _ => return fault(end - FOOTER_BYTES, "its footer is damaged"),
        };
        if header.stands_for().is_some() != self.base {
            return fault(
                at,
                "it is in a segment and belongs into a base, or the reverse",
            );
        }
        if let Err((offset, what)) = self.meta(header)? {
            return Ok(Err((offset, what)));
        }
        if let Err((offset, what)) = self.runs(header)? {
            return Ok(Err((offset, what)));
        }
        Ok(Ok(Record::new(header, Some(footer))))
    }

    /// The region table and the identity of a record.
    pub fn meta(
        &self,
        header: &RecordHeader,
    ) -> Result<Result<(Vec<RegionEntry>, Identity), Fault>, StoreError> {
        let offset = header.offset.get() + HEADER_BYTES;
        let section = self.read(offset, header.meta_len.get())?;
        let decoded = if crc32c::crc32c(&section) == header.meta_crc.get() {
            meta::decode(&section, header.arena_len_pages.get())
        } else {
            Err("its meta section is damaged")
        };
        Ok(decoded.map_err(|what| (offset, format!("epoch {}: {what}", header.epoch.get()))))
    }

    /// The runs of a record.
    pub fn runs(&self, header: &RecordHeader) -> Result<Result<Vec<Run>, Fault>, StoreError> {
        let offset = header.offset.get() + header.index_off.get();
        let section = self.read(offset, header.index_len.get())?;
        let decoded = if crc32c::crc32c(&section) == header.index_crc.get() {
            index::decode(&section, header)
        } else {
            Err("its index is damaged")
        };
        Ok(decoded.map_err(|what| (offset, format!("epoch {}: {what}", header.epoch.get()))))
    }

    /// All from `at` to the end of the file as a torn tail.
    pub fn torn(&self, at: u64, epoch: Option<u64>) -> TornTail {
        TornTail {
            file: self.path.to_owned(),
            offset: at,
            bytes: self.len - at,
            epoch,
        }
    }
}
