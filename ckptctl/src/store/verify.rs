// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads every byte of a chain and finds what is not as it was written, and
//! which epochs that costs.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use super::chain::Chain;
use super::codec::Codec;
use super::codec::is_zero;
use super::damage::Damage;
use super::damage::TornTail;
use super::error::StoreError;
use super::format::FOOTER_BYTES;
use super::format::HEADER_BYTES;
use super::index::Run;
use super::loader;
use super::page_map::PageMap;
use super::record::Record;
use super::record::RecordFile;
use super::run_reader::OpenSegment;
use super::run_reader::RunBuffers;
use super::scan::descendants;

/// What became of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of segments.
    pub segments: usize,
    /// Bytes in all segments, all of them checked.
    pub bytes: u64,
    /// Pages whose stored bytes were checked.
    pub pages: u64,
    /// Every damage, in the order in which it was found.
    pub damage: Vec<Damage>,
    /// The trace of an append that was interrupted, or is going on. No damage.
    pub torn: Option<TornTail>,
    /// Epochs that can be restored, ascending.
    pub restorable: Vec<u64>,
    /// Epochs that are known and cannot be restored, ascending.
    pub lost: Vec<u64>,
    /// Segments whose creation was interrupted. No damage.
    pub unfinished: Vec<PathBuf>,
    /// Files in the directory that are not part of the chain. No damage.
    pub strangers: Vec<PathBuf>,
}

/// A run whose bytes are damaged.
#[derive(Debug)]
struct LostRun {
    /// The epoch of its record.
    epoch: u64,
    pages: Range<u64>,
    /// Which damage names it.
    damage: usize,
}

impl Chain {
    /// Checks all of the chain as it was when it was opened. `progress` is told
    /// how many bytes of how many are done.
    ///
    /// # Errors
    ///
    /// Damage is no error, but what this is for. [`StoreError::Io`] when a file
    /// cannot be opened, or an index that could be read before cannot any more.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Report, StoreError> {
        let total = self.bytes();
        let mut check = Check {
            chain: self,
            damage: self.damage().to_vec(),
            lost_runs: Vec::new(),
            pages: 0,
            buffers: RunBuffers::default(),
        };
        let mut done = 0;
        let mut segment = OpenSegment::default();
        progress(0, total);
        for record in self.scan.records.iter().filter(|record| record.sound) {
            let file = segment.of(self, record.info.segment)?;
            check.record(&self.record_file(record, file), record)?;
            done += record.info.stored_bytes;
            progress(done, total);
        }
        check.references()?;
        check.charge_lost_runs()?;
        progress(total, total);

        let lost: BTreeSet<u64> = check
            .damage
            .iter()
            .flat_map(|damage| damage.lost.iter().copied())
            .collect();
        let known = self.commits().map(|commit| commit.epoch);
        Ok(Report {
            segments: self.segments(),
            bytes: total,
            pages: check.pages,
            torn: self.torn().cloned(),
            restorable: known.filter(|epoch| !lost.contains(epoch)).collect(),
            lost: lost.into_iter().collect(),
            damage: check.damage,
            unfinished: self.scan.unfinished.clone(),
            strangers: self.scan.strangers.clone(),
        })
    }
}

/// The work in hand.
struct Check<'a> {
    chain: &'a Chain,
    damage: Vec<Damage>,
    lost_runs: Vec<LostRun>,
    pages: u64,
    buffers: RunBuffers,
}

