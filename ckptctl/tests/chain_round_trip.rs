// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was committed is what is restored, for every epoch.

mod support;

use ckptctl::store::Chain;
use ckptctl::store::CommitMeta;
use ckptctl::store::Compression;
use ckptctl::store::Kind;
use ckptctl::store::Options;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;
use proptest::prelude::*;
use support::*;

const BLOCK: usize = 4096;

/// What a random program does.
#[derive(Clone, Debug)]
enum Step {
    /// Commits a delta, some epochs after the newest.
    Commit { skip: u64, delta: Delta },
    /// Goes on from an older epoch.
    Restore { from: prop::sample::Index },
    /// Ends and starts again.
    Reopen {
        compression: Compression,
        threads: usize,
        share: bool,
    },
    /// Begins a commit of a delta and gives up behind some of its runs.
    GiveUp {
        delta: Delta,
        behind: prop::sample::Index,
    },
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        (1..6).prop_map(Compression::Zstd),
    ]
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        2 => Just(Fill::Zero),
        // Few of them, so that there are many that are alike.
        3 => (0..6u8).prop_map(Fill::Even),
        1 => (0..4u64).prop_map(Fill::Noise),
        1 => any::<u64>().prop_map(Fill::Noise),
    ]
}

fn delta() -> impl Strategy<Value = Delta> {
    let scattered = prop::collection::btree_map(0..ARENA_PAGES, fill(), 0..20);
    let long = (0..ARENA_PAGES, 1..90u64, fill()).prop_map(|(start, pages, fill)| {
        (start..(start + pages).min(ARENA_PAGES))
            .map(|pgoff| (pgoff, fill))
            .collect()
    });
    prop_oneof![3 => scattered, 1 => long]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4u64, delta()).prop_map(|(skip, delta)| Step::Commit { skip, delta }),
        1 => any::<prop::sample::Index>().prop_map(|from| Step::Restore { from }),
        1 => (compression(), 0..4usize, any::<bool>())
            .prop_map(|(compression, threads, share)| Step::Reopen { compression, threads, share }),
        1 => (delta(), any::<prop::sample::Index>())
            .prop_map(|(delta, behind)| Step::GiveUp { delta, behind }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_epoch_restores_to_what_was_committed(
        steps in prop::collection::vec(step(), 1..14),
        segment_bytes in 4096..100_000u64,
    ) {
        let temp = tempfile::tempdir()?;
        let dir = temp.path().join("chain");
        let mut images = Images::new();
        let (mut writer, _) = open(&dir, segment_bytes)?;
        let (mut newest, mut parent) = (0, None);
        for step in steps {
            match step {
                Step::Commit { skip, delta } => {
                    newest += skip;
                    append(&mut writer, &mut images, &meta(newest, parent), &delta)?;
                    parent = Some(newest);
                }
                Step::Restore { from } if !images.is_empty() => {
                    let from = *images.keys().nth(from.index(images.len())).unwrap();
                    newest += 1;
                    let restore = CommitMeta { kind: Kind::Restore, ..meta(newest, from) };
                    append(&mut writer, &mut images, &restore, &Delta::new())?;
                    parent = Some(newest);
                }
                Step::Restore { .. } => {}
                Step::GiveUp { delta, behind } => {
                    let runs = runs(&delta);
                    let given_up = writer.append_with(&meta(newest + 1, parent), |sink| {
                        for (pgoff, bytes) in &runs[..behind.index(runs.len() + 1)] {
                            sink.push(*pgoff, bytes)?;
                        }
                        Err(StoreError::Invalid { epoch: 0, what: "given up".into() })
                    });
                    prop_assert!(given_up.is_err());
                }
                Step::Reopen { compression, threads, share } => {
                    drop(writer);
                    let options = Options { segment_bytes, compression, threads, share };
                    let (reopened, recovery) = Writer::open_or_create(&dir, options)?;
                    prop_assert_eq!(recovery, Default::default());
                    writer = reopened;
                }
            }
        }
        // The writer's own view and a reader's are the same.
        prop_assert_eq!(check_against(writer.chain(), &images), Vec::<u64>::new());
        let chain = Chain::open(&dir)?;
        prop_assert_eq!(check_against(&chain, &images), Vec::<u64>::new());
        prop_assert_eq!(
            chain.commits().collect::<Vec<_>>(),
            writer.chain().commits().collect::<Vec<_>>()
        );
        let report = chain.verify(|_, _| {})?;
        prop_assert_eq!(report.damage, vec![]);
        prop_assert_eq!(report.torn, None);
        prop_assert_eq!(report.restorable, images.keys().copied().collect::<Vec<_>>());
        for (cost, image) in chain.full_costs()?.iter().zip(images.values()) {
            let live = image.chunks_exact(PAGE).filter(|page| page.iter().any(|&byte| byte != 0));
            prop_assert_eq!(cost.live_pages as usize, live.count());
        }
    }
}

