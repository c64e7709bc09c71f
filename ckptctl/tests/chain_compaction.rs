// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compaction: what is kept is restored as it was, whatever the history, whoever else is there.

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ckptctl::store::Chain;
use ckptctl::store::CommitMeta;
use ckptctl::store::Compaction;
use ckptctl::store::Keep;
use ckptctl::store::Kind;
use ckptctl::store::Options;
use ckptctl::store::StoreError;
use ckptctl::store::compact;
use ckptctl::store::preview;
use proptest::prelude::*;
use support::*;

fn keep(last: u64) -> Keep {
    Keep {
        last,
        ..Keep::default()
    }
}

fn compact_to(dir: &Path, last: u64) -> Result<Compaction, StoreError> {
    compact(dir, &keep(last), &Options::default(), |_| true)
}

/// Epochs of a chain, which must be sound, and restore to what they were.
fn sound_epochs(dir: &Path, images: &Images) -> Vec<u64> {
    let chain = Chain::open(dir).unwrap();
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!((&report.damage, &report.strangers), (&vec![], &vec![]));
    for &epoch in &report.restorable {
        let image = restore(&chain, epoch).unwrap();
        assert!(
            image == images[&epoch],
            "epoch {epoch} was restored to something else"
        );
    }
    report.restorable
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["LOCK", "COMPACT"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

#[test]
fn one_base_and_an_empty_segment_are_what_is_left_and_the_chain_goes_on() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let outcome = compact_to(temp.path(), 1).unwrap();
    assert_eq!(outcome.kept, [7]);
    assert_eq!(outcome.dropped, [1, 2, 5, 6]);
    assert_eq!(
        outcome.bytes_after,
        Chain::open(temp.path()).unwrap().bytes()
    );
    assert!(outcome.bytes_after < outcome.bytes_before);
    assert_eq!(
        names(temp.path()),
        ["base-0000000002.ckpt", "segment-0000000003.ckpt"]
    );
    assert_eq!(sound_epochs(temp.path(), &images), [7]);

    let (mut writer, recovery) = open(temp.path(), 16_000).unwrap();
    assert_eq!(recovery, Default::default());
    let delta = [(1, Fill::Noise(8)), (3, Fill::Zero)].into();
    append(&mut writer, &mut images, &meta(8, 7), &delta).unwrap();
    drop(writer);
    assert_eq!(sound_epochs(temp.path(), &images), [7, 8]);

    let outcome = compact_to(temp.path(), 1).unwrap();
    assert_eq!((outcome.kept, outcome.dropped), (vec![8], vec![7]));
    assert_eq!(sound_epochs(temp.path(), &images), [8]);
}

#[test]
fn a_commit_keeps_all_it_says_about_itself_but_its_parent() {
    let temp = memory_dir();
    small_chain(temp.path());
    let before = Chain::open(temp.path()).unwrap();
    compact_to(temp.path(), 2).unwrap();
    let after = Chain::open(temp.path()).unwrap();
    for (epoch, parent) in [(6, None), (7, Some(6))] {
        let expected = CommitMeta {
            parent,
            ..before.get(epoch).unwrap()
        };
        assert_eq!(after.get(epoch).unwrap(), expected);
        assert_eq!(
            after.find(epoch).unwrap().hash,
            before.find(epoch).unwrap().hash
        );
    }
}

#[test]
fn when_nothing_is_to_be_dropped_nothing_is_done() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let before = segments(temp.path());
    let outcome = compact_to(temp.path(), 100).unwrap();
    assert_eq!((outcome.kept.len(), outcome.dropped.len()), (5, 0));
    assert_eq!(segments(temp.path()), before);
    compact_to(temp.path(), 2).unwrap();
    let before = segments(temp.path());
    compact_to(temp.path(), 2).unwrap();
    assert_eq!(segments(temp.path()), before);
    // The same segments, but fewer epochs: a base of another name.
    let outcome = compact_to(temp.path(), 1).unwrap();
    assert_eq!(outcome.dropped, [6]);
    assert_eq!(sound_epochs(temp.path(), &images), [7]);
}

#[test]
fn a_preview_changes_nothing_and_tells_what_will_be() {
    let temp = memory_dir();
    small_chain(temp.path());
    let before = (names(temp.path()), segments(temp.path()));
    for last in 1..=5 {
        let told = preview(temp.path(), &keep(last)).unwrap();
        assert_eq!((names(temp.path()), segments(temp.path())), before);
        let other = memory_dir();
        small_chain(other.path());
        let done = compact_to(other.path(), last).unwrap();
        assert_eq!((&told.kept, &told.dropped), (&done.kept, &done.dropped));
        assert_eq!(told.bytes_before, done.bytes_before);
        let difference = told.bytes_after.abs_diff(done.bytes_after);
        assert!(difference <= 4096, "{told:?} and {done:?}");
    }
}

