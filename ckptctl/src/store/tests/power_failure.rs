// SPDX-License-Identifier: Apache-2.0 OR MIT
//! At every moment of a writer's life the power fails, in every way that is legal, and no commit
//! that was reported is lost. And each sync is needed for that: a model that finds nothing
//! shows nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::rc::Rc;

use nix::libc::EIO;

use super::disk::Change;
use super::disk::Disk;
use super::disk::Log;
use super::disk::record;
use super::disk::record_failing;
use super::expectation::Expectation;
use super::expectation::Needs;
use super::expectation::summary;
use super::*;
use crate::sys::file::FileCall;

/// So that a segment takes two commits.
const SEGMENT_BYTES: u64 = 20_000;

fn expectation() -> Expectation<'static> {
    Expectation {
        options: Options {
            segment_bytes: SEGMENT_BYTES,
            ..Options::default()
        },
        ..Expectation::default()
    }
}

/// Commits in several segments, from the making of the directory on.
fn life(newest: u64) -> Vec<Change> {
    let temp = memory_dir();
    record(temp.path(), |log| {
        let mut writer = open(&temp.path().join("chain"), SEGMENT_BYTES).unwrap();
        for epoch in 1..=newest {
            log.commit(epoch, |epoch| append(&mut writer, epoch));
        }
    })
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails() {
    let log = life(6);
    let segments = log
        .iter()
        .filter(|change| matches!(change, Change::Rename(..)))
        .count();
    assert!(
        segments >= 3,
        "the power must fail while segments are begun, too"
    );
    let states = expectation().try_everywhere(&log, 80);
    assert!(states > 800, "{states} are too few to be all");
}

#[test]
fn a_writer_that_left_any_sync_out_would_be_found_out() {
    let log = life(4);
    let syncs = expectation().assert_misses_each(&log, 0..log.len());
    assert!(syncs > 12, "only {syncs} syncs were tried");
}

/// A writer that could not finish a record: from an open chain to one that has three epochs.
fn failed_append(append_second: impl FnOnce(&mut Writer, &Log)) -> Vec<Change> {
    let temp = memory_dir();
    let syncs = Rc::new(Cell::new(0));
    let seen = Rc::clone(&syncs);
    // The second sync of a record is the last.
    let second_sync = move |call: &FileCall<'_>| {
        let sync = matches!(call, FileCall::SyncData(_));
        seen.set(seen.get() + u64::from(sync));
        (sync && seen.get() == 2).then_some(EIO)
    };
    record_failing(temp.path(), second_sync, |log| {
        syncs.set(10);
        let mut writer = open(&temp.path().join("chain"), 1 << 20).unwrap();
        log.commit(1, |epoch| append(&mut writer, epoch));
        syncs.set(0);
        append_second(&mut writer, log);
        syncs.set(10);
        for epoch in 2..=3 {
            log.commit(epoch, |epoch| append(&mut writer, epoch));
        }
    })
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails_around_a_failed_append() {
    let log = failed_append(|writer, log| {
        // Larger than what comes in its place, and written in part.
        let mut large = meta(2);
        large.arena_len_pages = 4000;
        let noise: Vec<u8> = (0..400).flat_map(noise).collect();
        log.note(Change::Begun(2));
        let failed: Result<_, StoreError> = writer.append_with(&large, |sink| {
            sink.push(0, &noise)?;
            sink.push(0, &noise)
        });
        assert!(failed.is_err());
        log.note(Change::Failed);
    });
    let states = expectation().try_everywhere(&log, 16);
    assert!(states > 100, "{states} are too few to be all");
}

/// A commit whose last sync fails: all of it is written, and it is said not to be there.
fn taken_back() -> Vec<Change> {
    failed_append(|writer, log| {
        log.note(Change::Begun(2));
        append(writer, 2).unwrap_err();
        log.note(Change::Failed);
    })
}

#[test]
fn a_commit_that_was_taken_back_is_not_there_when_the_power_fails() {
    let log = taken_back();
    let failed = log
        .iter()
        .filter(|change| matches!(change, Change::FailedSync(_)));
    assert_eq!(failed.count(), 1);
    // What the failed sync was to bring is there all the same, or never will be.
    let kept: Vec<Change> = log
        .iter()
        .filter(|change| !matches!(change, Change::FailedSync(_)))
        .cloned()
        .collect();
    for log in [log, kept] {
        expectation().try_everywhere(&log, 16);
    }
}

#[test]
fn a_writer_that_did_not_sync_what_it_took_back_would_be_found_out() {
    let mut log = taken_back();
    let failed = log
        .iter()
        .position(|change| matches!(change, Change::FailedSync(_)));
    log.remove(failed.unwrap());
    let told = log
        .iter()
        .position(|change| matches!(change, Change::Failed));
    let syncs = expectation().assert_misses_each(&log, failed.unwrap()..told.unwrap());
    assert_eq!(syncs, 1);
}

/// A writer to whom the disk said that it could not save the last footer of a commit, and that
/// it could not take it back either. One that comes after it finds the commit.
fn not_taken_back() -> Vec<Change> {
    let temp = memory_dir();
    let dir = temp.path().join("chain");
    let left = Rc::new(Cell::new(usize::MAX));
    let seen = Rc::clone(&left);
    let errno = move |call: &FileCall<'_>| match call {
        FileCall::SyncData(_) | FileCall::Truncate(..) => {
            seen.set(seen.get().saturating_sub(1));
            (seen.get() < 2).then_some(EIO)
        }
        _ => None,
    };
    record_failing(temp.path(), errno, |log| {
        let mut writer = open(&dir, 1 << 20).unwrap();
        log.commit(1, |epoch| append(&mut writer, epoch));
        log.note(Change::Begun(2));
        // The first sync works.
        left.set(3);
        let error = append(&mut writer, 2).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
        left.set(usize::MAX);
        drop(writer);
        let mut writer = open(&dir, 1 << 20).unwrap();
        assert_holds(writer.chain(), 2);
        log.note(Change::Reported(2));
        log.commit(3, |epoch| append(&mut writer, epoch));
    })
}