#[test]
fn pages_that_were_packed_side_by_side_restore_to_what_was_committed() {
    let temp = memory_dir();
    let pages: u64 = 5000;
    let meta = CommitMeta {
        arena_len_pages: pages,
        ..meta(1, None)
    };
    // Runs of all lengths, with zeros, noise and evenness between them.
    let fill = |pgoff: u64| match (pgoff.wrapping_mul(0x9e37_79b9) >> 7) & 15 {
        0 => Fill::Zero,
        1..5 => Fill::Noise(pgoff),
        _ => Fill::Even((pgoff >> 4) as u8 | 1),
    };
    let bytes: Vec<u8> = (0..pages).flat_map(|pgoff| fill(pgoff).page()).collect();
    let mut files = Vec::new();
    for threads in [1, 2, 3, 7] {
        let dir = temp.path().join(threads.to_string());
        let options = Options {
            threads,
            share: false,
            ..Options::default()
        };
        let (mut writer, _) = Writer::open_or_create(&dir, options).unwrap();
        let runs = [(0, &bytes[..PAGE * 77]), (77, &bytes[PAGE * 77..])];
        writer.append(&meta, runs).unwrap();
        assert_eq!(writer.chain().verify(|_, _| {}).unwrap().damage, vec![]);
        let restored = restore_in_parallel(writer.chain(), 1, threads, pages).unwrap();
        assert!(restored == bytes, "{threads} threads");
        let content = std::fs::read(segments(&dir)[0].0.clone()).unwrap();
        // All but ids, offsets and hashes: the page data and the index.
        files.push(content[BLOCK + 256..content.len() - 256].to_vec());
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn damage_that_several_threads_can_find_is_told_as_the_first_of_it() {
    let temp = memory_dir();
    let pages = 3000;
    let meta = CommitMeta {
        arena_len_pages: pages,
        ..meta(1, None)
    };
    let bytes: Vec<u8> = (0..pages)
        .flat_map(|pgoff| Fill::Noise(pgoff).page())
        .collect();
    let (mut writer, _) = open(temp.path(), 1 << 30).unwrap();
    writer.append(&meta, [(0, bytes.as_slice())]).unwrap();
    let (path, mut content) = segments(temp.path()).pop().unwrap();
    // In every MiB, from the third on.
    for at in (2 << 20..content.len() - 8192).step_by(1 << 20) {
        content[at] ^= 1;
    }
    std::fs::write(path, content).unwrap();
    let alone = restore_in_parallel(writer.chain(), 1, 1, pages).unwrap_err();
    assert!(
        alone
            .to_string()
            .contains("epoch 1: the bytes of pages 448 to 511"),
        "{alone}"
    );
    for _ in 0..10 {
        let error = restore_in_parallel(writer.chain(), 1, 4, pages).unwrap_err();
        assert!(error.is_damage(), "{error}");
    }
}

#[test]
fn zstd_is_announced_by_a_segment_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let images = small_chain(temp.path());
    let before = segments(temp.path());
    let options = Options {
        compression: Compression::Zstd(3),
        ..Options::default()
    };
    let (mut writer, _) = Writer::open_or_create(temp.path(), options).unwrap();
    for epoch in 8..10 {
        let mut images = images.clone();
        images.insert(epoch - 1, images[&7].clone());
        let delta = [(3, Fill::Even(epoch as u8))].into();
        append(&mut writer, &mut images, &meta(epoch, epoch - 1), &delta).unwrap();
        assert_eq!(
            writer.chain().find(epoch).unwrap().segment as usize,
            before.len() + 1
        );
    }
    drop(writer);
    let after = segments(temp.path());
    let features: Vec<u8> = after.iter().map(|(_, content)| content[16]).collect();
    let old = before.iter().map(|(_, content)| content[16]);
    assert_eq!(
        features,
        old.chain([before[0].1[16] | 1]).collect::<Vec<_>>()
    );
    // Whoever does not use it any more need not begin another segment.
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    writer.append(&meta(10, 9), []).unwrap();
    assert_eq!(segments(temp.path()).len(), after.len());
}

#[test]
fn a_commit_says_of_itself_what_the_program_said() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(chain.get(1).unwrap(), meta(1, None));
    assert_eq!(chain.get(7).unwrap(), meta(7, 6));
    assert_eq!(chain.newest().unwrap().unwrap().epoch, 7);
    assert_eq!(chain.find(6).unwrap().kind, Kind::Restore);
}

