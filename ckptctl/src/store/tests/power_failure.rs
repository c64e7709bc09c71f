// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk that forgets what was not synced: at every moment of a writer's life
//! the power fails, in many ways, and no commit that was reported is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Verdict;

const SECTOR: usize = 512;
/// So that a segment takes two commits.
const SEGMENT_BYTES: u64 = 20_000;

/// A change to the disk, as far as `docs/format.md` section 5 assumes anything.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create(OsString),
    Write(OsString, u64, Vec<u8>),
    Truncate(OsString, u64),
    SyncData(OsString),
    Rename(OsString, OsString),
    Unlink(OsString),
    SyncDir,
    /// Not a change: the writer reported this epoch as durable.
    Reported(u64),
}

impl Change {
    /// What a call changes.
    pub(crate) fn of(call: &FileCall<'_>) -> Option<Change> {
        let name = |path: &Path| path.file_name().unwrap().to_owned();
        Some(match call {
            FileCall::Create(path) => Change::Create(name(path)),
            FileCall::Write(path, at, bytes) => Change::Write(name(path), *at, bytes.to_vec()),
            FileCall::Truncate(path, len) => Change::Truncate(name(path), *len),
            FileCall::SyncData(path) => Change::SyncData(name(path)),
            FileCall::Rename(from, to) => Change::Rename(name(from), name(to)),
            FileCall::Unlink(path) => Change::Unlink(name(path)),
            FileCall::SyncDir(_) => Change::SyncDir,
            _ => return None,
        })
    }
}

/// Keeps a log of all changes while `body` runs.
pub(super) fn record(body: impl FnOnce(&dyn Fn(u64))) -> Vec<Change> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let hook_log = Rc::clone(&log);
    let hook = move |call: &FileCall<'_>| {
        hook_log.borrow_mut().extend(Change::of(call));
        Verdict::Go
    };
    fake::with(hook, || {
        body(&|epoch| log.borrow_mut().push(Change::Reported(epoch)))
    });
    log.take()
}

/// Small, and the same on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// A file's content: what is safe, and what was asked for since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    safe: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Inode {
    fn apply(content: &mut Vec<u8>, change: &Pending) {
        match change {
            Pending::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Pending::Truncate(len) => content.resize(*len, 0),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            Inode::apply(&mut self.safe, &change);
        }
    }

    /// What may be found after a power failure: of every write since the last
    /// sync any sectors or none; the length as it was after any of them.
    fn after_failure(&self, random: &mut Random) -> Vec<u8> {
        let mut content = self.safe.clone();
        let mut len = content.len();
        // A truncation and what follows it are ordered: lengths are journalled.
        let kept = random.below(self.pending.len() + 1);
        let odds = random.below(4);
        for change in &self.pending[..kept] {
            match change {
                Pending::Truncate(_) => {
                    Inode::apply(&mut content, change);
                    len = content.len();
                }
                Pending::Write(at, bytes) => {
                    len = len.max(at + bytes.len());
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = ((at + start) / SECTOR + 1) * SECTOR - at;
                        let end = end.min(bytes.len());
                        if random.below(4) >= odds {
                            let sector = bytes[start..end].to_vec();
                            Inode::apply(&mut content, &Pending::Write(at + start, sector));
                        }
                        start = end;
                    }
                }
            }
        }
        match random.below(3) {
            // Data on the disk is no use before the length is.
            0 => content.truncate(self.safe.len().max(random.below(len + 1)).min(len)),
            1 => content.resize(len, 0),
            _ => {}
        }
        content
    }
}

/// The disk's directory: which names stand for which inodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<OsString, usize>,
    /// The names after each change since the last sync of the directory, oldest
    /// first; the first is safe.
    past_names: Vec<BTreeMap<OsString, usize>>,
}

impl Disk {
    pub(crate) fn replay(changes: &[Change]) -> Disk {
        let mut disk = Disk::default();
        for change in changes {
            let before = disk.names.clone();
            match change {
                Change::Create(name) if !disk.names.contains_key(name) => {
                    disk.names.insert(name.clone(), disk.inodes.len());
                    disk.inodes.push(Inode::default());
                }
                Change::Write(name, at, bytes) => {
                    disk.inode(name)
                        .pending
                        .push(Pending::Write(*at as usize, bytes.clone()));
                }
                Change::Truncate(name, len) => {
                    disk.inode(name)
                        .pending
                        .push(Pending::Truncate(*len as usize));
                }
                Change::SyncData(name) => disk.inode(name).sync(),
                Change::Rename(from, to) => {
                    if let Some(inode) = disk.names.remove(from) {
                        disk.names.insert(to.clone(), inode);
                    }
                }
                Change::Unlink(name) => {
                    disk.names.remove(name);
                }
                Change::SyncDir => disk.past_names.clear(),
                Change::Create(_) | Change::Reported(_) => {}
            }
            if disk.names != before {
                disk.past_names.push(before);
            }
        }
        disk
    }

    fn inode(&mut self, name: &OsString) -> &mut Inode {
        let inode = self.names[name];
        &mut self.inodes[inode]
    }

    /// Lays out in `dir` what is found while the power is on.
    pub(super) fn lay_out(mut self, dir: &Path) {
        for (name, inode) in &self.names {
            self.inodes[*inode].sync();
            std::fs::write(dir.join(name), &self.inodes[*inode].safe).unwrap();
        }
    }

