// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records on their way to another chain, as the bytes that they have here.
//!
//! All in a record but its header and footer is the same wherever it stands, so a chain can take
//! the records of another without looking into them. What is the same commit in both has the same
//! epoch and the same generation.

use std::io;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::chain::Chain;
use super::error::StoreError;
use super::format::FOOTER_BYTES;
use super::format::HEADER_BYTES;
use super::record::CommitInfo;
use crate::sys::file::File;

/// Bytes of a record's header, and of its footer.
pub const RECORD_END_BYTES: usize = HEADER_BYTES as usize;

const _: () = assert!(HEADER_BYTES == FOOTER_BYTES);

/// A commit, named so that it is the same in every chain that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitId {
    /// Its epoch.
    pub epoch: u64,
    /// The run of the program that made it.
    pub generation: [u8; 16],
}

impl CommitInfo {
    /// Its name.
    pub fn id(&self) -> CommitId {
        CommitId {
            epoch: self.epoch,
            generation: self.generation,
        }
    }
}

/// A record to be sent.
#[derive(Debug)]
pub struct Shipment {
    /// Its header, as it stands in the file.
    pub header: [u8; RECORD_END_BYTES],
    /// Its footer.
    pub footer: [u8; RECORD_END_BYTES],
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Shipment {
    /// Bytes between header and footer.
    pub fn body_bytes(&self) -> u64 {
        self.end - self.at
    }

    /// Reads the next bytes between header and footer, as many as fit, and returns how many;
    /// 0 behind the last.
    ///
    /// # Errors
    ///
    /// What reading ran into. That the bytes are those that were written is for the receiver to see.
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, StoreError> {
        let len = (to.len() as u64).min(self.body_bytes()) as usize;
        self.file
            .read_exact_at(&mut to[..len], self.at)
            .map_err(StoreError::io("read", self.file.path()))?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Chain {
    /// Whether it has a commit, and can restore it.
    pub fn has(&self, id: CommitId) -> bool {
        self.find(id.epoch)
            .is_some_and(|info| info.restorable && info.generation == id.generation)
    }

    /// An epoch and those it builds on, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchEpoch`], [`StoreError::Damaged`].
    pub fn lineage_of(&self, epoch: u64) -> Result<impl Iterator<Item = &CommitInfo>, StoreError> {
        self.restorable(epoch)?;
        Ok(self.lineage(epoch).map(|record| &record.info))
    }

    /// The record of an epoch, to be sent.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchEpoch`], [`StoreError::Damaged`], [`StoreError::Io`]: also when a
    /// compaction has removed the file, see [`Chain::follow`].
    pub fn ship(&self, epoch: u64) -> Result<Shipment, StoreError> {
        let record = self.restorable(epoch)?;
        let segment = self.scan.segment(record.info.segment);
        let file = segment.open()?;
        let mut header = [0; RECORD_END_BYTES];
        header.copy_from_slice(record.header.as_bytes());
        let at = record.info.offset;
        let footer_at = at + record.info.stored_bytes - FOOTER_BYTES;
        let mut footer = [0; RECORD_END_BYTES];
        file.read_exact_at(&mut footer, footer_at)
            .map_err(StoreError::io("read", &segment.path))?;
        Ok(Shipment {
            header,
            footer,
            file,
            at: at + HEADER_BYTES,
            end: footer_at,
        })
    }
}

impl StoreError {
    /// A file was gone when it was to be opened: a compaction has put another in its place.
    pub fn is_gone(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
