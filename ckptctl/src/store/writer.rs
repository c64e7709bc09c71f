// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The writing side of a chain.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::append;
use super::append::Position;
use super::chain::Chain;
use super::compression::Compression;
use super::damage::Damage;
use super::damage::TornTail;
use super::error::StoreError;
use super::format::BLOCK;
use super::format::FEATURE_ROLLBACK;
use super::format::FEATURE_SHARED;
use super::format::FEATURE_ZSTD;
use super::format::Kind;
use super::format::SegmentFields;
use super::known;
use super::known::Known;
use super::lock::ParentsLock;
use super::lock::WriterLock;
use super::look::look;
use super::meta::CommitMeta;
use super::opening;
use super::page_sink::PageSink;
use super::record::CommitInfo;
use super::record::Record;
use super::segment;
use super::segment::Name;
use super::segment_file::FileKind;
use super::segment_file::Held;
use super::segment_file::SegmentFile;
use crate::sys::file;
use crate::sys::file::File;
use crate::sys::thread;

/// How a chain is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// A new segment is begun when the last one has reached this length.
    pub segment_bytes: u64,
    /// How pages are compressed.
    pub compression: Compression,
    /// Threads that compress, beside the one that appends. With 0 that one does it itself; so it
    /// does for the first 2 MiB of a record.
    pub threads: usize,
    /// Pages whose content the chain has are not stored again: neither those that did not
    /// change, nor those that are like others. Takes memory, 32 bytes for a page.
    pub share: bool,
}

impl Options {
    /// Most threads that one can ask for.
    pub const THREADS_MAX: usize = 256;
    /// Most threads that there are without asking for more.
    const THREADS_DEFAULT_MAX: usize = 4;

    /// As a chain was written, as far as that shows: with zstd or shared pages when there are
    /// any, so that what is written in place of its records is not larger.
    pub fn as_in(chain: &Chain) -> Options {
        let segments = chain.scan.segments.iter();
        let features = segments.fold(0, |all, segment| all | segment.features);
        Options {
            compression: match features & FEATURE_ZSTD {
                0 => Compression::default(),
                _ => Compression::Zstd(Compression::ZSTD_LEVEL),
            },
            share: features & FEATURE_SHARED != 0,
            ..Options::default()
        }
    }

    /// Incompatible features that a segment must have for a record of this kind.
    pub(super) fn features(&self, kind: Kind) -> u64 {
        let zstd = match self.compression {
            Compression::Zstd(_) => FEATURE_ZSTD,
            Compression::None | Compression::Lz4 => 0,
        };
        let shared = if self.share { FEATURE_SHARED } else { 0 };
        let rollback = match kind {
            Kind::Rollback => FEATURE_ROLLBACK,
            Kind::Commit | Kind::Restore => 0,
        };
        zstd | shared | rollback
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 256 << 20,
            compression: Compression::default(),
            threads: thread::processors()
                .saturating_sub(1)
                .min(Self::THREADS_DEFAULT_MAX),
            share: true,
        }
    }
}

/// What opening a chain for writing found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no chain, now there is an empty one.
    pub created: bool,
    /// An append that never became durable, cut off.
    pub torn: Option<TornTail>,
    /// Segments and bases whose creation was interrupted, and segments that a base stands
    /// for, removed.
    pub removed: Vec<PathBuf>,
    /// Damage that does not hinder writing. It was left as it is.
    pub damage: Vec<Damage>,
}

/// The only writer of a chain, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Writer {
    _lock: WriterLock,
    pub(super) chain: Chain,
    options: Options,
    /// What the chain has, if pages are to be shared.
    known: Option<Known>,
    /// The last segment.
    pub(super) file: Arc<File>,
    /// Where the next record goes in it.
    pub(super) end: u64,
    /// The name of the last segment may not be on the disk yet.
    unnamed: bool,
    /// Something may stand behind `end`.
    pub(super) unfinished: bool,
    poisoned: Option<String>,
}

/// A chain whose files stay as they are.
#[derive(Debug)]
pub struct Settled<'a> {
    /// It.
    pub chain: &'a Chain,
    _lock: ParentsLock,
}

