// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compaction: closed segments are replaced by one base with the epochs that are kept, each as
//! the difference to the nearest kept one that it descends from.
//!
//! # How nothing is lost
//!
//! The base is written under another name, synced, and renamed when the segment behind it has its
//! name for good; that is the moment from which on readers and writers take it for the segments. These are removed when the name is on the disk
//! for good. Whoever is killed before the rename leaves a file that nobody looks at, and
//! afterwards files that nobody looks at either; the next compactor or writer removes them.
//!
//! # Locks
//!
//! `COMPACT` all the time: one compactor. `LOCK` only when there is no writer, to close the last
//! segment, and not while the base is written. The lock of the directory, see [`ParentsLock`],
//! behind both, for the moment in which the base gets its name.

mod base;
mod keep;
mod merge;
mod pages;

use std::path::Path;
use std::path::PathBuf;

use super::chain::Chain;
use super::damage::Damage;
use super::error::StoreError;
use super::format::BLOCK;
use super::lock::CompactLock;
use super::lock::ParentsLock;
use super::lock::WriterLock;
use super::opening;
use super::writer;
use super::writer::Options;
use super::writer::Writer;
use crate::sys::file;
use base::Unfinished;
use keep::Decision;
pub use keep::Keep;
use merge::Merger;

/// How often a compaction begins anew because a writer went on from an epoch that it was about
/// to drop.
const ATTEMPTS: usize = 4;

/// What a compaction did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// All epochs of the chain afterwards, ascending.
    pub kept: Vec<u64>,
    /// Epochs that are gone, ascending. When there are none, nothing was done.
    pub dropped: Vec<u64>,
    /// Bytes of the chain before.
    pub bytes_before: u64,
    /// Bytes of the chain afterwards; an estimate before it is done.
    pub bytes_after: u64,
    /// Bytes that were left alone because a writer has them open.
    pub bytes_open: u64,
    /// Damage that went with epochs that were dropped.
    pub given_up: Vec<Damage>,
    /// Files that a base stands for and that could not be removed; the next compaction or
    /// writer tries again.
    pub not_removed: Vec<PathBuf>,
}

/// Says what [`compact`] would do. Changes nothing.
///
/// # Errors
///
/// As [`compact`].
pub fn preview(dir: &Path, keep: &Keep) -> Result<Compaction, StoreError> {
    let chain = Chain::open(dir)?;
    let reach = Reach::of(&chain)?;
    let decision = keep::decide(&chain, keep, writer::now_ns(), reach.through)?;
    let mut outcome = Compaction::new(&chain, &reach);
    outcome.note(&chain, &decision, reach.through);
    if !decision.dropped.is_empty() {
        let segments = chain.scan.segments.iter();
        let closed = segments.filter(|segment| segment.number <= reach.through);
        outcome.bytes_after -= closed.map(|segment| segment.len).sum::<u64>();
        // The first block of the base, and of the segment that is begun.
        outcome.bytes_after += BLOCK + if reach.closes_last { BLOCK } else { 0 };
        let mut merger = Merger::new(&chain);
        for (&epoch, &parent) in &decision.kept {
            outcome.bytes_after += merger.step(epoch, parent)?.estimated_bytes();
        }
    }
    Ok(outcome)
}