    /// Lays out in `dir` what may be found after a power failure.
    pub(crate) fn fail(&self, random: &mut Random, dir: &Path) {
        let at = random.below(self.past_names.len() + 1);
        let names = self.past_names.get(at).unwrap_or(&self.names);
        for (name, inode) in names {
            std::fs::write(dir.join(name), self.inodes[*inode].after_failure(random)).unwrap();
        }
    }
}

/// Lets the power fail at every moment of a log, `ways` times each.
fn fail_everywhere(log: &[Change], ways: u64) {
    let torn = fail_at(log, 0..=log.len(), ways);
    assert!(
        torn > log.len(),
        "{torn} torn tails are too few to have tried much"
    );
}

/// Lets the power fail at some moments of a log; returns how many tails were torn.
fn fail_at(log: &[Change], moments: RangeInclusive<usize>, ways: u64) -> usize {
    let newest_reported = |changes: &[Change]| {
        let reported = changes.iter().filter_map(|change| match change {
            Change::Reported(epoch) => Some(*epoch),
            _ => None,
        });
        reported.max().unwrap_or(0)
    };
    let mut torn = 0;
    for moment in moments {
        let disk = Disk::replay(&log[..moment]);
        let reported = newest_reported(&log[..moment]);
        for way in 0..ways {
            let seed = (moment as u64 + 1) * 1_000_003 + way;
            let temp = memory_dir();
            disk.fail(&mut Random(seed), temp.path());
            let options = Options {
                segment_bytes: SEGMENT_BYTES,
                ..Options::default()
            };
            let (mut writer, recovery) = Writer::open_or_create(temp.path(), options)
                .unwrap_or_else(|error| panic!("moment {moment}, seed {seed}: {error}"));
            assert_eq!(recovery.damage, vec![], "moment {moment}, seed {seed}");
            torn += usize::from(recovery.torn.is_some());
            let newest = writer
                .chain()
                .newest()
                .unwrap()
                .map_or(0, |commit| commit.epoch);
            // What was being written may be there as a whole.
            assert!(
                (reported..=reported + 1).contains(&newest),
                "moment {moment}, seed {seed}: {newest} is there, {reported} was reported"
            );
            assert_holds(writer.chain(), newest);
            append(&mut writer, newest + 1).unwrap();
            assert_holds(&Chain::open(temp.path()).unwrap(), newest + 1);
        }
    }
    torn
}

/// Eight commits in several segments.
fn life() -> Vec<Change> {
    let temp = memory_dir();
    record(|reported| {
        let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
        for epoch in 1..=8 {
            append(&mut writer, epoch).unwrap();
            reported(epoch);
        }
    })
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails() {
    let log = life();
    let segments = log
        .iter()
        .filter(|change| matches!(change, Change::Rename(..)))
        .count();
    assert!(
        segments >= 3,
        "the power must fail while segments are begun, too"
    );
    fail_everywhere(&log, 12);
}

/// A model that finds nothing shows nothing.
#[test]
fn a_writer_that_left_any_sync_out_would_be_found_out() {
    let log = life();
    let begun = log
        .iter()
        .position(|change| matches!(change, Change::Reported(1)));
    let ended = log
        .iter()
        .position(|change| matches!(change, Change::Reported(7)));
    let mut left_out = 0;
    for at in begun.unwrap()..ended.unwrap() {
        if !matches!(log[at], Change::SyncData(_) | Change::SyncDir) {
            continue;
        }
        let mut log = log.clone();
        let sync = log.remove(at);
        let moments = at..=(at + 8).min(log.len());
        let tried = std::panic::catch_unwind(|| fail_at(&log, moments, 40));
        assert!(tried.is_err(), "nobody misses change {at}, {sync:?}");
        left_out += 1;
    }
    assert!(left_out > 12, "only {left_out} syncs were tried");
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails_around_a_failed_append() {
    let temp = memory_dir();
    let log = record(|reported| {
        let mut writer = open(temp.path(), 1 << 20).unwrap();
        append(&mut writer, 1).unwrap();
        reported(1);
        // Larger than what comes in its place, and written in part.
        let mut large = meta(2);
        large.arena_len_pages = 4000;
        let noise: Vec<u8> = (0..400)
            .flat_map(|epoch| delta(epoch).remove(0).1)
            .collect();
        let failed: Result<_, StoreError> = writer.append_with(&large, |sink| {
            sink.push(0, &noise)?;
            sink.push(0, &noise)
        });
        assert!(failed.is_err());
        for epoch in 2..=3 {
            append(&mut writer, epoch).unwrap();
            reported(epoch);
        }
    });
    fail_everywhere(&log, 12);
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails_after_a_killed_writer_was_followed() {
    let temp = memory_dir();
    let first = record(|reported| {
        let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
        for epoch in 1..=4 {
            append(&mut writer, epoch).unwrap();
            reported(epoch);
        }
    });
    for killed in 0..=first.len() {
        // What the killed writer had not synced is in the page cache: the next one
        // finds it, and must not take it for safe.
        let temp = memory_dir();
        Disk::replay(&first[..killed]).lay_out(temp.path());
        let second = record(|reported| {
            let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
            let newest = writer
                .chain()
                .newest()
                .unwrap()
                .map_or(0, |commit| commit.epoch);
            if newest > 0 {
                reported(newest);
            }
            append(&mut writer, newest + 1).unwrap();
            reported(newest + 1);
        });
        let log = [&first[..killed], &second].concat();
        fail_at(&log, killed..=log.len(), 3);
    }
}
