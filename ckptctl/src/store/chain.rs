// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reading side of a chain.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::damage::Damage;
use super::damage::EpochRanges;
use super::damage::TornTail;
use super::error::StoreError;
use super::loader::Loader;
use super::look::look;
use super::meta::CommitMeta;
use super::record::CommitInfo;
use super::record::Record;
use super::record::RecordFile;
use super::run_reader::OpenSegment;
use super::scan::Scan;
use crate::sys::file::File;

/// A chain, as it was when it was opened. Reading takes no lock and changes
/// nothing; a writer may append at the same time, and a compactor may replace files: it keeps
/// the first 256 of its files open, so that what they hold can be read as long as it lives.
///
/// Damage does not keep a chain from being opened: what is wrong is told by
/// [`Chain::damage`], and what depends on it is refused.
#[derive(Debug)]
pub struct Chain {
    pub(super) dir: PathBuf,
    pub(super) scan: Scan,
}

impl Chain {
    /// Opens the chain in a directory: reads headers, footers, metas and
    /// indexes, no page data.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoChain`], [`StoreError::Unsupported`], [`StoreError::Io`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Chain, StoreError> {
        let dir = dir.into();
        match look(&dir) {
            Ok(scan) if !scan.segments.is_empty() => Ok(Chain { dir, scan }),
            Err(StoreError::Io { source, path, .. })
                if path == dir
                    && matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
            {
                Err(StoreError::NoChain { dir })
            }
            Ok(_) => Err(StoreError::NoChain { dir }),
            Err(error) => Err(error),
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The random id that all its segments bear.
    pub fn chain_id(&self) -> [u8; 16] {
        self.scan.chain_id
    }

    /// All commits whose headers can be read, by ascending epoch, also those
    /// that are not restorable any more.
    pub fn commits(&self) -> impl DoubleEndedIterator<Item = &CommitInfo> + ExactSizeIterator {
        self.scan.records.iter().map(|record| &record.info)
    }

    /// The commit of an epoch, if its header can be read.
    pub fn find(&self, epoch: u64) -> Option<&CommitInfo> {
        self.record(epoch).map(|record| &record.info)
    }

    /// The newest commit; `None` when nothing was committed yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when it cannot be restored, or cannot be told
    /// because the end of the chain is damaged: an older epoch is never given
    /// for the newest.
    pub fn newest(&self) -> Result<Option<&CommitInfo>, StoreError> {
        let newest = self.commits().next_back();
        if self.scan.end.is_none() || newest.is_some_and(|newest| !newest.restorable) {
            if let Some(damage) = self.scan.damage.last() {
                return Err(self.damaged(damage.clone()));
            }
        }
        Ok(newest)
    }

    /// What is damaged, as far as it shows without reading page data.
    pub fn damage(&self) -> &[Damage] {
        &self.scan.damage
    }

    /// The trace of an append that was interrupted, or is going on.
    pub fn torn(&self) -> Option<&TornTail> {
        self.scan.torn.as_ref()
    }

    /// Length of all segments together.
    pub fn bytes(&self) -> u64 {
        self.scan.segments.iter().map(|segment| segment.len).sum()
    }

    /// Length of all segments but the last one, to which a writer appends.
    pub(crate) fn closed_bytes(&self) -> u64 {
        let last = self.scan.segments.last().map_or(0, |last| last.len);
        self.bytes() - last
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.scan.segments.len()
    }

    /// The file that holds a commit of this chain.
    pub fn file_of(&self, commit: &CommitInfo) -> &Path {
        self.scan.path_of(commit.segment)
    }

    /// Everything a commit says about itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchEpoch`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn get(&self, epoch: u64) -> Result<CommitMeta, StoreError> {
        let record = self.restorable(epoch)?;
        let mut segment = OpenSegment::default();
        let file = segment.of(self, record.info.segment)?;
        let (regions, identity) = self
            .record_file(record, file)
            .meta(&record.header)?
            .map_err(|(offset, what)| self.damaged_now(record, offset, what, epoch))?;
        let info = &record.info;
        Ok(CommitMeta {
            epoch,
            parent: info.parent,
            kind: info.kind,
            generation: info.generation,
            time_ns: info.time_ns,
            pause_ns: info.pause_ns,
            arena_base: info.arena_base,
            arena_len_pages: info.arena_len_pages,
            page_shift: info.page_shift,
            regions,
            identity,
        })
    }

    /// Prepares reading the pages of an epoch.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchEpoch`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn load(&self, epoch: u64) -> Result<Loader, StoreError> {
        Loader::new(self, epoch)
    }

    pub(super) fn record(&self, epoch: u64) -> Option<&Record> {
        let records = &self.scan.records;
        let i = records
            .binary_search_by_key(&epoch, |record| record.info.epoch)
            .ok()?;
        Some(&records[i])
    }

    /// The record of an epoch that nothing structural keeps from being restored.
    pub(super) fn restorable(&self, epoch: u64) -> Result<&Record, StoreError> {
        let record = self.record(epoch);
        if let Some(record) = record.filter(|record| record.info.restorable) {
            return Ok(record);
        }
        let culprit = self
            .scan
            .damage
            .iter()
            .find(|damage| damage.lost.contains(&epoch));
        match (culprit, record) {
            (Some(damage), _) => Err(self.damaged(damage.clone())),
            (None, Some(record)) => {
                let what = format!("epoch {epoch} builds on something that is damaged");
                Err(self.damaged_now(record, record.info.offset, what, epoch))
            }
            (None, None) => Err(StoreError::NoSuchEpoch {
                dir: self.dir.clone(),
                epoch,
                oldest: self.commits().next().map(|info| info.epoch),
                newest: self.commits().next_back().map(|info| info.epoch),
            }),
        }
    }

    /// An epoch and those it builds on, newest first.
    pub(super) fn lineage(&self, epoch: u64) -> impl Iterator<Item = &Record> {
        let mut next = Some(epoch);
        std::iter::from_fn(move || {
            let record = self.record(next?)?;
            next = record.info.parent;
            Some(record)
        })
    }

    pub(super) fn record_file<'a>(&'a self, record: &Record, file: &'a File) -> RecordFile<'a> {
        let segment = self.scan.segment(record.info.segment);
        RecordFile {
            file,
            path: &segment.path,
            len: 0,
            number: segment.number,
            chain_id: self.scan.chain_id,
            base: segment.is_base(),
        }
    }

    /// The error for damage that was found only now, in `record` while reading `epoch`.
    pub(super) fn damaged_now(
        &self,
        record: &Record,
        offset: u64,
        what: String,
        epoch: u64,
    ) -> StoreError {
        let file = self.scan.path_of(record.info.segment).to_owned();
        self.damaged(Damage {
            file,
            offset,
            what,
            lost: vec![epoch],
        })
    }

    pub(super) fn damaged(&self, damage: Damage) -> StoreError {
        let dir = self.dir.display();
        let good: Vec<u64> = self
            .commits()
            .filter(|info| info.restorable && !damage.lost.contains(&info.epoch))
            .map(|info| info.epoch)
            .collect();
        let advice = match good.last() {
            Some(newest) => format!(
                "Nothing damaged is handed out. `ckptctl verify {dir}` names all damage; not \
                 touched by this: epochs {}, restore with `ckptctl restore {dir}@{newest} -- CMD`",
                EpochRanges(&good)
            ),
            None => format!("No epoch of {dir} is left; go back to a copy of the directory"),
        };
        StoreError::Damaged {
            damage: Box::new(damage),
            advice,
        }
    }
}
