// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes the pages of a commit and makes runs of them.

use super::append::Body;
use super::codec::Codec;
use super::codec::is_zero;
use super::error::StoreError;
use super::format::RUN_MAX_PAGES;
use super::index::Run;
use super::known::Fresh;
use super::known::Known;
use super::known::ZERO;
use super::meta::CommitMeta;
use super::packing::PARCEL_BYTES;
use super::packing::Packer;
use super::packing::Parcel;
use super::writer::Options;

/// Takes the pages of a commit, in ascending order, and writes them as they come.
///
/// Every page is read once, so pages that change meanwhile cannot make a record
/// that contradicts itself.
#[derive(Debug)]
pub struct PageSink<'a> {
    body: Body,
    epoch: u64,
    page_shift: u32,
    arena_len_pages: u64,
    /// In index order. Those with data say how they are stored only when they were packed.
    runs: Vec<Run>,
    /// All runs with data before this one are packed and written.
    unpacked: usize,
    packer: Packer,
    /// Pages that are to be packed next.
    parcel: Parcel,
    next_pgoff: u64,
    /// What is in the chain already; none when every page is to be stored.
    known: Option<&'a mut Known>,
    fresh: Fresh,
    unchanged: u64,
}

/// What became of the pages of a record.
#[derive(Debug)]
pub(super) struct Pages {
    /// For the index.
    pub runs: Vec<Run>,
    /// Pages that were left out because they are as in the parent.
    pub unchanged: u64,
    /// What is known of them now.
    pub fresh: Fresh,
}

/// Where the content of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the parent's image, at the same place.
    Unchanged,
    Zero,
    /// At this page of the parent's image.
    Parent(u64),
    /// At this page of the record.
    Here(u64),
    /// Nowhere yet.
    New,
}

impl<'a> PageSink<'a> {
    pub(super) fn new(
        body: Body,
        meta: &CommitMeta,
        options: &Options,
        mut known: Option<&'a mut Known>,
    ) -> PageSink<'a> {
        if let Some(known) = &mut known {
            known.begin(meta.parent);
        }
        let mut packer = Packer::new(options.compression, options.threads);
        PageSink {
            body,
            epoch: meta.epoch,
            page_shift: meta.page_shift,
            arena_len_pages: meta.arena_len_pages,
            runs: Vec::new(),
            unpacked: 0,
            parcel: packer.parcel(),
            packer,
            next_pgoff: 0,
            known,
            fresh: Fresh::default(),
            unchanged: 0,
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
        for (pgoff, page) in (pgoff..).zip(bytes.chunks_exact(page_bytes)) {
            match self.place_of(pgoff, page) {
                Place::Unchanged => self.unchanged += 1,
                Place::Zero => self.add(pgoff, Codec::Zero, 0, u32::MAX),
                Place::Parent(page) => self.add(pgoff, Codec::Parent, page, RUN_MAX_PAGES),
                Place::Here(page) => self.add(pgoff, Codec::Here, page, RUN_MAX_PAGES),
                Place::New => self.add_data(pgoff, page)?,
            }
        }
        self.next_pgoff = pgoff + pages;
        Ok(())
    }

    /// Finds out where the content of a page is, and notes it.
    fn place_of(&mut self, pgoff: u64, page: &[u8]) -> Place {
        let Some(known) = &mut self.known else {
            return match is_zero(page) {
                true => Place::Zero,
                false => Place::New,
            };
        };
        let digest = known.digest(page);
        if known.has(pgoff, digest) {
            return Place::Unchanged;
        }
        let place = if digest == ZERO {
            Place::Zero
        } else if let Some(page) = known.find(digest) {
            Place::Parent(page)
        } else if let Some(page) = self.fresh.find(digest) {
            Place::Here(page)
        } else {
            Place::New
        };
        self.fresh.note(known, pgoff, digest, place == Place::New);
        place
    }

    /// Adds a page to the last run, if it goes on with it, or to a new one. A reference is to
    /// page `referred`.
    fn add(&mut self, pgoff: u64, codec: Codec, referred: u64, max_pages: u32) {
        match self.runs.last_mut() {
            Some(run)
                if run.codec == codec
                    && run.end() == pgoff
                    && (!codec.is_reference() || run.referred().end == referred)
                    && run.pages < max_pages =>
            {
                run.pages += 1;
            }
            _ => self.runs.push(Run {
                pgoff,
                pages: 1,
                codec,
                data_off: referred,
                stored_len: 0,
                crc: 0,
            }),
        }
    }

    /// Adds a page whose bytes are stored.
    fn add_data(&mut self, pgoff: u64, page: &[u8]) -> Result<(), StoreError> {
        let runs_before = self.runs.len();
        // A run is packed as one, so it does not go on in another parcel.
        let max_pages = if self.parcel.lens.is_empty() {
            0
        } else {
            RUN_MAX_PAGES
        };
        self.add(pgoff, Codec::None, 0, max_pages);
        self.parcel.raw.extend_from_slice(page);
        match self.parcel.lens.last_mut() {
            Some(len) if self.runs.len() == runs_before => *len += page.len(),
            _ => self.parcel.lens.push(page.len()),
        }
        if self.parcel.raw.len() + page.len() > PARCEL_BYTES {
            self.end_parcel()?;
        }
        Ok(())
    }

    fn end_parcel(&mut self) -> Result<(), StoreError> {
        let parcel = std::mem::take(&mut self.parcel);
        if let Some(packed) = self.packer.put(parcel) {
            self.write(packed)?;
        }
        self.parcel = self.packer.parcel();
        Ok(())
    }

    /// Writes the oldest parcel that was not written yet.
    fn write(&mut self, parcel: Parcel) -> Result<(), StoreError> {
        let mut data_off = self.body.position();
        for packed in &parcel.packed {
            while !self.runs[self.unpacked].codec.has_data() {
                self.unpacked += 1;
            }
            let run = &mut self.runs[self.unpacked];
            run.codec = packed.codec;
            run.data_off = data_off;
            run.stored_len = packed.stored_len;
            run.crc = packed.crc;
            data_off += u64::from(packed.stored_len);
            self.unpacked += 1;
        }
        self.body.put(parcel.stored())?;
        self.packer.reuse(parcel);
        Ok(())
    }

    /// Packs and writes all that is left; gives back the record without its index, and what
    /// goes into that.
    pub(super) fn finish(mut self) -> Result<(Body, Pages), StoreError> {
        self.end_parcel()?;
        while let Some(packed) = self.packer.take() {
            self.write(packed)?;
        }
        let pages = Pages {
            runs: self.runs,
            unchanged: self.unchanged,
            fresh: self.fresh,
        };
        Ok((self.body, pages))
    }

    fn invalid(&self, what: String) -> StoreError {
        StoreError::Invalid {
            epoch: self.epoch,
            what,
        }
    }
}
