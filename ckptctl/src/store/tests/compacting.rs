// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compaction while calls fail, and when it is killed or the power fails at any moment.

use std::collections::BTreeSet;
use std::path::Path;

use super::failing_calls::Spell;
use super::failing_calls::for_every_failure;
use super::failing_calls::with_failure;
use super::power_failure::Change;
use super::power_failure::Disk;
use super::power_failure::Random;
use super::power_failure::record;
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

#[test]
fn every_call_of_a_compaction_can_fail_and_nothing_that_is_kept_is_lost() {
    let all: BTreeSet<u64> = (1..=5).collect();
    let kept: BTreeSet<u64> = (4..=5).collect();
    for (spell, written) in [
        (Spell::Once, false),
        (Spell::Once, true),
        (Spell::ForGood, false),
    ] {
        for_every_failure(|nth, way| {
            let temp = memory_dir();
            let mut writer = Some(write(temp.path(), 1..=5));
            if !written {
                writer = None;
            }
            let done = with_failure(nth, way, spell, || compact_to(temp.path(), 2));
            let Some(done) = done else { return false };
            let found = epochs(&Chain::open(temp.path()).unwrap());
            match done {
                // What failed was the removal of what is not needed any more.
                Ok(done) => assert_eq!(found, done.kept.into_iter().collect()),
                // Only the last sync can fail with the base in place.
                Err(_) => assert!(found == all || found.is_superset(&kept), "{found:?}"),
            }
            if !names(temp.path()).contains("base-") {
                assert_eq!(found, all, "call {nth}");
            }
            // A program that runs does not notice.
            if let Some(writer) = &mut writer {
                append(writer, 6).unwrap();
            }
            drop(writer);
            let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
            if !written {
                append(&mut writer, 6).unwrap();
            }
            drop(writer);
            let done = compact_to(temp.path(), 2).unwrap();
            assert_eq!(done.not_removed, [""; 0].map(std::path::PathBuf::from));
            assert_eq!(epochs(&Chain::open(temp.path()).unwrap()), [5, 6].into());
            assert!(!names(temp.path()).contains(".tmp"));
            true
        });
    }
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
fn life() -> (tempfile::TempDir, Vec<Change>) {
    let temp = memory_dir();
    let log = record(|reported| {
        let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
        for epoch in 1..=5 {
            append(&mut writer, epoch).unwrap();
            reported(epoch);
        }
        compact_to(temp.path(), 2).unwrap();
        append(&mut writer, 6).unwrap();
        reported(6);
        drop(writer);
        compact_to(temp.path(), 2).unwrap();
        let mut writer = open(temp.path(), SEGMENT_BYTES).unwrap();
        append(&mut writer, 7).unwrap();
        reported(7);
        drop(writer);
        compact_to(temp.path(), 2).unwrap();
    });
    let bases = log.iter().filter(
        |change| matches!(change, Change::Rename(_, to) if to.to_string_lossy().contains("base")),
    );
    assert_eq!(bases.count(), 3);
    (temp, log)
}

/// What must hold of what is found after `reported` was reported.
fn is_whole(dir: &Path, reported: u64, what: &str) {
    let read_only = Chain::open(dir);
    if let Ok(chain) = &read_only {
        // A reader sees the same before any writer came.
        assert_eq!(chain.damage(), [], "{what}");
    }
    let (mut writer, recovery) =
        Writer::open_or_create(dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovery.damage, vec![], "{what}");
    let found = epochs(writer.chain());
    let newest = found.last().copied().unwrap_or(0);
    assert!(
        (reported..=reported + 1).contains(&newest),
        "{what}: {newest} is there, {reported} was reported"
    );
    assert!(
        newest < 2 || found.contains(&(newest - 1)),
        "{what}: {found:?}"
    );
    append(&mut writer, newest + 1).unwrap();
    drop(writer);
    compact_to(dir, 2).unwrap();
    let found = epochs(&Chain::open(dir).unwrap());
    let two = [newest, newest + 1].into_iter().filter(|&epoch| epoch > 0);
    assert_eq!(found, two.collect(), "{what}");
    assert!(!names(dir).contains(".tmp"), "{what}");
}

fn reported(changes: &[Change]) -> u64 {
    let reported = changes.iter().filter_map(|change| match change {
        Change::Reported(epoch) => Some(*epoch),
        _ => None,
    });
    reported.max().unwrap_or(0)
}

#[test]
fn killed_between_any_two_calls_nothing_that_is_kept_is_lost() {
    let (_temp, log) = life();
    for moment in 0..=log.len() {
        let temp = memory_dir();
        Disk::replay(&log[..moment]).lay_out(temp.path());
        is_whole(
            temp.path(),
            reported(&log[..moment]),
            &format!("moment {moment}"),
        );
    }
}

#[test]
fn when_the_power_fails_at_any_moment_nothing_that_is_kept_is_lost() {
    let (_temp, log) = life();
    for moment in 0..=log.len() {
        let disk = Disk::replay(&log[..moment]);
        for way in 0..8 {
            let seed = (moment as u64 + 1) * 1_000_003 + way;
            let temp = memory_dir();
            disk.fail(&mut Random(seed), temp.path());
            let what = format!("moment {moment}, seed {seed}");
            is_whole(temp.path(), reported(&log[..moment]), &what);
        }
    }
}