impl Writer {
    /// Opens the chain in a directory, or begins one in a directory that is
    /// empty or not there (its parent must be). What a crash left is cut off;
    /// see [`Recovery`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another writer has it, [`StoreError::Damaged`]
    /// when the end of the chain is damaged, [`StoreError::NotEmpty`],
    /// [`StoreError::Unsupported`], [`StoreError::Io`].
    pub fn open_or_create(
        dir: impl Into<PathBuf>,
        options: Options,
    ) -> Result<(Writer, Recovery), StoreError> {
        let dir = dir.into();
        opening::prepare_dir(&dir)?;
        let lock = WriterLock::take(&dir)?;
        let mut scan = look(&dir)?;
        let mut recovery = Recovery::default();
        if let Some((file, features)) = &scan.unknown_to_writers {
            let what =
                format!("can be read, but not written, without knowing features {features:#x}");
            return Err(StoreError::Unsupported {
                file: file.clone(),
                what,
            });
        }
        for path in std::mem::take(&mut scan.unfinished) {
            file::unlink(&path).map_err(StoreError::io("remove", &path))?;
            recovery.removed.push(path);
        }
        if scan.segments.is_empty() {
            opening::begin(&dir, &mut scan, options.features(Kind::Commit))?;
            recovery.created = true;
        }
        let Some(end) = scan.end else {
            return Err(refuse(Chain { dir, scan }));
        };
        let Some(last) = scan.segments.last_mut() else {
            unreachable!("begun above")
        };
        let file = File::create(&last.path).map_err(StoreError::io("open", &last.path))?;
        if last.len > end {
            file.truncate(end)
                .map_err(StoreError::io("truncate", &last.path))?;
            last.len = end;
        }
        // A writer that was killed may have left its last record and segment in
        // the page cache only; what builds on them must not outlive them.
        if !recovery.created {
            append::write_footer_again(&file, end)?;
            file.sync_data()
                .map_err(StoreError::io("sync", &last.path))?;
        }
        file::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
        opening::remove_leftovers(&dir, &mut scan, &mut recovery.removed)?;
        recovery.torn = scan.torn.take();
        recovery.damage = scan.damage.clone();
        let known = match options.share {
            true => Some(Known::new().map_err(StoreError::io("get random bytes for", &dir))?),
            false => None,
        };
        let writer = Writer {
            _lock: lock,
            chain: Chain { dir, scan },
            options,
            known,
            file: Arc::new(file),
            end,
            unnamed: false,
            unfinished: false,
            poisoned: None,
        };
        Ok((writer, recovery))
    }

    /// The chain, with everything that was appended.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Restores an epoch in up to `threads` threads: hands its pages to `put` as
    /// [`Loader::restore`](super::Loader::restore) does, and remembers them, so that a commit
    /// that builds on it does not store them again.
    ///
    /// # Errors
    ///
    /// As [`Chain::load`] and [`Loader::restore`](super::Loader::restore).
    pub fn restore(
        &mut self,
        epoch: u64,
        threads: usize,
        put: impl Fn(u64, &[u8]) + Sync,
    ) -> Result<(), StoreError> {
        let info = &self.chain.restorable(epoch)?.info;
        let (page_bytes, arena_len_pages) = (1usize << info.page_shift, info.arena_len_pages);
        let loader = self.chain.load(epoch)?;
        let Some(known) = &mut self.known else {
            return loader.restore(threads, put);
        };
        known.begin_anew(loader.pages());
        let key = known.key();
        let learning = Mutex::new(known);
        loader.restore(threads, |pgoff, bytes| {
            let pages = bytes.chunks_exact(page_bytes);
            let digests: Vec<_> = pages.map(|page| known::digest(&key, page)).collect();
            let mut known = learning.lock().unwrap_or_else(PoisonError::into_inner);
            for (pgoff, digest) in (pgoff..).zip(digests) {
                known.set(pgoff, digest);
            }
            drop(known);
            put(pgoff, bytes);
        })?;
        let known = learning
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        known.learnt(epoch, arena_len_pages);
        Ok(())
    }

    /// Appends a commit with its pages; see [`Writer::append_with`].
    pub fn append<'p>(
        &mut self,
        meta: &CommitMeta,
        runs: impl IntoIterator<Item = (u64, &'p [u8])>,
    ) -> Result<&CommitInfo, StoreError> {
        self.append_with(meta, |sink| {
            runs.into_iter()
                .try_for_each(|(pgoff, bytes)| sink.push(pgoff, bytes))
        })
    }