impl Check<'_> {
    /// Reads all bytes of a sound record.
    fn record(&mut self, file: &RecordFile<'_>, record: &Record) -> Result<(), StoreError> {
        let header = &record.header;
        let start = record.info.offset;
        let found_before = self.damage.len();
        let mut hasher = blake3::Hasher::new();
        let runs = match file.runs(header)? {
            Ok(runs) => runs,
            Err((offset, what)) => {
                self.found(file, offset, what, self.descendants(record));
                return Ok(());
            }
        };
        let layout = header.layout();
        let index_off = header.index_off.get();
        hasher.update(&file.read(start + HEADER_BYTES, layout.meta_len)?);
        for run in runs.iter().filter(|run| run.codec.has_data()) {
            self.run(file, record, run)?;
            hasher.update(self.buffers.stored());
            self.pages += u64::from(run.pages);
        }
        let data_end = layout.data_off() + layout.data_len;
        self.pad(file, record, data_end..index_off, &mut hasher)?;
        hasher.update(&file.read(start + index_off, layout.index_len)?);
        let index_end = index_off + layout.index_len;
        let footer_off = header.total_len.get() - FOOTER_BYTES;
        self.pad(file, record, index_end..footer_off, &mut hasher)?;
        let unexplained = self.damage.len() == found_before;
        if unexplained && *hasher.finalize().as_bytes() != record.body_hash {
            let what = format!("epoch {}: its content has another hash", record.info.epoch);
            self.found(file, start + HEADER_BYTES, what, self.descendants(record));
        }
        Ok(())
    }

    fn run(&mut self, file: &RecordFile<'_>, record: &Record, run: &Run) -> Result<(), StoreError> {
        let offset = record.info.offset + run.data_off;
        let read = self
            .buffers
            .read(file.file, offset, run, record.info.page_shift);
        let what = match read {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(what)) => what,
            // A bad block is damage like any other; the rest is still looked at.
            Err(error) => format!("{} cannot be read: {error}", run.name()),
        };
        self.lost_runs.push(LostRun {
            epoch: record.info.epoch,
            pages: run.pgoff..run.end(),
            damage: self.damage.len(),
        });
        let what = format!("epoch {}: {what}", record.info.epoch);
        self.found(file, offset, what, vec![]);
        Ok(())
    }

    /// Checks that a part of a record that means nothing is zero.
    fn pad(
        &mut self,
        file: &RecordFile<'_>,
        record: &Record,
        range: Range<u64>,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), StoreError> {
        let offset = record.info.offset + range.start;
        let pad = file.read(offset, range.end - range.start)?;
        hasher.update(&pad);
        if let (false, Some(at)) = (is_zero(&pad), pad.iter().position(|&byte| byte != 0)) {
            let what = format!("epoch {}: unused bytes are not zero", record.info.epoch);
            self.found(file, offset + at as u64, what, vec![]);
        }
        Ok(())
    }

    /// Checks that what records say is like pages of their parents is there. Loading an epoch
    /// fails otherwise, and so does loading what descends from it.
    fn references(&mut self) -> Result<(), StoreError> {
        let records = &self.chain.scan.records;
        let refers = |record: &Record| record.header.shared_pages.get() > 0;
        if !records.iter().any(refers) {
            return Ok(());
        }
        let mut lost = BTreeSet::new();
        let mut segment = OpenSegment::default();
        // Of the record before, and which that was.
        let (mut image, mut at) = (PageMap::default(), None);
        for record in records.iter().filter(|record| record.info.restorable) {
            let (epoch, parent) = (record.info.epoch, record.info.parent);
            if parent.is_some_and(|parent| lost.contains(&parent)) {
                lost.insert(epoch);
                continue;
            }
            let lineage: Vec<&Record> = match parent {
                _ if parent == at && at.is_some() => vec![record],
                _ => {
                    image = PageMap::default();
                    self.chain.lineage(epoch).collect()
                }
            };
            at = Some(epoch);
            for record in lineage.into_iter().rev() {
                let file = segment.of(self.chain, record.info.segment)?;
                let file = self.chain.record_file(record, file);
                // What cannot be read was found already.
                let Ok(runs) = file.runs(&record.header)? else {
                    at = None;
                    break;
                };
                let parent = record
                    .info
                    .parent
                    .and_then(|parent| self.chain.find(parent));
                let parent_len_pages = parent.map_or(0, |parent| parent.arena_len_pages);
                if let Err(dangling) = image.apply(&runs, parent_len_pages, |_| ()) {
                    let (offset, what) = loader::dangling_reference(record, dangling);
                    self.found(&file, offset, what, self.descendants(record));
                    lost.insert(epoch);
                    at = None;
                }
            }
        }
        Ok(())
    }

    fn descendants(&self, record: &Record) -> Vec<u64> {
        descendants(&self.chain.scan.records, &[record.info.epoch])
    }

    fn found(&mut self, file: &RecordFile<'_>, offset: u64, what: String, lost: Vec<u64>) {
        self.damage.push(Damage {
            file: file.path.to_owned(),
            offset,
            what,
            lost,
        });
    }

    /// Finds out which epochs still have pages of damaged runs: the record's own,
    /// and each descendant until all the pages were written anew.
    fn charge_lost_runs(&mut self) -> Result<(), StoreError> {
        if self.lost_runs.is_empty() {
            return Ok(());
        }
        let mut remainders: HashMap<u64, Vec<Remainder>> = HashMap::new();
        let mut segment = OpenSegment::default();
        let restorable = |record: &&Record| record.info.restorable;
        for record in self.chain.scan.records.iter().filter(restorable) {
            let epoch = record.info.epoch;
            let parent = record
                .info
                .parent
                .and_then(|parent| remainders.get(&parent));
            let mut mine = parent.cloned().unwrap_or_default();
            let mut own = self
                .lost_runs
                .iter()
                .filter(|lost| lost.epoch == epoch)
                .peekable();
            let mut runs = Vec::new();
            if !mine.is_empty() || own.peek().is_some() {
                let file = segment.of(self.chain, record.info.segment)?;
                let read = self.chain.record_file(record, file).runs(&record.header)?;
                runs = read.unwrap_or_default();
                mine = mine
                    .into_iter()
                    .map(|remainder| remainder.after(&runs))
                    .collect();
            }
            let own = own.map(|lost| Remainder {
                damage: lost.damage,
                pages: vec![lost.pages.clone()],
            });
            mine.extend(own.map(|remainder| remainder.shared_by(&runs)));
            mine.retain(|remainder| !remainder.pages.is_empty());
            for Remainder { damage, pages } in &mine {
                // A page beyond the arena of this epoch is not part of it.
                if pages
                    .iter()
                    .any(|range| range.start < record.info.arena_len_pages)
                {
                    self.damage[*damage].lost.push(epoch);
                }
            }
            if !mine.is_empty() {
                remainders.insert(epoch, mine);
            }
        }
        Ok(())
    }
}