#[test]
fn with_a_writer_there_its_segment_stays_and_what_it_builds_on_too() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let (mut writer, _) = open(temp.path(), 4096).unwrap();
    // In a new segment, on an epoch that nothing else would keep.
    append(
        &mut writer,
        &mut images,
        &meta(9, 5),
        &[(2, Fill::Even(8))].into(),
    )
    .unwrap();
    let outcome = compact_to(temp.path(), 1).unwrap();
    assert_eq!(
        (outcome.kept, outcome.dropped),
        (vec![5, 9], vec![1, 2, 6, 7])
    );
    assert!(outcome.bytes_open > 0);
    append(&mut writer, &mut images, &meta(10, 9), &Delta::new()).unwrap();
    assert_eq!(sound_epochs(temp.path(), &images), [5, 9, 10]);
    // The writer did not look, so it knows 7; but 7 is gone, and nothing is appended to it.
    let refused = append(&mut writer, &mut images, &meta(11, 7), &Delta::new());
    assert!(
        matches!(refused, Err(StoreError::NoSuchEpoch { epoch: 7, .. })),
        "{refused:?}"
    );
    append(&mut writer, &mut images, &meta(12, 5), &Delta::new()).unwrap();
    drop(writer);
    assert_eq!(sound_epochs(temp.path(), &images), [5, 9, 10, 12]);
}

#[test]
fn a_second_compactor_is_refused() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let mut refused = None;
    compact(temp.path(), &keep(1), &Options::default(), |_| {
        refused.get_or_insert_with(|| compact_to(temp.path(), 1).unwrap_err());
        true
    })
    .unwrap();
    let refused = refused.expect("pages were read");
    let pid = std::process::id();
    assert!(
        matches!(refused, StoreError::Compacting { pid: Some(holder), .. } if holder == pid),
        "{refused}"
    );
    assert_eq!(sound_epochs(temp.path(), &images), [7]);
}

#[test]
fn one_that_is_stopped_changes_nothing() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let stopped = compact(temp.path(), &keep(3), &Options::default(), |_| false);
    assert!(
        matches!(stopped, Err(StoreError::GivenUp { .. })),
        "{stopped:?}"
    );
    assert_eq!(sound_epochs(temp.path(), &images).len(), 5);
    assert!(names(temp.path()).iter().all(|name| !name.contains("base")));
}

#[test]
fn where_there_is_no_chain_nothing_is_made() {
    let temp = memory_dir();
    let refused = compact_to(temp.path(), 1);
    assert!(matches!(refused, Err(StoreError::NoChain { .. })));
    assert_eq!(names(temp.path()), [""; 0]);
    assert!(!temp.path().join("COMPACT").exists());
}

#[test]
fn readers_that_began_before_go_on_with_what_they_opened() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let mut loader = chain.load(5).unwrap();
    let mut image = empty_image();
    let mut runs = 0;
    loop {
        if runs == 1 {
            compact_to(temp.path(), 1).unwrap();
        }
        let Some(run) = loader.next_run().unwrap() else {
            break;
        };
        image[run.pgoff as usize * PAGE..][..run.bytes.len()].copy_from_slice(run.bytes);
        runs += 1;
    }
    assert!(runs > 2 && image == images[&5]);
    assert_eq!(check_against(&chain, &images), [0; 0]);
    assert_eq!(chain.verify(|_, _| {}).unwrap().damage, vec![]);
    assert_eq!(chain.full_costs().unwrap().len(), 5);
    chain.get(1).unwrap();
    assert!(Chain::open(temp.path()).unwrap().find(5).is_none());
}

/// One damaged byte in the stored pages of an epoch.
fn damage_pages(dir: &Path, epoch: u64) {
    let chain = Chain::open(dir).unwrap();
    let commit = chain.find(epoch).unwrap();
    let path = chain.file_of(commit).to_owned();
    let mut content = std::fs::read(&path).unwrap();
    // In the middle, there is noise.
    content[(commit.offset + commit.stored_bytes / 2) as usize] ^= 1;
    std::fs::write(&path, content).unwrap();
    let report = Chain::open(dir).unwrap().verify(|_, _| {}).unwrap();
    assert!(report.lost.contains(&epoch));
}