    /// Appends a commit, whose pages `fill` gives. It is durable when this
    /// returns `Ok`. When it fails, the chain is as it was and the next append
    /// can work.
    ///
    /// # Errors
    ///
    /// What `fill` returned; [`StoreError::EpochOrder`]; [`StoreError::NoSuchEpoch`]
    /// or [`StoreError::Damaged`] for the parent; [`StoreError::Invalid`];
    /// [`StoreError::NoSpace`]; [`StoreError::Io`]; [`StoreError::Poisoned`] when
    /// what was written could not be taken back, and from then on.
    pub fn append_with<E: From<StoreError>>(
        &mut self,
        meta: &CommitMeta,
        fill: impl FnOnce(&mut PageSink<'_>) -> Result<(), E>,
    ) -> Result<&CommitInfo, E> {
        self.undo()?;
        self.sync_name()
            .map_err(|error| append::name_full(error, meta.epoch))?;
        // Whoever restores has read what it needed.
        self.chain.scan.release_files();
        let _lock = self.keep_parent(meta.parent)?;
        let parent_hash = self.check(meta.epoch, meta.parent, meta.page_shift)?;
        let features = self.options.features(meta.kind);
        if self.wants_segment(features) {
            self.next_segment(features)
                .map_err(|error| append::name_full(error, meta.epoch))?;
        }
        let Some(last) = self.chain.scan.segments.last() else {
            unreachable!("has one")
        };
        let position = Position {
            chain_id: self.chain.scan.chain_id,
            segment: last.number,
            offset: self.end,
            parent_hash,
            stands_for: None,
        };
        self.unfinished = true;
        let record = match append::append(
            &self.file,
            meta,
            &position,
            &self.options,
            self.known.as_mut(),
            fill,
        ) {
            Ok(record) => record,
            Err(error) => {
                self.undo()?;
                return Err(error);
            }
        };
        Ok(self.appended(record))
    }

    /// Notes a record that is there now.
    pub(super) fn appended(&mut self, record: Record) -> &CommitInfo {
        self.unfinished = false;
        self.end += record.info.stored_bytes;
        let scan = &mut self.chain.scan;
        scan.newest = record.info.epoch;
        scan.last_hash = record.info.hash;
        scan.end = Some(self.end);
        if let Some(last) = scan.segments.last_mut() {
            last.len = self.end;
        }
        let at = scan.records.len();
        scan.records.push(record);
        &scan.records[at].info
    }

    /// Sees to it that the record's parent is not dropped by a compaction before the record is
    /// there. The newest epoch never is, nor what is in the last segment.
    pub(super) fn keep_parent(
        &mut self,
        parent: Option<u64>,
    ) -> Result<Option<ParentsLock>, StoreError> {
        let scan = &self.chain.scan;
        let last_segment = scan.segments.last().map(|segment| segment.number);
        let at_risk = parent.filter(|parent| {
            let record = self.chain.record(*parent).map(|record| &record.info);
            record.is_some_and(|record| {
                Some(record.segment) != last_segment && record.epoch != scan.newest
            })
        });
        if at_risk.is_none() {
            return Ok(None);
        }
        let lock = ParentsLock::wait(&self.chain.dir)?;
        self.refresh()?;
        Ok(Some(lock))
    }

    /// Looks whether the chain was compacted, and if so, what it holds now. What was dropped
    /// is no longer in [`Writer::chain`] then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Damaged`].
    pub fn refresh(&mut self) -> Result<(), StoreError> {
        let dir = &self.chain.dir;
        let names = file::list_dir(dir).map_err(StoreError::io("read", dir))?;
        let base = names.iter().filter_map(|name| match Name::parse(name) {
            Name::Base(number) => Some(number),
            _ => None,
        });
        if base.max() == self.chain.scan.base() {
            return Ok(());
        }
        let mut scan = look(dir)?;
        scan.release_files();
        if scan.end.is_none() {
            let dir = dir.clone();
            return Err(refuse(Chain { dir, scan }));
        }
        if scan.end != Some(self.end) || scan.chain_id != self.chain.scan.chain_id {
            let why = "its files were changed by somebody else".to_owned();
            self.poisoned = Some(why.clone());
            let dir = dir.clone();
            return Err(StoreError::Poisoned { dir, why });
        }
        scan.newest = self.chain.scan.newest;
        self.chain.scan = scan;
        Ok(())
    }

    /// The chain as it is now, which no compaction changes as long as the result lives.
    ///
    /// # Errors
    ///
    /// As [`Writer::refresh`].
    pub fn settled(&mut self) -> Result<Settled<'_>, StoreError> {
        let lock = ParentsLock::wait(&self.chain.dir)?;
        self.refresh()?;
        Ok(Settled {
            chain: &self.chain,
            _lock: lock,
        })
    }

