// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes the pages of a commit and makes runs of them.

use super::append::Body;
use super::codec::Codec;
use super::codec::is_zero;
use super::error::StoreError;
use super::format::RUN_MAX_PAGES;
use super::index::Run;
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
    body: Body<'a>,
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
}

impl<'a> PageSink<'a> {
    pub(super) fn new(body: Body<'a>, meta: &CommitMeta, options: &Options) -> PageSink<'a> {
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
            if is_zero(page) {
                self.add(pgoff, Codec::Zero, u32::MAX);
            } else {
                self.add_data(pgoff, page)?;
            }
        }
        self.next_pgoff = pgoff + pages;
        Ok(())
    }

    /// Adds a page to the last run, if it goes on with it, or to a new one.
    fn add(&mut self, pgoff: u64, codec: Codec, max_pages: u32) {
        match self.runs.last_mut() {
            Some(run) if run.codec == codec && run.end() == pgoff && run.pages < max_pages => {
                run.pages += 1;
            }
            _ => self.runs.push(Run {
                pgoff,
                pages: 1,
                codec,
                data_off: 0,
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
        self.add(pgoff, Codec::None, max_pages);
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
    pub(super) fn finish(mut self) -> Result<(Body<'a>, Vec<Run>), StoreError> {
        self.end_parcel()?;
        while let Some(packed) = self.packer.take() {
            self.write(packed)?;
        }
        Ok((self.body, self.runs))
    }

    fn invalid(&self, what: String) -> StoreError {
        StoreError::Invalid {
            epoch: self.epoch,
            what,
        }
    }
}
