// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keeping up with a chain that somebody else writes.

use super::chain::Chain;
use super::error::StoreError;
use super::format::HEADER_BYTES;
use super::look::look;
use super::record::Place;
use super::record::Record;
use super::record::RecordFile;
use super::segment::Name;
use crate::sys::file;

impl Chain {
    /// Takes in what was appended since the chain was opened or this was called last. Costs what
    /// was appended, unless a segment was begun or the chain compacted: then as opening does.
    ///
    /// What is told is in the file. Whether it is on the disk only the writer knows, until
    /// [`Chain::sync_end`] was called.
    ///
    /// # Errors
    ///
    /// As [`Chain::open`].
    pub fn follow(&mut self) -> Result<(), StoreError> {
        if self.is_the_same_files()? && self.follow_last()? {
            return Ok(());
        }
        let scan = look(&self.dir)?;
        if scan.segments.is_empty() {
            let dir = self.dir.clone();
            return Err(StoreError::NoChain { dir });
        }
        self.scan = scan;
        Ok(())
    }

    /// Sees to it that all that was told is on the disk.
    pub fn sync_end(&self) -> Result<(), StoreError> {
        let Some(last) = self.scan.segments.last() else {
            return Ok(());
        };
        let synced = last.open()?.sync_data();
        synced.map_err(StoreError::io("sync", &last.path))
    }

    /// No segment was begun, and none replaced.
    fn is_the_same_files(&self) -> Result<bool, StoreError> {
        let names = file::list_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        let last = self.scan.segments.last().map(|segment| segment.number);
        let base = self.scan.base();
        Ok(names.iter().all(|name| match Name::parse(name) {
            Name::Segment(number) => Some(number) <= last,
            Name::Base(number) => Some(number) <= base,
            _ => true,
        }))
    }

    /// Reads what stands behind the end; false when it takes another look to make sense of it.
    fn follow_last(&mut self) -> Result<bool, StoreError> {
        let (Some(last), Some(mut at)) = (self.scan.segments.last().cloned(), self.scan.end) else {
            return Ok(false);
        };
        let file = last.open()?;
        let len = file
            .len_bytes()
            .map_err(StoreError::io("measure", &last.path))?;
        if len < at {
            return Ok(false);
        }
        let file = RecordFile {
            file: &file,
            path: &last.path,
            len,
            number: last.number,
            chain_id: self.scan.chain_id,
            base: false,
        };
        while let Some(record) = whole_record_at(&file, at)? {
            if !self.continues(&record) {
                return Ok(false);
            }
            at += record.info.stored_bytes;
            let scan = &mut self.scan;
            scan.newest = record.info.epoch;
            scan.last_hash = record.info.hash;
            scan.records.push(record);
            scan.end = Some(at);
            if let Some(last) = scan.segments.last_mut() {
                last.len = at;
            }
            scan.torn = None;
        }
        Ok(true)
    }

    /// Whether a record can stand behind those that are there.
    fn continues(&self, record: &Record) -> bool {
        record.info.epoch > self.scan.newest
            && match record.info.parent {
                None => record.parent_hash == [0; 32],
                Some(parent) => self.record(parent).is_some_and(|parent| {
                    parent.info.restorable
                        && parent.info.hash == record.parent_hash
                        && parent.info.page_shift == record.info.page_shift
                }),
            }
    }
}

/// The record that begins at a place, if all of it is there and in order. What is not may be
/// half written.
fn whole_record_at(file: &RecordFile<'_>, at: u64) -> Result<Option<Record>, StoreError> {
    if file.len.saturating_sub(at) < HEADER_BYTES {
        return Ok(None);
    }
    let Place::Intact(header) = file.header_at(at)? else {
        return Ok(None);
    };
    let end = at.saturating_add(header.total_len.get());
    if end > file.len {
        return Ok(None);
    }
    let footer = file.footer_before(end)?;
    Ok(file.check(&header, &footer)?.ok())
}