    /// Begins the next segment, so that all records can be compacted.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Poisoned`]. The chain has what it had.
    pub fn close_segment(&mut self) -> Result<(), StoreError> {
        self.undo()?;
        self.sync_name()?;
        self.next_segment(self.options.features(Kind::Commit))
    }

    /// Whether a commit can be appended; the hash it is chained to.
    pub(super) fn check(
        &self,
        epoch: u64,
        parent: Option<u64>,
        page_shift: u32,
    ) -> Result<[u8; 32], StoreError> {
        let newest = self.chain.scan.newest;
        if epoch <= newest {
            let dir = self.chain.dir.clone();
            return Err(StoreError::EpochOrder { dir, epoch, newest });
        }
        let Some(parent) = parent else {
            return Ok([0; 32]);
        };
        let parent = &self.chain.restorable(parent)?.info;
        if parent.page_shift != page_shift {
            let what = format!(
                "its pages have 2^{page_shift} bytes, those of epoch {} have 2^{}: begin a new chain",
                parent.epoch, parent.page_shift
            );
            return Err(StoreError::Invalid { epoch, what });
        }
        Ok(parent.hash)
    }

    /// Whether the next record goes into a new segment: the last one is full, or its header
    /// does not announce what the record may need.
    pub(super) fn wants_segment(&self, features: u64) -> bool {
        let Some(last) = self.chain.scan.segments.last() else {
            unreachable!("has one")
        };
        self.end >= self.options.segment_bytes && self.end > BLOCK || features & !last.features != 0
    }

    pub(super) fn next_segment(&mut self, features: u64) -> Result<(), StoreError> {
        let scan = &mut self.chain.scan;
        let Some(last) = scan.segments.last() else {
            unreachable!("has one")
        };
        let fields = SegmentFields {
            features_incompat: features,
            chain_id: scan.chain_id,
            segment: last.number + 1,
            created_ns: now_ns(),
            prev_len: self.end,
            prev_hash: scan.last_hash,
        };
        let file = segment::create(&self.chain.dir, &fields)?;
        scan.segments.push(SegmentFile {
            number: fields.segment,
            path: file.path().to_owned(),
            len: BLOCK,
            features: fields.features_incompat,
            kind: FileKind::Segment,
            held: Held::default(),
        });
        scan.end = Some(BLOCK);
        self.file = Arc::new(file);
        self.end = BLOCK;
        self.unnamed = true;
        self.sync_name()
    }

    /// Sees to it that the last segment has its name for good: what is appended to it must not be
    /// lost with that.
    pub(super) fn sync_name(&mut self) -> Result<(), StoreError> {
        if self.unnamed {
            let dir = &self.chain.dir;
            file::sync_dir(dir).map_err(StoreError::io("sync", dir))?;
            self.unnamed = false;
        }
        Ok(())
    }

    /// Cuts off what a failed append left.
    pub(super) fn undo(&mut self) -> Result<(), StoreError> {
        if self.poisoned.is_none() && self.unfinished {
            match self
                .file
                .truncate(self.end)
                .and_then(|()| self.file.sync_data())
            {
                Ok(()) => self.unfinished = false,
                Err(error) => {
                    self.poisoned =
                        Some(format!("a failed append could not be taken back: {error}"));
                }
            }
        }
        match &self.poisoned {
            None => Ok(()),
            Some(why) => Err(StoreError::Poisoned {
                dir: self.chain.dir.clone(),
                why: why.clone(),
            }),
        }
    }
}

/// The error for a chain whose end is damaged.
fn refuse(chain: Chain) -> StoreError {
    let damage = chain.scan.damage.last().cloned();
    let Some(damage) = damage else {
        unreachable!("only damage takes the end away")
    };
    let advice = match &chain.scan.sound_end {
        Some((path, end)) => format!(
            "Nothing can be appended behind damage. To give up what is damaged, keep a copy of {} \
             and run `truncate -s {end} {}`; or use a new directory",
            chain.dir.display(),
            path.display()
        ),
        None => format!(
            "Nothing can be appended behind damage: go back to a copy of {}, or use a new directory",
            chain.dir.display()
        ),
    };
    StoreError::Damaged {
        damage: Box::new(damage),
        advice,
    }
}

pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
