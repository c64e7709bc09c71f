// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a base: one file in place of many segments.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::append;
use super::super::append::Position;
use super::super::chain::Chain;
use super::super::error::StoreError;
use super::super::format::BLOCK;
use super::super::format::BaseFields;
use super::super::format::BaseHeader;
use super::super::format::FEATURE_BASE;
use super::super::format::Kind;
use super::super::format::SegmentFields;
use super::super::format::SegmentHeader;
use super::super::known::Known;
use super::super::opening;
use super::super::record::Record;
use super::super::seals::records_hash;
use super::super::segment;
use super::super::segment::FirstBlock;
use super::super::writer;
use super::super::writer::Options;
use super::keep::Decision;
use super::merge::Merger;
use super::pages::Reader;
use crate::sys::file;
use crate::sys::file::File;

/// A base that is whole and on the disk, under a name that nobody takes for one.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    name: PathBuf,
    /// Nobody shall remove it any more.
    placed: bool,
}

impl Unfinished {
    /// Writes the kept epochs of the segments up to number `through`, and syncs.
    pub(super) fn write(
        chain: &Chain,
        decision: &Decision,
        through: u64,
        options: &Options,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Unfinished, StoreError> {
        let name = chain.dir.join(segment::base_name(through));
        let path = chain
            .dir
            .join(segment::base_name(through) + segment::UNFINISHED);
        // From here on, what was begun is removed when it is dropped.
        let unfinished = Unfinished {
            path,
            name,
            placed: false,
        };
        let path = &unfinished.path;
        let file = Arc::new(File::create(path).map_err(StoreError::io("create", path))?);
        file.truncate(0).map_err(StoreError::io("truncate", path))?;
        let mut records: Vec<Record> = Vec::new();
        let mut end = BLOCK;
        let mut reader = Reader::new(chain);
        let mut merger = Merger::new(chain);
        let mut known = match options.share {
            true => Some(Known::new().map_err(StoreError::io("get random bytes for", path))?),
            false => None,
        };
        for (&epoch, &parent) in &decision.kept {
            let merged = merger.step(epoch, parent)?;
            let mut meta = chain.get(epoch)?;
            meta.parent = parent;
            let hash_of = |epoch| chain.restorable(epoch).map(|record| record.info.hash);
            let position = Position {
                chain_id: chain.chain_id(),
                segment: through,
                offset: end,
                parent_hash: parent.map(hash_of).transpose()?.unwrap_or_default(),
                stands_for: Some(hash_of(epoch)?),
            };
            let known = known.as_mut();
            let record = append::append(&file, &meta, &position, options, known, |sink| {
                reader.copy(&merged, sink, on_bytes)
            })?;
            end += record.info.stored_bytes;
            records.push(record);
        }
        let block = first_block(chain, through, end, &records, options)?;
        file.write_all_at(&block, 0)
            .map_err(StoreError::io("write", path))?;
        file.sync_data().map_err(StoreError::io("sync", path))?;
        Ok(unfinished)
    }

    /// Gives it its name: from then on it stands for the segments.
    pub(super) fn place(mut self) -> Result<(), StoreError> {
        file::rename(&self.path, &self.name).map_err(StoreError::io("rename", &self.path))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed does no harm: the next writer or compactor removes it.
            let _ = opening::remove(&self.path);
        }
    }
}

fn first_block(
    chain: &Chain,
    through: u64,
    own_len: u64,
    records: &[Record],
    options: &Options,
) -> Result<Vec<u8>, StoreError> {
    let next = next_header(&chain.dir, through)?;
    let kinds = records.iter().map(|record| record.info.kind);
    let features = kinds.fold(options.features(Kind::Commit), |all, kind| {
        all | options.features(kind)
    });
    let header = SegmentHeader::new(&SegmentFields {
        features_incompat: FEATURE_BASE | features,
        chain_id: chain.chain_id(),
        segment: through,
        created_ns: writer::now_ns(),
        prev_len: 0,
        prev_hash: [0; 32],
    });
    let inside = chain.commits().filter(|commit| commit.segment <= through);
    let before = chain.scan.segments.first().and_then(|first| first.base());
    let newest = inside.map(|commit| commit.epoch).max().unwrap_or(0);
    let base = BaseHeader::new(&BaseFields {
        last_segment: through,
        last_len: next.prev_len.get(),
        last_hash: next.prev_hash,
        newest: newest.max(before.map_or(0, |base| base.newest.get())),
        own_len,
        records_hash: records_hash(records),
    });
    Ok(segment::first_block(&header, Some(&base)))
}

/// The header of the first segment that stays, which says how what is before it ends.
fn next_header(dir: &Path, through: u64) -> Result<SegmentHeader, StoreError> {
    let path = dir.join(segment::name(through + 1));
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let mut block = vec![0; BLOCK as usize];
    file.read_exact_at(&mut block, 0)
        .map_err(StoreError::io("read", &path))?;
    let unsupported = |what| StoreError::Unsupported {
        file: path.clone(),
        what,
    };
    let block = FirstBlock::parse(&block).map_err(unsupported)?;
    block
        .header
        .ok_or_else(|| unsupported("has no header that can be read".into()))
}