#[test]
fn an_abandoned_branch_stays_restorable() {
    let temp = tempfile::tempdir().unwrap();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(chain.find(5).unwrap().parent, Some(2));
    assert_eq!(chain.find(6).unwrap().parent, Some(2));
    assert!(restore(&chain, 5).unwrap() == images[&5]);
    assert!(restore(&chain, 7).unwrap() == images[&7]);
}

#[test]
fn a_loader_reads_in_the_order_of_the_files() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let mut loader = chain.load(7).unwrap();
    let mut order = Vec::new();
    while let Some(run) = loader.next_run().unwrap() {
        order.push(run.pgoff);
    }
    // 9 and 63 are from epoch 2, the others from epoch 7, which lies behind it.
    assert_eq!(order, [9, 63, 3, 50]);
}

#[test]
fn zero_pages_take_no_room_and_even_pages_little() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options {
        share: false,
        ..Options::default()
    };
    let (mut writer, _) = Writer::open_or_create(temp.path(), options).unwrap();
    let mut stored = |epoch, fill: fn(u64) -> Fill| {
        let delta = (0..ARENA_PAGES).map(|pgoff| (pgoff, fill(pgoff))).collect();
        append(&mut writer, &mut Images::new(), &meta(epoch, None), &delta).unwrap();
        writer.chain().find(epoch).unwrap().clone()
    };
    let zero = stored(1, |_| Fill::Zero);
    assert_eq!(
        (zero.zero_pages, zero.data_pages, zero.stored_bytes),
        (ARENA_PAGES, 0, 4096)
    );
    let even = stored(2, |_| Fill::Even(1));
    assert_eq!((even.zero_pages, even.data_pages), (0, ARENA_PAGES));
    assert!(even.stored_bytes < 9000, "{}", even.stored_bytes);
    let noise = stored(3, Fill::Noise);
    assert!(noise.stored_bytes > ARENA_PAGES * 4096);
    assert!(
        noise.stored_bytes < ARENA_PAGES * 4096 + 8192,
        "{}",
        noise.stored_bytes
    );
}

#[test]
fn an_epoch_must_be_above_all_others() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    for epoch in [1, 3, 6, 7] {
        let refused = writer.append(&meta(epoch, None), []).unwrap_err();
        assert!(
            matches!(refused, StoreError::EpochOrder { newest: 7, .. }),
            "{refused}"
        );
    }
    assert_eq!(writer.append(&meta(8, 7), []).unwrap().epoch, 8);
}

#[test]
fn a_parent_must_be_there() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    for parent in [3, 4, 8, 9] {
        let refused = writer.append(&meta(9, parent), []).unwrap_err();
        assert!(
            matches!(refused, StoreError::NoSuchEpoch { .. }),
            "{refused}"
        );
    }
}

#[test]
fn what_cannot_be_stored_is_refused_and_leaves_no_trace() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    let before = segments(temp.path());
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    let page = vec![1; PAGE];
    let two = vec![1; 2 * PAGE];
    let runs: [&[(u64, &[u8])]; 5] = [
        &[(3, &page[1..])],
        &[(3, &page), (3, &page)],
        &[(3, &two), (4, &page)],
        &[(ARENA_PAGES, &page)],
        &[(u64::MAX, &two)],
    ];
    for runs in runs {
        let refused = writer
            .append(&meta(8, 7), runs.iter().copied())
            .unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    }
    let metas: [&dyn Fn(&mut CommitMeta); 6] = [
        &|meta| meta.regions[1].name = "heap".into(),
        &|meta| meta.regions[0].name = String::new(),
        &|meta| meta.regions[0].reserve_pages = 300,
        &|meta| meta.regions[1].len_pages = 41,
        &|meta| meta.page_shift = 13,
        &|meta| meta.identity.build_id = vec![0; 65],
    ];
    for spoil in metas {
        let mut meta = meta(8, 7);
        spoil(&mut meta);
        let refused = writer.append(&meta, []).unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    }
    assert_eq!(segments(temp.path()), before);
}

