// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compaction while calls fail, and when it is killed or the power fails at any moment.

use std::collections::BTreeSet;
use std::path::Path;

use super::disk::Change;
use super::disk::Disk;
use super::disk::record;
use super::expectation::Expectation;
use super::expectation::Needs;
use super::expectation::Told;
use super::expectation::summary;
use super::*;
use crate::store::Compaction;
use crate::store::Keep;
use crate::store::compact;
use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Verdict;

/// So that a segment takes two commits.
const SEGMENT_BYTES: u64 = 20_000;

fn compact_to(dir: &Path, last: u64) -> Result<Compaction, StoreError> {
    let keep = Keep {
        last,
        ..Keep::default()
    };
    compact(dir, &keep, &options(), |_| true)
}

fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::default()
    }
}

fn write(dir: &Path, epochs: std::ops::RangeInclusive<u64>) -> Writer {
    let mut writer = open(dir, SEGMENT_BYTES).unwrap();
    for epoch in epochs {
        append(&mut writer, epoch).unwrap();
    }
    writer
}

/// The epochs of a chain, which is sound and gives each back as it was.
fn epochs(chain: &Chain) -> BTreeSet<u64> {
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!(report.damage, vec![]);
    assert_eq!(report.lost, []);
    for &epoch in &report.restorable {
        let mut restored = vec![0; ARENA_PAGES as usize * PAGE];
        let mut loader = chain.load(epoch).unwrap();
        while let Some(run) = loader.next_run().unwrap() {
            restored[run.pgoff as usize * PAGE..][..run.bytes.len()].copy_from_slice(run.bytes);
        }
        assert!(restored == image(epoch), "epoch {epoch} is something else");
    }
    report.restorable.into_iter().collect()
}

fn names(dir: &Path) -> String {
    let names = std::fs::read_dir(dir).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.join(" ")
}

#[test]
fn a_full_disk_says_what_to_do_and_leaves_nothing_behind() {
    let temp = memory_dir();
    drop(write(temp.path(), 1..=7));
    let hook = |call: &FileCall<'_>| match call {
        FileCall::Write(path, ..) if path.extension().is_some_and(|name| name == "tmp") => {
            let base = path.to_string_lossy().contains("base-");
            if base {
                Verdict::Fail(nix::libc::ENOSPC)
            } else {
                Verdict::Go
            }
        }
        _ => Verdict::Go,
    };
    let error = fake::with(hook, || compact_to(temp.path(), 1)).unwrap_err();
    assert!(
        error.to_string().contains("make room and try again"),
        "{error}"
    );
    assert!(!names(temp.path()).contains("base-"));
    assert_eq!(epochs(&Chain::open(temp.path()).unwrap()).len(), 7);
}

/// A life with commits and compactions that keep the two newest epochs, some with a writer
/// there and some without.
fn life() -> Vec<Change> {
    let temp = memory_dir();
    let dir = temp.path().join("chain");
    let log = record(temp.path(), |log| {
        let mut writer = open(&dir, SEGMENT_BYTES).unwrap();
        for epoch in 1..=5 {
            log.commit(epoch, |epoch| append(&mut writer, epoch));
        }
        compact_to(&dir, 2).unwrap();
        log.commit(6, |epoch| append(&mut writer, epoch));
        drop(writer);
        compact_to(&dir, 2).unwrap();
        let mut writer = open(&dir, SEGMENT_BYTES).unwrap();
        log.commit(7, |epoch| append(&mut writer, epoch));
        drop(writer);
        compact_to(&dir, 2).unwrap();
    });
    assert_eq!(bases(&log).len(), 3);
    log
}

/// Where in a log bases get their names.
fn bases(log: &[Change]) -> Vec<usize> {
    let is_base = |change: &Change| matches!(change, Change::Rename(_, to) if to.to_string_lossy().contains("base"));
    (0..log.len()).filter(|&at| is_base(&log[at])).collect()
}

/// The two newest epochs are always there, and can be compacted to.
fn expectation() -> Expectation<'static> {
    Expectation {
        options: options(),
        is_whole: &|epochs| {
            let newest = epochs.last().copied().unwrap_or(0);
            newest < 2 || epochs.contains(&(newest - 1))
        },
        then: &|dir| {
            compact_to(dir, 2).map_err(|error| error.to_string())?;
            let chain = Chain::open(dir).map_err(|error| error.to_string())?;
            match (chain.damage().is_empty(), chain.commits().len()) {
                (true, 1..=2) if !names(dir).contains(".tmp") => Ok(()),
                left => Err(format!("compacted, it has {left:?}, {}", names(dir))),
            }
        },
        ..Expectation::default()
    }
}

#[test]
fn killed_between_any_two_calls_nothing_that_is_kept_is_lost() {
    let log = life();
    for moment in 0..=log.len() {
        let temp = memory_dir();
        Disk::replay(&log[..moment]).lay_out(temp.path());
        let checked = expectation().check(temp.path(), Told::until(&log[..moment]));
        if let Err(what) = checked {
            panic!("moment {moment}: {what}; the log: {}", summary(&log));
        }
    }
}

#[test]
fn when_the_power_fails_at_any_moment_nothing_that_is_kept_is_lost() {
    let states = expectation().try_everywhere(&life(), 6);
    assert!(states > 400, "{states} are too few to be all");
}

/// A compaction after somebody was killed at some moment; none when there was no chain yet.
fn compacted(first: &[Change], killed: usize) -> Option<Vec<Change>> {
    let temp = memory_dir();
    Disk::replay(&first[..killed]).lay_out(temp.path());
    let dir = temp.path().join("chain");
    let mut found = true;
    let second = record(temp.path(), |_| match compact_to(&dir, 2) {
        Err(StoreError::NoChain { .. }) => found = false,
        done => drop(done.unwrap()),
    });
    found.then(|| [&first[..killed], &second].concat())
}

#[test]
fn a_compaction_after_somebody_was_killed_loses_nothing_when_the_power_fails() {
    let first = life();
    let mut states = 0;
    for killed in 0..=bases(&first)[0] + 8 {
        let Some(log) = compacted(&first, killed) else {
            continue;
        };
        states += match expectation().try_at(&log, killed..=log.len(), 2) {
            Ok(states) => states,
            Err(what) => panic!("killed at {killed}: {what}; the log: {}", summary(&log)),
        };
    }
    assert!(states > 1000, "{states} are too few to be all");
}

#[test]
fn a_compaction_that_left_any_sync_out_would_be_found_out() {
    let first = life();
    let first_base = bases(&first)[0];
    let mut needs = Needs::default();
    // With a writer there; then after somebody was killed who had just given a segment or a base
    // its name.
    needs.learn(&expectation(), &first, first_base - 2..first_base + 4);
    for killed in 0..=first_base {
        if let Change::Rename(..) = first[killed] {
            let log = compacted(&first, killed + 1).unwrap();
            needs.learn(&expectation(), &log, killed + 1..log.len());
        }
    }
    needs.assert_are([
        "a base before the directory is synced",
        "the directory before a base gets its name",
        "the directory before a segment is removed",
    ]);
}
