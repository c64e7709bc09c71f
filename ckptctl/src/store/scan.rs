// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds out what is in a chain's directory: reads all headers, footers, metas
//! and indexes, no page data, and tells sound records, damage and a torn tail
//! apart by the rules of `docs/format.md` section 5. Changes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use super::damage::Damage;
use super::damage::TornTail;
use super::error::StoreError;
use super::format::BLOCK;
use super::format::HEADER_BYTES;
use super::format::RecordHeader;
use super::record::Place;
use super::record::Record;
use super::record::RecordFile;
use super::segment;
use super::segment::FirstBlock;
use super::segment::Name;
use super::segment_file::FileKind;
use super::segment_file::HELD_MAX;
use super::segment_file::Held;
use super::segment_file::SegmentFile;
use crate::sys::file;
use crate::sys::file::File;

/// What is in a chain's directory.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scan {
    pub chain_id: [u8; 16],
    /// In the order of the files, so by ascending epoch.
    pub records: Vec<Record>,
    pub damage: Vec<Damage>,
    pub torn: Option<TornTail>,
    /// Every segment, ascending; the first one can be a base.
    pub segments: Vec<SegmentFile>,
    /// Where the next record goes in the last segment, when it is sound up to there.
    pub end: Option<u64>,
    /// When it is not: the segment and where in it damage begins, if giving up
    /// what is there from then on would make the end sound.
    pub sound_end: Option<(PathBuf, u64)>,
    /// Highest epoch that any header or footer names.
    pub newest: u64,
    /// Features in use that a writer would have to know.
    pub unknown_to_writers: Option<(PathBuf, u64)>,
    /// Hash of the last record, also of one that was dropped since by compaction: the next
    /// segment says it.
    pub last_hash: [u8; 32],
    /// Names that are segments whose creation was interrupted.
    pub unfinished: Vec<PathBuf>,
    /// Names that are bases that are being made, or whose making was interrupted.
    pub unfinished_bases: Vec<PathBuf>,
    /// Segments and bases in whose place there is a base now.
    pub superseded: Vec<PathBuf>,
    /// Names that are not part of a chain.
    pub strangers: Vec<PathBuf>,
}

impl Scan {
    /// Looks at `dir`; a directory without segments gives a scan without any.
    pub(super) fn of(dir: &Path) -> Result<Scan, StoreError> {
        let mut scan = Scan::default();
        let names = file::list_dir(dir).map_err(StoreError::io("read", dir))?;
        let parsed = names.iter().map(|name| (Name::parse(name), dir.join(name)));
        let base = names.iter().filter_map(|name| match Name::parse(name) {
            Name::Base(number) => Some(number),
            _ => None,
        });
        let base = base.max();
        // The base comes first, because its name does.
        let mut files = Vec::new();
        for (name, path) in parsed {
            match name {
                Name::Segment(number) if Some(number) > base => {
                    files.push((number, path, FileKind::Segment));
                }
                Name::Base(number) if Some(number) == base => {
                    files.push((number, path, FileKind::Base(None)));
                }
                Name::Segment(_) | Name::Base(_) => scan.superseded.push(path),
                Name::Unfinished => scan.unfinished.push(path),
                Name::UnfinishedBase => scan.unfinished_bases.push(path),
                Name::Beside => {}
                Name::Stranger => scan.strangers.push(path),
            }
        }
        scan.read_segments(dir, files)?;
        scan.settle();
        Ok(scan)
    }