#[test]
fn damage_that_a_kept_epoch_would_have_refuses_and_changes_nothing() {
    let temp = memory_dir();
    small_chain(temp.path());
    damage_pages(temp.path(), 2);
    let before = segments(temp.path());
    // Page 9 of epoch 2 is in all that follow.
    let refused = compact_to(temp.path(), 1).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    let StoreError::Damaged { damage, .. } = &refused else {
        unreachable!()
    };
    assert_eq!(damage.lost, [7]);
    // The last segment was closed before the pages were read, and is as it was.
    let after = segments(temp.path());
    assert_eq!(after[..before.len()], before);
    assert!(names(temp.path()).iter().all(|name| !name.contains("base")));
}

#[test]
fn damage_of_structure_that_a_kept_epoch_needs_refuses_before_anything_is_written() {
    let temp = memory_dir();
    small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let (path, mut content) = segments(temp.path()).remove(0);
    let second = chain.find(2).unwrap();
    content[(second.offset + 300) as usize] ^= 1;
    std::fs::write(&path, content).unwrap();
    let before = segments(temp.path());
    for last in [1, 5] {
        let refused = compact_to(temp.path(), last).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert!(preview(temp.path(), &keep(last)).is_err());
    }
    assert_eq!(segments(temp.path()), before);
}

#[test]
fn damage_that_only_dropped_epochs_have_goes_with_them_and_is_told() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    // Epoch 5 is an abandoned branch.
    let fifth = chain.find(5).unwrap();
    let path = chain.file_of(fifth).to_owned();
    let mut content = std::fs::read(&path).unwrap();
    content[(fifth.offset + 300) as usize] ^= 1;
    std::fs::write(&path, content).unwrap();
    let outcome = compact_to(temp.path(), 2).unwrap();
    assert_eq!(outcome.dropped, [1, 2, 5]);
    assert_eq!(outcome.given_up.len(), 1);
    assert_eq!(outcome.given_up[0].lost, [5]);
    assert_eq!(sound_epochs(temp.path(), &images), [6, 7]);
}

#[test]
fn every_wrong_byte_of_a_compacted_chain_is_found_and_never_handed_out() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    compact_to(temp.path(), 2).unwrap();
    let (mut writer, _) = open(temp.path(), 16_000).unwrap();
    append(
        &mut writer,
        &mut images,
        &meta(9, 7),
        &[(2, Fill::Even(8))].into(),
    )
    .unwrap();
    drop(writer);
    images.retain(|epoch, _| [6, 7, 9].contains(epoch));
    for (path, content) in segments(temp.path()) {
        for at in (0..content.len()).step_by(7) {
            let mut changed = content.clone();
            changed[at] ^= 1 << (at * 7 % 8);
            std::fs::write(&path, &changed).unwrap();
            let report = verify(temp.path(), &images);
            assert!(!report.damage.is_empty(), "byte {at} is overlooked");
            a_writer_cuts_nothing(temp.path());
        }
        std::fs::write(&path, &content).unwrap();
    }
    // And every way of a base to be too short.
    let (path, content) = segments(temp.path()).remove(0);
    for len in (0..content.len()).step_by(61).chain([content.len() - 4096]) {
        std::fs::write(&path, &content[..len]).unwrap();
        let report = verify(temp.path(), &images);
        assert!(!report.damage.is_empty() && report.torn.is_none(), "{len}");
    }
    std::fs::write(&path, &content).unwrap();
    assert_eq!(verify(temp.path(), &images).damage, vec![]);
}