#[test]
fn what_is_found_after_a_failed_sync_is_there_when_the_power_fails() {
    expectation().try_everywhere(&not_taken_back(), 16);
}

/// A writer that was killed at some moment of its life, and one that came after it.
fn followed(first: &[Change], killed: usize) -> Vec<Change> {
    // What the killed writer had not synced is in the page cache: the next one
    // finds it, and must not take it for safe.
    let temp = memory_dir();
    Disk::replay(&first[..killed]).lay_out(temp.path());
    let second = record(temp.path(), |log| {
        let mut writer = open(&temp.path().join("chain"), SEGMENT_BYTES).unwrap();
        let newest = writer.chain().newest().unwrap();
        let newest = newest.map_or(0, |commit| commit.epoch);
        if newest > 0 {
            log.note(Change::Reported(newest));
        }
        log.commit(newest + 1, |epoch| append(&mut writer, epoch));
    });
    [&first[..killed], &second].concat()
}

#[test]
fn no_reported_commit_is_lost_when_the_power_fails_after_a_killed_writer_was_followed() {
    let first = life(4);
    let mut states = 0;
    for killed in 0..=first.len() {
        let log = followed(&first, killed);
        states += match expectation().try_at(&log, killed..=log.len(), 3) {
            Ok(states) => states,
            Err(what) => panic!("killed at {killed}: {what}"),
        };
    }
    assert!(states > 800, "{states} are too few to be all");
}

#[test]
fn a_writer_that_left_any_sync_of_opening_out_would_be_found_out() {
    let first = life(3);
    let mut needs = Needs::default();
    for killed in 0..=first.len() {
        let log = followed(&first, killed);
        let opened = (killed..log.len())
            .find(|&at| matches!(log[at], Change::Reported(_) | Change::Begun(_)));
        needs.learn(&expectation(), &log, killed..opened.unwrap());
    }
    needs.assert_are([
        "the root before the directory is written to",
        "a segment before a segment gets its name",
        "a segment before the directory is synced",
        "the directory before somebody is told",
    ]);
}

/// A program with two epochs that goes back to the first and makes two more.
struct Rollback {
    log: Vec<Change>,
    /// What its epochs have.
    images: BTreeMap<u64, Vec<u8>>,
    /// Calls that going back took.
    calls: usize,
}