    fn read_segments(
        &mut self,
        dir: &Path,
        files: Vec<(u64, PathBuf, FileKind)>,
    ) -> Result<(), StoreError> {
        let mut first_blocks = Vec::new();
        for (number, path, kind) in files {
            let file = File::open(&path).map_err(StoreError::io("open", &path))?;
            let len = file.len_bytes().map_err(StoreError::io("measure", &path))?;
            let mut block = vec![0; len.min(BLOCK) as usize];
            file.read_exact_at(&mut block, 0)
                .map_err(StoreError::io("read", &path))?;
            let block = FirstBlock::parse(&block).map_err(|what| StoreError::Unsupported {
                file: path.clone(),
                what,
            })?;
            let features = block
                .header
                .map_or(0, |header| header.features_incompat.get());
            let kind = match kind {
                FileKind::Segment => kind,
                FileKind::Base(_) => FileKind::Base(block.base),
            };
            let mut segment = SegmentFile {
                number,
                path,
                len,
                features,
                kind,
                held: Held::default(),
            };
            if self.segments.len() < HELD_MAX {
                segment.held.hold(file);
            }
            self.segments.push(segment);
            first_blocks.push(block);
        }
        // Without any header, the records say which chain they are of.
        let chain_id = first_blocks
            .iter()
            .find_map(|block| Some(block.header?.chain_id));
        self.chain_id = match chain_id {
            Some(id) => id,
            None => self.chain_id_from_records()?,
        };
        let mut expected = match self.segments.first() {
            Some(first) if first.is_base() => first.number,
            _ => 1,
        };
        for (i, block) in first_blocks.iter().enumerate() {
            let number = self.segments[i].number;
            if number > expected {
                self.add_missing(dir, expected, number - expected);
            }
            expected = number + 1;
            self.read_segment(i, block)?;
        }
        if self.segments.last().is_some_and(SegmentFile::is_base) {
            // Whoever made it left the last segment alone.
            self.add_missing(dir, expected, 1);
            self.end = None;
            self.sound_end = None;
        }
        Ok(())
    }

    fn add_missing(&mut self, dir: &Path, first: u64, count: u64) {
        let what = match count {
            1 => "this segment is missing".into(),
            more => format!("this segment and the {} after it are missing", more - 1),
        };
        self.add_damage(&dir.join(segment::name(first)), 0, what, vec![]);
    }

    fn chain_id_from_records(&self) -> Result<[u8; 16], StoreError> {
        for segment in &self.segments {
            let file = segment.open()?;
            for offset in (BLOCK..segment.len).step_by(BLOCK as usize) {
                let mut bytes = vec![0; HEADER_BYTES.min(segment.len - offset) as usize];
                file.read_exact_at(&mut bytes, offset)
                    .map_err(StoreError::io("read", &segment.path))?;
                let own = RecordHeader::parse(&bytes).filter(|header| {
                    header.offset.get() == offset && header.segment.get() == segment.number
                });
                if let Some(header) = own {
                    return Ok(header.chain_id);
                }
            }
        }
        Ok([0; 16])
    }

    fn read_segment(&mut self, i: usize, block: &FirstBlock) -> Result<(), StoreError> {
        let SegmentFile {
            number,
            path,
            len,
            kind,
            ..
        } = self.segments[i].clone();
        let is_base = self.segments[i].is_base();
        let last = i + 1 == self.segments.len();
        let begins = i == 0 && (number == 1 || is_base);
        let follows = begins || i > 0 && self.segments[i - 1].number + 1 == number;
        let mut previous_is_sound = follows && (i == 0 || self.end.is_some());
        let first_record = self.records.len();
        let damage_before = self.damage.len();
        if let Some(header) = &block.header {
            if header.chain_id != self.chain_id
                || header.segment.get() != number
                || header.is_base() != is_base
                || block
                    .base
                    .is_some_and(|base| base.last_segment.get() != number)
            {
                let what = "its header says that it is another segment, or of another chain";
                self.add_damage(&path, 0, what.into(), vec![]);
                self.end = None;
                self.sound_end = None;
                return Ok(());
            }
            if let Some(at) = block.damaged_at {
                self.add_damage(
                    &path,
                    at,
                    "a byte of its first block is wrong".into(),
                    vec![],
                );
            }
            if header.features_ro_compat.get() != 0 {
                self.unknown_to_writers = Some((path.clone(), header.features_ro_compat.get()));
            }
            if i > 0 && previous_is_sound {
                previous_is_sound =
                    self.check_seal(i - 1, header.prev_len.get(), &header.prev_hash);
            }
        }
        let record_file = RecordFile {
            file: &*self.segments[i].open()?,
            path: &path,
            len,
            number,
            chain_id: self.chain_id,
            base: is_base,
        };
        self.walk(&record_file, last)?;
        if let FileKind::Base(Some(base)) = kind {
            let sound = self.damage.len() == damage_before
                || block.damaged_at.is_some() && self.damage.len() == damage_before + 1;
            self.check_base(i, &base, first_record, sound);
        }
        if block.header.is_none() {
            let what = "both copies of its header are damaged, so what is in it cannot be used";
            let mut hit = Vec::new();
            for record in &mut self.records[first_record..] {
                record.sound = false;
                hit.push(record.info.epoch);
            }
            self.add_damage(&path, 0, what.into(), hit);
            self.end = None;
            self.sound_end = None;
        } else if self.end == Some(BLOCK) && !previous_is_sound {
            // The last record of the chain is in an earlier segment, and not sound.
            self.end = None;
            self.sound_end = None;
        }
        Ok(())
    }

