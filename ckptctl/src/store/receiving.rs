// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking the records of another chain.

use super::append;
use super::error::StoreError;
use super::format::FEATURES_OF_RECORDS;
use super::format::FOOTER_BYTES;
use super::format::Footer;
use super::format::HEADER_BYTES;
use super::format::RecordHeader;
use super::lock::ParentsLock;
use super::record::CommitInfo;
use super::record::RecordFile;
use super::shipping::CommitId;
use super::shipping::RECORD_END_BYTES;
use super::writer::Writer;

/// A record that another chain has, as its header says.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    header: RecordHeader,
}

impl Announced {
    /// Examines a header that somebody sent; what is wrong with it.
    pub fn parse(bytes: &[u8; RECORD_END_BYTES]) -> Result<Announced, &'static str> {
        let header = RecordHeader::parse(bytes).ok_or("the header of a record is damaged")?;
        match header.fault() {
            None => Ok(Announced { header }),
            Some(fault) => Err(fault),
        }
    }

    /// The commit.
    pub fn id(&self) -> CommitId {
        CommitId {
            epoch: self.header.epoch.get(),
            generation: self.header.generation,
        }
    }

    /// The epoch that it builds on.
    pub fn parent(&self) -> Option<u64> {
        let parent = self.header.parent.get();
        (parent != 0).then_some(parent)
    }

    /// Bytes between its header and its footer.
    pub fn body_bytes(&self) -> u64 {
        self.header.total_len.get() - HEADER_BYTES - FOOTER_BYTES
    }

    /// Bytes of its record.
    pub fn stored_bytes(&self) -> u64 {
        self.header.total_len.get()
    }
}

/// A record that is being received. The chain is as it was when it is dropped before
/// [`Received::keep`] has succeeded.
#[derive(Debug)]
pub struct Receiving<'w> {
    writer: &'w mut Writer,
    /// As it will stand here.
    header: RecordHeader,
    announced: Announced,
    parent_hash: [u8; 32],
    hasher: blake3::Hasher,
    received: u64,
    _lock: Option<ParentsLock>,
}

impl Writer {
    /// Begins to take a record of another chain behind all that are here.
    ///
    /// # Errors
    ///
    /// As [`Writer::append_with`]: [`StoreError::EpochOrder`] when its epoch is not above all
    /// here, [`StoreError::NoSuchEpoch`] when its parent is not here.
    pub fn receive(&mut self, announced: Announced) -> Result<Receiving<'_>, StoreError> {
        self.undo()?;
        let epoch = announced.id().epoch;
        self.sync_name()
            .map_err(|error| append::name_full(error, epoch))?;
        self.chain.scan.release_files();
        let lock = self.keep_parent(announced.parent())?;
        let page_shift = announced.header.page_shift.get();
        let parent_hash = self.check(epoch, announced.parent(), page_shift)?;
        if self.wants_segment(FEATURES_OF_RECORDS) {
            self.next_segment(FEATURES_OF_RECORDS)
                .map_err(|error| append::name_full(error, epoch))?;
        }
        let Some(last) = self.chain.scan.segments.last() else {
            unreachable!("has one")
        };
        let header = announced
            .header
            .moved(self.chain.scan.chain_id, last.number, self.end);
        self.unfinished = true;
        Ok(Receiving {
            writer: self,
            header,
            announced,
            parent_hash,
            hasher: blake3::Hasher::new(),
            received: 0,
            _lock: lock,
        })
    }
}

impl<'w> Receiving<'w> {
    /// Bytes that are still to come.
    pub fn missing_bytes(&self) -> u64 {
        self.announced.body_bytes() - self.received
    }

    fn invalid(&self, what: impl Into<String>) -> StoreError {
        StoreError::Invalid {
            epoch: self.announced.id().epoch,
            what: what.into(),
        }
    }

    /// Takes the next bytes between header and footer.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] when they are more than were announced; [`StoreError::NoSpace`],
    /// [`StoreError::Io`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.missing_bytes() {
            return Err(self.invalid("more bytes came than its header announces"));
        }
        let at = self.header.offset.get() + HEADER_BYTES + self.received;
        let file = &self.writer.file;
        append::write(file, bytes, at, self.header.epoch.get())?;
        if self.missing_bytes() > 0 {
            // So that the disk works while the next ones come.
            file.start_writing(at, bytes.len() as u64);
        }
        self.hasher.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Takes the footer, by which all that came is checked.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] when what came is not what was sent, or no record;
    /// [`StoreError::Io`].
    pub fn check(self, footer: &[u8; RECORD_END_BYTES]) -> Result<Received<'w>, StoreError> {
        if self.missing_bytes() > 0 {
            return Err(self.invalid("fewer bytes came than its header announces"));
        }
        let body_hash = *self.hasher.finalize().as_bytes();
        let sent = Footer::parse(footer)
            .filter(|footer| footer.ends(&self.announced.header) && footer.body_hash == body_hash);
        if sent.is_none() {
            return Err(self.invalid("what came is not what was sent"));
        }
        match self.fault()? {
            Some(what) => Err(self.invalid(what)),
            None => Ok(Received {
                receiving: self,
                body_hash,
            }),
        }
    }

    /// What is wrong with the record although it came as it was sent.
    fn fault(&self) -> Result<Option<String>, StoreError> {
        let file = RecordFile {
            file: &self.writer.file,
            path: self.writer.file.path(),
            len: 0,
            number: self.header.segment.get(),
            chain_id: self.header.chain_id,
            base: false,
        };
        let meta = file.meta(&self.header)?.map(drop);
        let runs = file.runs(&self.header)?.map(drop);
        Ok(meta.and(runs).err().map(|(_, what)| what))
    }
}

/// A record that came whole and in order, and is not durable yet.
#[derive(Debug)]
pub struct Received<'w> {
    receiving: Receiving<'w>,
    body_hash: [u8; 32],
}

impl Received<'_> {
    /// Makes it part of the chain. The commit is durable when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn keep(self) -> Result<CommitInfo, StoreError> {
        let Receiving {
            writer,
            header,
            parent_hash,
            _lock,
            ..
        } = self.receiving;
        let record = append::seal(&writer.file, &header, parent_hash, self.body_hash, true)?;
        Ok(writer.appended(record).clone())
    }
}