#[test]
fn a_segment_that_is_missing_behind_a_base_is_damage() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    compact_to(temp.path(), 1).unwrap();
    std::fs::remove_file(temp.path().join("segment-0000000003.ckpt")).unwrap();
    let report = verify(temp.path(), &[(7, images[&7].clone())].into());
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.restorable, [7]);
    assert!(matches!(
        open(temp.path(), 1 << 20),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn what_a_killed_compactor_leaves_is_ignored_and_removed() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let old = segments(temp.path());
    compact_to(temp.path(), 1).unwrap();
    // As if it had been killed before it removed anything; and another one while it wrote.
    for (path, content) in &old {
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(temp.path().join("base-0000000003.ckpt.tmp"), "half").unwrap();
    assert_eq!(sound_epochs(temp.path(), &images), [7]);
    let (mut writer, recovery) = open(temp.path(), 1 << 20).unwrap();
    assert_eq!(recovery.removed.len(), old.len() + 1);
    append(&mut writer, &mut images, &meta(8, 7), &Delta::new()).unwrap();
    drop(writer);
    assert_eq!(sound_epochs(temp.path(), &images), [7, 8]);
    assert_eq!(
        names(temp.path()),
        ["base-0000000002.ckpt", "segment-0000000003.ckpt"]
    );
}

#[test]
fn a_writer_leaves_the_base_that_somebody_is_making_alone() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let mut writers = 0;
    compact(temp.path(), &keep(1), &Options::default(), |_| {
        if writers == 0 {
            let (_, recovery) = open(temp.path(), 1 << 20).unwrap();
            assert_eq!(recovery.removed, [""; 0].map(std::path::PathBuf::from));
        }
        writers += 1;
        true
    })
    .unwrap();
    assert!(writers > 0);
    assert_eq!(sound_epochs(temp.path(), &images), [7]);
}

#[test]
fn a_writer_that_goes_back_to_what_is_being_dropped_makes_it_stay() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let mut writers = Vec::new();
    let outcome = compact(temp.path(), &keep(1), &Options::default(), |_| {
        if writers.is_empty() {
            let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
            let delta = [(9, Fill::Even(1))].into();
            append(&mut writer, &mut images, &meta(8, 5), &delta).unwrap();
            writers.push(writer);
        }
        true
    })
    .unwrap();
    assert_eq!(outcome.kept, [5, 8]);
    assert_eq!(sound_epochs(temp.path(), &images), [5, 8]);
}