/// Compacts a chain: drops the epochs that are not to be kept. When there is a writer, it goes
/// on meanwhile, and the segment that it appends to stays as it is.
///
/// `go_on` is told how many bytes of pages were read; when it returns false, the compaction
/// stops.
///
/// Memory: 32 MiB at most for pages, about 100 bytes per run of pages of the largest image, half
/// a KiB per record of the chain; and when pages are shared, up to 100 bytes per page of the
/// largest image, 300 MiB at most.
///
/// # Errors
///
/// Then the chain is as it was. [`StoreError::Compacting`]; [`StoreError::Damaged`] when
/// something that is to be kept cannot be restored; [`StoreError::GivenUp`];
/// [`StoreError::NoChain`], [`StoreError::Unsupported`], [`StoreError::Io`], also when there is
/// no room for the base beside what it replaces. Only when the directory cannot be synced in the
/// end, the chain can be compacted already.
pub fn compact(
    dir: &Path,
    keep: &Keep,
    options: &Options,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Compaction, StoreError> {
    // Before there is a file for the lock: nothing is made where there is no chain.
    Chain::open(dir)?;
    let _lock = CompactLock::take(dir)?;
    for _ in 0..ATTEMPTS {
        if let Some(outcome) = attempt(dir, keep, options, &mut go_on).map_err(room_for_base)? {
            return Ok(outcome);
        }
    }
    Err(StoreError::GivenUp {
        dir: dir.to_owned(),
        why: "programs kept going on from epochs that were to be dropped: try again later",
    })
}

/// Up to where a chain can be compacted.
#[derive(Debug)]
struct Reach {
    /// The last segment that a base can stand for; 0 when there is none.
    through: u64,
    /// That is the last one of all, which must be closed first.
    closes_last: bool,
    /// Bytes behind, which a writer has open.
    bytes_open: u64,
}

impl Reach {
    fn of(chain: &Chain) -> Result<Reach, StoreError> {
        let base = chain.scan.base().unwrap_or(0);
        let Some(last) = chain.scan.segments.last() else {
            unreachable!("a chain has a segment")
        };
        let closed = last.number - 1;
        let written = WriterLock::is_held(&chain.dir)?;
        let has_records = last.len > BLOCK;
        // A base never takes the name of another one: somebody may be reading that.
        let closes_last = !written && (has_records || closed <= base);
        let through = match closes_last {
            true => last.number,
            false => closed,
        };
        Ok(Reach {
            through: if through > base { through } else { 0 },
            closes_last,
            bytes_open: if written { last.len } else { 0 },
        })
    }
}

impl Compaction {
    fn new(chain: &Chain, reach: &Reach) -> Compaction {
        Compaction {
            bytes_before: chain.bytes(),
            bytes_after: chain.bytes(),
            bytes_open: reach.bytes_open,
            ..Compaction::default()
        }
    }

    fn note(&mut self, chain: &Chain, decision: &Decision, through: u64) {
        let dropped = |epoch: &u64| decision.dropped.binary_search(epoch).is_ok();
        let epochs = chain.commits().map(|commit| commit.epoch);
        self.kept = epochs.filter(|epoch| !dropped(epoch)).collect();
        self.dropped.clone_from(&decision.dropped);
        if !self.dropped.is_empty() {
            let segments = chain.scan.segments.iter();
            let closed: Vec<&Path> = segments
                .filter(|segment| segment.number <= through)
                .map(|segment| segment.path.as_path())
                .collect();
            let damage = chain.damage().iter();
            self.given_up = damage
                .filter(|damage| closed.contains(&damage.file.as_path()))
                .cloned()
                .collect();
        }
    }
}

/// One attempt; none when it has to begin anew: a writer came, or went on from an epoch that
/// was to be dropped.
fn attempt(
    dir: &Path,
    keep: &Keep,
    options: &Options,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Compaction>, StoreError> {
    let mut chain = Chain::open(dir)?;
    let reach = Reach::of(&chain)?;
    let through = reach.through;
    let mut outcome = Compaction::new(&chain, &reach);
    let mut decision = keep::decide(&chain, keep, writer::now_ns(), through)?;
    outcome.note(&chain, &decision, through);
    if decision.dropped.is_empty() {
        if !chain.scan.superseded.is_empty() {
            file::sync_dir(dir).map_err(StoreError::io("sync", dir))?;
        }
        outcome.not_removed = remove_leftovers(&chain);
        return Ok(Some(outcome));
    }
    if reach.closes_last {
        if !close_last(&chain, through, options)? {
            return Ok(None);
        }
        chain = Chain::open(dir)?;
        decision = keep::decide(&chain, keep, writer::now_ns(), through)?;
    }

    let mut bytes_read = 0;
    let unfinished = Unfinished::write(&chain, &decision, through, options, &mut |bytes| {
        bytes_read += bytes;
        match go_on(bytes_read) {
            true => Ok(()),
            false => Err(StoreError::GivenUp {
                dir: dir.to_owned(),
                why: "it was asked to stop",
            }),
        }
    })?;
    // A writer that was killed, or is about to do it itself, may not have synced the name of the
    // segment behind the base. Without that segment the base is the end of no chain.
    file::sync_dir(dir).map_err(StoreError::io("sync", dir))?;
    {
        let _parents = ParentsLock::wait(dir)?;
        let now = Chain::open(dir)?;
        let builds_on_dropped = now.commits().any(|commit| {
            let parent = commit.parent.unwrap_or(0);
            commit.segment > through && decision.dropped.binary_search(&parent).is_ok()
        });
        if builds_on_dropped {
            return Ok(None);
        }
        unfinished.place()?;
    }
    file::sync_dir(dir).map_err(StoreError::io("sync", dir))?;
    let now = Chain::open(dir)?;
    outcome.note(&chain, &decision, through);
    outcome.kept = now.commits().map(|commit| commit.epoch).collect();
    outcome.bytes_after = now.bytes();
    outcome.not_removed = remove_leftovers(&now);
    Ok(Some(outcome))
}

/// Begins the segment behind the last one, number `last`; false when a writer was faster. A
/// program can open the chain while the base is written.
fn close_last(chain: &Chain, last: u64, options: &Options) -> Result<bool, StoreError> {
    let mut writer = match Writer::open_or_create(&chain.dir, options.clone()) {
        Ok((writer, _)) => writer,
        Err(StoreError::Locked { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    if writer.chain().scan.segments.last().map(|last| last.number) != Some(last) {
        return Ok(false);
    }
    writer.close_segment()?;
    Ok(true)
}

/// Removes files that a base stands for, and what other compactions left; gives back what could
/// not be removed. The base must have its name for good, and `COMPACT` be ours.
fn remove_leftovers(chain: &Chain) -> Vec<PathBuf> {
    let scan = &chain.scan;
    let leftovers = scan.superseded.iter().chain(&scan.unfinished_bases);
    leftovers
        .filter(|path| opening::remove(path).is_err())
        .cloned()
        .collect()
}

/// A base is no commit, so what to do about a full disk is something else.
fn room_for_base(error: StoreError) -> StoreError {
    match error {
        StoreError::NoSpace { dir, source, .. } => {
            StoreError::io("write a base beside the segments of", &dir)(source)
        }
        error => error,
    }
}