    /// Goes over the records of a segment. Leaves in `end` where the next record
    /// goes if all is well there.
    fn walk(&mut self, file: &RecordFile<'_>, last: bool) -> Result<(), StoreError> {
        let mut at = BLOCK;
        self.end = Some(at);
        self.sound_end = Some((file.path.to_owned(), at));
        while at < file.len {
            let header = match file.header_at(at)? {
                Place::Intact(header) => header,
                place => match self.step_over(file, at, &place, last)? {
                    Some(next) => {
                        at = next;
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            let epoch = header.epoch.get();
            let end = at.saturating_add(header.total_len.get());
            let footer = if end <= file.len {
                Some(file.footer_before(end)?)
            } else {
                None
            };
            let checked = match footer {
                None | Some(Place::Zero) if last && end >= file.len => {
                    self.torn = Some(file.torn(at, Some(epoch)));
                    return Ok(());
                }
                _ if epoch <= self.newest => Err((
                    at,
                    format!("epoch {epoch} stands behind epoch {}", self.newest),
                )),
                None => Err((file.len, format!("it ends in the middle of epoch {epoch}"))),
                Some(footer) => file.check(&header, &footer)?,
            };
            match checked {
                Ok(record) => {
                    self.last_hash = record.info.hash;
                    self.records.push(record);
                    self.end = Some(end);
                    self.sound_end = Some((file.path.to_owned(), end));
                }
                Err((offset, what)) => {
                    self.end = None;
                    let known = epoch <= self.newest;
                    if !known {
                        self.last_hash = [0; 32];
                        self.records.push(Record::new(&header, None));
                    }
                    let hit = if known { vec![] } else { vec![epoch] };
                    self.add_damage(file.path, offset, what, hit);
                }
            }
            self.newest = self.newest.max(epoch);
            at = end;
        }
        Ok(())
    }

    /// Handles a place without an intact header: a torn tail (`None`), or damage
    /// and where the walk goes on.
    fn step_over(
        &mut self,
        file: &RecordFile<'_>,
        at: u64,
        place: &Place<RecordHeader>,
        last: bool,
    ) -> Result<Option<u64>, StoreError> {
        let short = file.len - at < HEADER_BYTES;
        if last && short {
            self.torn = Some(file.torn(at, None));
            return Ok(None);
        }
        let next = file.next_intact(at)?;
        if last && next.is_none() && matches!(place, Place::Zero) {
            self.torn = Some(file.torn(at, None));
            return Ok(None);
        }
        self.end = None;
        let hit = next
            .iter()
            .filter_map(|next| next.ended_epoch)
            .collect::<Vec<_>>();
        for &epoch in &hit {
            self.newest = self.newest.max(epoch);
        }
        let what = match (&next, place) {
            (_, Place::Zero) => "zeros stand where a record should begin",
            _ if short => "it is cut off in the middle of a record's header",
            _ => "the header of a record is damaged",
        };
        self.add_damage(file.path, at, what.into(), hit);
        Ok(next.map(|next| next.at))
    }

    pub(super) fn add_damage(&mut self, file: &Path, offset: u64, what: String, hit: Vec<u64>) {
        self.damage.push(Damage {
            file: file.to_owned(),
            offset,
            what,
            lost: hit,
        });
    }

    /// Follows the links from record to parent, and from damage to what it costs.
    fn settle(&mut self) {
        let mut by_epoch = HashMap::new();
        let known_lost: Vec<u64> = self
            .damage
            .iter()
            .flat_map(|damage| damage.lost.clone())
            .collect();
        for i in 0..self.records.len() {
            let record = &self.records[i];
            let (epoch, at) = (record.info.epoch, record.info.offset);
            if let (true, Some(parent)) = (record.sound, record.info.parent) {
                let broken_link = match by_epoch.get(&parent).map(|&j: &usize| &self.records[j]) {
                    None if known_lost.contains(&parent) => None,
                    None => Some(format!(
                        "epoch {parent}, on which epoch {epoch} builds, is missing"
                    )),
                    Some(parent) if !parent.sound => None,
                    Some(parent)
                        if parent.info.hash == record.parent_hash
                            && parent.info.page_shift == record.info.page_shift =>
                    {
                        None
                    }
                    Some(_) => Some(format!(
                        "epoch {epoch} does not build on this epoch {parent}"
                    )),
                };
                if let Some(what) = broken_link {
                    let path = self.path_of(record.info.segment).to_owned();
                    self.records[i].sound = false;
                    self.add_damage(&path, at, what, vec![epoch]);
                }
            } else if record.sound && record.parent_hash != [0; 32] {
                let what = format!("epoch {epoch} has no parent, but the hash of one");
                let path = self.path_of(record.info.segment).to_owned();
                self.records[i].sound = false;
                self.add_damage(&path, at, what, vec![epoch]);
            }
            by_epoch.entry(epoch).or_insert(i);
        }
        for record in &mut self.records {
            record.info.restorable = record.sound;
        }
        for i in 0..self.records.len() {
            let parent = self.records[i].info.parent;
            let parent_restorable = parent.is_none_or(|parent| {
                by_epoch
                    .get(&parent)
                    .is_some_and(|&j| self.records[j].info.restorable)
            });
            self.records[i].info.restorable &= parent_restorable;
        }
        for i in 0..self.damage.len() {
            self.damage[i].lost = descendants(&self.records, &self.damage[i].lost);
        }
    }

    /// A segment that has records.
    pub(super) fn segment(&self, number: u64) -> &SegmentFile {
        let i = self
            .segments
            .partition_point(|segment| segment.number < number);
        &self.segments[i]
    }

    /// The file of a segment that has records.
    pub(super) fn path_of(&self, number: u64) -> &Path {
        &self.segment(number).path
    }

    /// The last segment that there is a base for.
    pub(super) fn base(&self) -> Option<u64> {
        let first = self.segments.first()?;
        first.is_base().then_some(first.number)
    }

    /// Lets go of files that compaction may have removed, so that their room is free.
    pub(super) fn release_files(&mut self) {
        for segment in &mut self.segments {
            segment.held = Held::default();
        }
    }
}

/// The epochs in `roots` and all that descend from them, ascending.
pub(super) fn descendants(records: &[Record], roots: &[u64]) -> Vec<u64> {
    let mut lost: std::collections::BTreeSet<u64> = roots.iter().copied().collect();
    for record in records {
        if record
            .info
            .parent
            .is_some_and(|parent| lost.contains(&parent))
        {
            lost.insert(record.info.epoch);
        }
    }
    lost.into_iter().collect()
}