/// What an epoch still has of a damaged run.
#[derive(Clone, Debug)]
struct Remainder {
    /// Which damage names the run.
    damage: usize,
    /// Disjoint.
    pages: Vec<Range<u64>>,
}

impl Remainder {
    /// What an epoch has of it, with these runs, when its parent has this much.
    fn after(mut self, runs: &[Run]) -> Remainder {
        let references = runs.iter().filter(|run| run.codec == Codec::Parent);
        let copies: Vec<_> = references.flat_map(|run| self.copies(run)).collect();
        for run in runs {
            subtract(&mut self.pages, &(run.pgoff..run.end()));
        }
        self.pages.extend(copies);
        self
    }

    /// What the epoch of the damaged run has of it.
    fn shared_by(mut self, runs: &[Run]) -> Remainder {
        let references = runs.iter().filter(|run| run.codec == Codec::Here);
        let copies: Vec<_> = references.flat_map(|run| self.copies(run)).collect();
        self.pages.extend(copies);
        self
    }

    /// The pages that a reference makes like some of these.
    fn copies(&self, reference: &Run) -> Vec<Range<u64>> {
        let from = reference.referred();
        let there = |page: u64| page - from.start + reference.pgoff;
        let hit = self
            .pages
            .iter()
            .map(|range| range.start.max(from.start)..range.end.min(from.end));
        hit.filter(|range| !range.is_empty())
            .map(|range| there(range.start)..there(range.end))
            .collect()
    }
}

/// Takes a range out of disjoint ranges.
fn subtract(ranges: &mut Vec<Range<u64>>, gone: &Range<u64>) {
    if !ranges
        .iter()
        .any(|range| range.start < gone.end && gone.start < range.end)
    {
        return;
    }
    *ranges = ranges
        .iter()
        .flat_map(|range| {
            let before = range.start..range.end.min(gone.start);
            let after = range.start.max(gone.end)..range.end;
            [before, after]
        })
        .filter(|range| !range.is_empty())
        .collect();
}

#[cfg(test)]
mod tests {
    use super::subtract;

    #[test]
    fn what_is_written_anew_is_taken_out_of_what_was_lost() {
        let after = |gone| {
            let mut ranges = vec![2..6, 8..9];
            subtract(&mut ranges, &gone);
            ranges
        };
        assert_eq!(after(0..2), [2..6, 8..9]);
        assert_eq!(after(0..3), [3..6, 8..9]);
        assert_eq!(after(3..4), [2..3, 4..6, 8..9]);
        assert_eq!(after(5..9), vec![2..5; 1]);
        assert_eq!(after(0..20), []);
        assert_eq!(after(6..8), [2..6, 8..9]);
    }
}