#[test]
fn a_second_writer_is_refused_and_told_who_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let (writer, _) = open(temp.path(), 1 << 20).unwrap();
    let refused = open(temp.path(), 1 << 20).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(refused, StoreError::Locked { pid: Some(pid), alive: true, .. } if pid == own),
        "{refused}"
    );
    drop(writer);
    open(temp.path(), 1 << 20).unwrap();
}

#[test]
fn a_reader_needs_no_lock_and_sees_what_is_durable() {
    let temp = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    assert_eq!(Chain::open(temp.path()).unwrap().newest().unwrap(), None);
    writer.append(&meta(1, None), []).unwrap();
    assert_eq!(
        Chain::open(temp.path())
            .unwrap()
            .newest()
            .unwrap()
            .unwrap()
            .epoch,
        1
    );
}

#[test]
fn a_chain_is_not_begun_among_other_files() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("letter.txt"), "dear").unwrap();
    let refused = open(temp.path(), 1 << 20).unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty { .. }), "{refused}");
    assert!(!temp.path().join("LOCK").exists());
    assert!(matches!(
        Chain::open(temp.path()),
        Err(StoreError::NoChain { .. })
    ));
}

#[test]
fn what_is_no_directory_is_no_chain() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(
        Chain::open(&file),
        Err(StoreError::NoChain { .. })
    ));
    assert!(matches!(open(&file, 1 << 20), Err(StoreError::Io { .. })));
    let nowhere = temp.path().join("a/b");
    assert!(matches!(
        Chain::open(&nowhere),
        Err(StoreError::NoChain { .. })
    ));
    assert!(matches!(
        open(&nowhere, 1 << 20),
        Err(StoreError::Io { .. })
    ));
}

#[test]
fn a_chain_can_only_be_read_by_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("chain");
    small_chain(&dir);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for (path, _) in segments(&dir) {
        assert_eq!(mode(&path), 0o600);
    }
}

/// Changes the segment headers of a chain and seals them again.
fn edit_headers(dir: &std::path::Path, edit: impl Fn(&mut [u8])) {
    for (path, mut content) in segments(dir) {
        for at in [0, 2048] {
            let header = &mut content[at..at + 128];
            edit(header);
            let crc = crc32c::crc32c(&header[..124]);
            header[124..].copy_from_slice(&crc.to_le_bytes());
        }
        std::fs::write(path, content).unwrap();
    }
}

#[test]
fn a_chain_of_a_later_version_is_refused_and_not_taken_for_damaged() {
    let temp = tempfile::tempdir().unwrap();
    small_chain(temp.path());
    edit_headers(temp.path(), |header| header[8] = 2);
    let refused = Chain::open(temp.path()).unwrap_err();
    assert!(
        matches!(refused, StoreError::Unsupported { .. }),
        "{refused}"
    );
    let refused = open(temp.path(), 1 << 20).unwrap_err();
    assert!(
        matches!(refused, StoreError::Unsupported { .. }),
        "{refused}"
    );
}

#[test]
fn unknown_features_are_refused_as_far_as_they_must_be() {
    let temp = tempfile::tempdir().unwrap();
    let images = small_chain(temp.path());
    edit_headers(temp.path(), |header| header[32] = 1);
    assert!(open(temp.path(), 1 << 20).is_ok());
    edit_headers(temp.path(), |header| header[24] = 1);
    assert!(matches!(
        open(temp.path(), 1 << 20),
        Err(StoreError::Unsupported { .. })
    ));
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(check_against(&chain, &images), Vec::<u64>::new());
    edit_headers(temp.path(), |header| header[16] = 0x80);
    assert!(matches!(
        Chain::open(temp.path()),
        Err(StoreError::Unsupported { .. })
    ));
}