#[test]
fn a_writer_and_readers_go_on_while_it_is_compacted_again_and_again() {
    let temp = memory_dir();
    let mut images = Images::new();
    let (mut writer, _) = open(temp.path(), 30_000).unwrap();
    append(
        &mut writer,
        &mut images,
        &meta(1, None),
        &[(1, Fill::Noise(1))].into(),
    )
    .unwrap();
    let ended = AtomicBool::new(false);
    let durable = AtomicU64::new(1);
    let (dropped, read) = std::thread::scope(|scope| {
        let dir = temp.path();
        let (ended, durable) = (&ended, &durable);
        let compactor = scope.spawn(move || {
            let mut dropped = 0;
            while !ended.load(Ordering::Relaxed) {
                dropped += compact_to(dir, 3).unwrap().dropped.len();
            }
            dropped
        });
        let reader = scope.spawn(move || {
            let mut read = BTreeMap::new();
            while !ended.load(Ordering::Relaxed) {
                let known = durable.load(Ordering::Acquire);
                let chain = Chain::open(dir).unwrap();
                assert_eq!(chain.damage(), []);
                let newest = chain.newest().unwrap().unwrap().epoch;
                assert!(
                    newest >= known,
                    "{known} was durable, {newest} is the newest"
                );
                for commit in chain.commits() {
                    read.insert(commit.epoch, restore(&chain, commit.epoch).unwrap());
                }
                assert_eq!(chain.verify(|_, _| {}).unwrap().damage, vec![]);
            }
            read
        });
        for epoch in 2..=400 {
            // Now and then from where the program was before, as a rollback does.
            let back = epoch % 7 == 0 && epoch > 10;
            let parent = if back { epoch - 2 } else { epoch - 1 };
            let delta = [
                (epoch % 60, Fill::Noise(epoch)),
                (epoch % 13, Fill::Even(epoch as u8)),
                (epoch % 17 + 1, Fill::Zero),
            ];
            match append(
                &mut writer,
                &mut images,
                &meta(epoch, parent),
                &delta.into(),
            ) {
                Ok(()) => {}
                Err(StoreError::NoSuchEpoch { .. }) if back => {
                    let meta = meta(epoch, epoch - 1);
                    append(&mut writer, &mut images, &meta, &delta.into()).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            durable.store(epoch, Ordering::Release);
        }
        ended.store(true, Ordering::Relaxed);
        (compactor.join().unwrap(), reader.join().unwrap())
    });
    assert!(dropped > 50, "{dropped}");
    assert!(read.len() > 10, "{}", read.len());
    for (epoch, image) in &read {
        assert!(
            *image == images[epoch],
            "epoch {epoch} was read as something else"
        );
    }
    drop(writer);
    assert!(sound_epochs(temp.path(), &images).contains(&400));
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// A commit: on which of the epochs that are there, counted from the newest; whether the
    /// program was restored; pages; the arena's size.
    Commit {
        back: usize,
        restored: bool,
        delta: Delta,
        arena_len_pages: u64,
    },
    /// Somebody compacts, while a writer has the chain or not.
    Compact { keep: Keep, written: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let fill = prop_oneof![
        Just(Fill::Zero),
        any::<u8>().prop_map(Fill::Even),
        any::<u64>().prop_map(Fill::Noise),
    ];
    let delta = prop::collection::btree_map(0..ARENA_PAGES, fill, 0..20);
    let back = prop_oneof![4 => Just(0), 1 => 0..12usize];
    let arena = prop_oneof![3 => Just(ARENA_PAGES), 1 => 50..=ARENA_PAGES];
    let commit =
        (back, any::<bool>(), delta, arena).prop_map(|(back, restored, delta, arena_len_pages)| {
            Step::Commit {
                back,
                restored,
                delta,
                arena_len_pages,
            }
        });
    let span = prop::option::of((1..20u64).prop_map(Duration::from_secs));
    let compact = (0..6u64, span, any::<bool>()).prop_map(|(last, every, written)| Step::Compact {
        keep: Keep {
            last,
            every,
            within: None,
        },
        written,
    });
    prop_oneof![6 => commit, 1 => compact]
}

/// What is to be restored of an epoch: pages beyond its arena are not part of it.
fn within(image: &Image, arena_len_pages: u64) -> Image {
    let mut image = image.clone();
    image[arena_len_pages as usize * PAGE..].fill(0);
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_kept_epoch_of_any_history_is_restored_as_it_was(
        steps in prop::collection::vec(step(), 1..60),
        segment_bytes in prop_oneof![Just(4096u64), Just(30_000), Just(1 << 20)],
    ) {
        let temp = memory_dir();
        let mut writer = Some(open(temp.path(), segment_bytes).unwrap().0);
        let mut images = Images::new();
        let mut arenas = BTreeMap::new();
        let mut next = 1;
        // The last word has a compaction.
        let last = Step::Compact { keep: keep(2), written: false };
        for step in steps.into_iter().chain([last]) {
            match step {
                Step::Commit { back, restored, mut delta, arena_len_pages } => {
                    let writer =
                        writer.get_or_insert_with(|| open(temp.path(), segment_bytes).unwrap().0);
                    let known: Vec<u64> =
                        Chain::open(temp.path()).unwrap().commits().map(|c| c.epoch).collect();
                    let parent = known.len().checked_sub(back + 1).map(|at| known[at]);
                    delta.retain(|pgoff, _| *pgoff < arena_len_pages);
                    let mut meta = meta(next, parent);
                    meta.regions.clear();
                    meta.arena_len_pages = arena_len_pages;
                    if restored {
                        meta.kind = Kind::Restore;
                    }
                    append(writer, &mut images, &meta, &delta).unwrap();
                    arenas.insert(next, arena_len_pages);
                    next += 1;
                }
                Step::Compact { keep, written } => {
                    if !written {
                        writer = None;
                    }
                    let before = Chain::open(temp.path()).unwrap();
                    let known: BTreeSet<u64> = before.commits().map(|c| c.epoch).collect();
                    let told = preview(temp.path(), &keep).unwrap();
                    let outcome = compact(temp.path(), &keep, &Options::default(), |_| true).unwrap();
                    prop_assert_eq!(&told.dropped, &outcome.dropped);
                    let all: BTreeSet<u64> =
                        outcome.kept.iter().chain(&outcome.dropped).copied().collect();
                    prop_assert_eq!(&all, &known);
                    prop_assert_eq!(outcome.kept.len() + outcome.dropped.len(), known.len());
                    for epoch in known.iter().rev().take(keep.last.max(1) as usize) {
                        prop_assert!(outcome.kept.contains(epoch));
                    }
                    let chain = Chain::open(temp.path()).unwrap();
                    let epochs: Vec<u64> = chain.commits().map(|c| c.epoch).collect();
                    prop_assert_eq!(&epochs, &outcome.kept);
                    let report = chain.verify(|_, _| {}).unwrap();
                    prop_assert_eq!(&report.damage, &vec![]);
                    prop_assert_eq!(&report.restorable, &epochs);
                    for epoch in epochs {
                        let expected = within(&images[&epoch], arenas[&epoch]);
                        prop_assert!(restore(&chain, epoch).unwrap() == expected, "epoch {}", epoch);
                    }
                }
            }
        }
    }
}