impl Rollback {
    /// A call of going back fails, and those behind it if it is for good.
    fn new(fails: impl Fn(usize) -> bool + 'static) -> Rollback {
        let temp = memory_dir();
        let calls = Rc::new(Cell::new(0));
        let going_back = Rc::new(Cell::new(false));
        let errno = {
            let (calls, going_back) = (Rc::clone(&calls), Rc::clone(&going_back));
            move |_: &FileCall<'_>| {
                let call = calls.get();
                calls.set(call + usize::from(going_back.get()));
                (going_back.get() && fails(call)).then_some(EIO)
            }
        };
        let mut images: BTreeMap<u64, Vec<u8>> = [(1, 1), (2, 2), (3, 1)]
            .map(|(epoch, like)| (epoch, image(like)))
            .into();
        let log = record_failing(temp.path(), errno, |log| {
            let mut writer = open(&temp.path().join("chain"), 1 << 20).unwrap();
            for epoch in 1..=2 {
                log.commit(epoch, |epoch| append(&mut writer, epoch));
            }
            let back = CommitMeta {
                kind: Kind::Rollback,
                parent: Some(1),
                ..meta(3)
            };
            log.note(Change::Begun(3));
            going_back.set(true);
            let done = writer.append(&back, []).map(drop);
            going_back.set(false);
            let mut parent = match done {
                Ok(()) => 3,
                // It can be there or not.
                Err(StoreError::Poisoned { .. }) => return,
                Err(_) => 2,
            };
            log.note(match parent {
                3 => Change::Reported(3),
                _ => Change::Failed,
            });
            for epoch in 4..=5 {
                let mut image = images[&parent].clone();
                let delta = delta(epoch);
                for (pgoff, bytes) in &delta {
                    image[*pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(bytes);
                }
                images.insert(epoch, image);
                let meta = CommitMeta {
                    parent: Some(parent),
                    ..meta(epoch)
                };
                let runs = delta.iter().map(|(pgoff, bytes)| (*pgoff, &bytes[..]));
                log.commit(epoch, |_| writer.append(&meta, runs).map(drop));
                parent = epoch;
            }
        });
        Rollback {
            log,
            images,
            calls: calls.get(),
        }
    }

    fn is_there(&self, epochs: &BTreeSet<u64>) -> bool {
        let newest = epochs.last().copied().unwrap_or(0);
        (1..=newest).all(|epoch| epoch == 3 || epochs.contains(&epoch))
    }
}

#[test]
fn no_rollback_that_was_reported_is_lost_when_the_power_fails() {
    let run = Rollback::new(|_| false);
    let expectation = Expectation {
        image: &|epoch| run.images[&epoch].clone(),
        ..Expectation::default()
    };
    let states = expectation.try_everywhere(&run.log, 24);
    assert!(states > 200, "{states} are too few to be all");
    let begun = run
        .log
        .iter()
        .position(|change| matches!(change, Change::Begun(3)));
    let reported = run
        .log
        .iter()
        .position(|change| matches!(change, Change::Reported(3)));
    let syncs = expectation.assert_misses_each(&run.log, begun.unwrap()..reported.unwrap());
    assert_eq!(syncs, 4, "of a segment, of its name, and two of the record");
}

#[test]
fn commits_after_a_rollback_that_could_not_be_written_down_outlast_a_power_failure() {
    for for_good in [false, true] {
        for nth in 0.. {
            let run = Rollback::new(move |call| call == nth || for_good && call > nth);
            if run.calls <= nth {
                assert!(nth > 8, "{nth} calls are too few to be all");
                break;
            }
            let expectation = Expectation {
                image: &|epoch| run.images[&epoch].clone(),
                is_whole: &|epochs| run.is_there(epochs),
                ..Expectation::default()
            };
            let from = run
                .log
                .iter()
                .position(|change| matches!(change, Change::Begun(3)));
            let tried = expectation.try_at(&run.log, from.unwrap()..=run.log.len(), 4);
            if let Err(what) = tried {
                panic!(
                    "call {nth}, for good {for_good}: {what}; {}",
                    summary(&run.log)
                );
            }
        }
    }
}
