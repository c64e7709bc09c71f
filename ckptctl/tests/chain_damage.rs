// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Nothing that is wrong in a chain is overlooked, handed out, or taken for
//! something else.

mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use ckptctl::store::Chain;
use ckptctl::store::CommitInfo;
use ckptctl::store::CommitMeta;
use proptest::prelude::*;
use support::*;

const BLOCK: usize = 4096;

#[test]
fn bytes_behind_the_end_are_never_ignored() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    for (i, (path, content)) in segments(temp.path()).into_iter().enumerate() {
        for extra in [vec![1], vec![0; BLOCK], vec![7; 3 * BLOCK], content.clone()] {
            fs::write(&path, [content.as_slice(), &extra].concat()).unwrap();
            let report = verify(temp.path(), &images);
            // Behind the last record an append may have been torn; what is
            // neither short nor begins with zeros is something else.
            let torn = i == 1 && (extra.len() == 1 || extra[0] == 0);
            assert_eq!(report.damage.is_empty(), torn, "{report:?}");
            assert_eq!(report.torn.is_some(), torn, "{report:?}");
            assert_eq!(report.restorable.len(), images.len());
        }
        fs::write(&path, content).unwrap();
    }
}

#[test]
fn zeros_where_a_record_was_are_damage_when_something_stands_behind_them() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    for (i, (path, content)) in segments(temp.path()).into_iter().enumerate() {
        for at in (BLOCK..content.len() - BLOCK).step_by(BLOCK) {
            let mut holed = content.clone();
            holed[at..at + BLOCK].fill(0);
            fs::write(&path, &holed).unwrap();
            let report = verify(temp.path(), &images);
            assert!(!report.damage.is_empty(), "segment {i}, {at}");
            a_writer_cuts_nothing(temp.path());
            assert_eq!(fs::read(&path).unwrap(), holed);
        }
        fs::write(&path, content).unwrap();
    }
}

#[test]
fn zeros_where_a_footer_was_are_damage_when_something_stands_behind_them() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let commits: Vec<_> = chain.commits().collect();
    for commit in &commits[..commits.len() - 1] {
        let path = chain.file_of(commit);
        let content = fs::read(path).unwrap();
        let end = (commit.offset + commit.stored_bytes) as usize;
        let mut holed = content.clone();
        holed[end - 256..end].fill(0);
        fs::write(path, holed).unwrap();
        let report = verify(temp.path(), &images);
        assert!(report.lost.contains(&commit.epoch), "{report:?}");
        assert_eq!(report.torn, None);
        a_writer_cuts_nothing(temp.path());
        fs::write(path, content).unwrap();
    }
}

#[test]
fn a_record_that_is_damaged_at_both_ends_does_not_hide_the_next_one() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let commit = chain.find(5).unwrap();
    let path = chain.file_of(commit);
    let mut content = fs::read(path).unwrap();
    content[commit.offset as usize + 50] ^= 1;
    content[(commit.offset + commit.stored_bytes) as usize - 50] ^= 1;
    fs::write(path, content).unwrap();
    let report = verify(temp.path(), &images);
    // Nothing tells any more that it was epoch 5.
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.restorable, [1, 2, 6, 7]);
}

#[test]
fn a_damaged_last_record_is_not_given_up_for_an_older_epoch() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let last = chain.newest().unwrap().unwrap().clone();
    let (path, content) = segments(temp.path()).pop().unwrap();
    let places = [
        ("header", last.offset + 30),
        ("meta", last.offset + 260),
        ("footer", last.offset + last.stored_bytes - 20),
    ];
    for (name, at) in places {
        let mut damaged = content.clone();
        damaged[at as usize] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        let chain = Chain::open(temp.path()).unwrap();
        assert!(chain.newest().is_err(), "{name}");
        let refused = open(temp.path(), 16_000).unwrap_err();
        assert!(refused.is_damage(), "{name}: {refused}");
        // What the advice says works.
        let advice = format!("truncate -s {} {}", last.offset, path.display());
        assert!(refused.to_string().contains(&advice), "{name}: {refused}");
        fs::write(&path, &damaged[..last.offset as usize]).unwrap();
        let (writer, recovery) = open(temp.path(), 16_000).unwrap();
        assert_eq!(recovery, Default::default());
        let restorable = images.keys().filter(|epoch| **epoch != last.epoch).count();
        assert_eq!(writer.chain().commits().count(), restorable);
    }
}

#[test]
fn a_damaged_last_record_is_seen_from_an_empty_segment_behind_it() {
    let temp = memory_dir();
    let (mut writer, _) = open(temp.path(), 4096).unwrap();
    for epoch in 1..=3 {
        writer.append(&meta(epoch, None), []).unwrap();
    }
    drop(writer);
    let files = segments(temp.path());
    // As if the writer had ended right after beginning the third segment.
    fs::write(&files[2].0, &files[2].1[..BLOCK]).unwrap();
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(chain.newest().unwrap().unwrap().epoch, 2);
    let mut content = files[1].1.clone();
    let len = content.len();
    content[BLOCK + 30] ^= 1;
    content[len - 30] ^= 1;
    fs::write(&files[1].0, content).unwrap();
    // Which epoch is lost cannot be told, so no epoch can follow it.
    assert!(Chain::open(temp.path()).unwrap().newest().is_err());
    assert!(open(temp.path(), 4096).unwrap_err().is_damage());
}

#[test]
fn damage_in_page_data_costs_only_epochs_that_still_have_the_page() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    // Page 9 is noise: stored as it is in epochs 1 and 2.
    let (path, content) = segments(temp.path()).remove(0);
    let lost_with = |noise: u64| {
        let needle = Fill::Noise(noise).page();
        let at = content
            .windows(PAGE)
            .position(|window| window == needle)
            .unwrap();
        let mut damaged = content.clone();
        damaged[at + 100] ^= 1;
        fs::write(&path, damaged).unwrap();
        let report = verify(temp.path(), &images);
        assert_eq!(report.damage.len(), 1);
        assert_eq!(report.damage[0].offset, at as u64);
        report.lost
    };
    assert_eq!(lost_with(1), [1]);
    assert_eq!(lost_with(2), [2, 5, 6, 7]);
    assert_eq!(chain.commits().count(), 5);
}

#[test]
fn a_smaller_arena_does_without_the_pages_behind_its_end_and_their_damage() {
    let temp = memory_dir();
    let mut images = Images::new();
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    let small = CommitMeta {
        arena_len_pages: 32,
        regions: vec![],
        ..meta(2, 1)
    };
    let delta = [(3, Fill::Even(1)), (60, Fill::Noise(4))].into();
    append(&mut writer, &mut images, &meta(1, None), &delta).unwrap();
    append(&mut writer, &mut images, &small, &Delta::new()).unwrap();
    append(&mut writer, &mut images, &meta(3, 2), &Delta::new()).unwrap();
    images.get_mut(&2).unwrap()[32 * PAGE..].fill(0);
    assert_eq!(check_against(writer.chain(), &images), Vec::<u64>::new());
    let (path, mut content) = segments(temp.path()).remove(0);
    let noise = Fill::Noise(4).page();
    let at = content
        .windows(PAGE)
        .position(|window| window == noise)
        .unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
    assert_eq!(verify(temp.path(), &images).lost, [1, 3]);
}

#[test]
fn a_missing_segment_is_named_with_what_it_costs() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let segments = segments(temp.path());
    let (first, _) = &segments[0];
    fs::remove_file(first).unwrap();
    let report = verify(temp.path(), &images);
    assert!(
        report.damage.iter().any(|damage| damage.file == *first),
        "{report:?}"
    );
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(
        check_against(&chain, &images),
        images.keys().copied().collect::<Vec<_>>()
    );
}

#[test]
fn segments_that_were_exchanged_are_found() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let segments = segments(temp.path());
    fs::write(&segments[0].0, &segments[1].1).unwrap();
    fs::write(&segments[1].0, &segments[0].1).unwrap();
    let report = verify(temp.path(), &images);
    assert!(report.restorable.is_empty());
    assert!(report.damage.len() >= 2, "{report:?}");
}

#[test]
fn a_segment_of_another_chain_is_found() {
    let (temp, other) = (memory_dir(), memory_dir());
    let images = small_chain(temp.path());
    small_chain(other.path());
    let theirs = segments(other.path());
    let mine = segments(temp.path());
    fs::write(&mine[1].0, &theirs[1].1).unwrap();
    let report = verify(temp.path(), &images);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].file, mine[1].0);
}

#[test]
fn a_segment_that_lost_both_headers_costs_its_records() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let in_second: Vec<u64> = chain
        .commits()
        .filter(|commit| commit.segment == 2)
        .map(|commit| commit.epoch)
        .collect();
    let (path, mut content) = segments(temp.path()).pop().unwrap();
    content[..BLOCK].fill(0xff);
    fs::write(&path, content).unwrap();
    let report = verify(temp.path(), &images);
    assert_eq!(report.lost, in_second);
    assert!(open(temp.path(), 16_000).unwrap_err().is_damage());
}

#[test]
fn what_was_left_of_a_segment_in_the_making_is_removed_by_the_next_writer() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let unfinished = temp.path().join("segment-0000000003.ckpt.tmp");
    fs::write(&unfinished, [1; 77]).unwrap();
    let report = verify(temp.path(), &images);
    assert_eq!(report.damage, vec![]);
    assert_eq!(report.unfinished, vec![unfinished.clone()]);
    let (_writer, recovery) = open(temp.path(), 16_000).unwrap();
    assert_eq!(recovery.removed, vec![unfinished.clone()]);
    assert!(!unfinished.exists());
}

#[test]
fn a_damaged_parent_is_nothing_to_build_on() {
    let temp = memory_dir();
    small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let footer = {
        let commit = chain.find(5).unwrap();
        (
            chain.file_of(commit).to_owned(),
            commit.offset + commit.stored_bytes - 20,
        )
    };
    let (path, at): (PathBuf, u64) = footer;
    let mut content = fs::read(&path).unwrap();
    content[at as usize] ^= 1;
    fs::write(&path, content).unwrap();
    let (mut writer, recovery) = open(temp.path(), 1 << 20).unwrap();
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!(recovery.damage[0].lost, [5]);
    assert!(writer.append(&meta(8, 5), []).unwrap_err().is_damage());
    writer.append(&meta(8, 7), []).unwrap();
}

/// Makes the checksum at the end of a header or footer right again.
fn reseal(sealed: &mut [u8]) {
    let body = sealed.len() - 4;
    let crc = crc32c::crc32c(&sealed[..body]);
    sealed[body..].copy_from_slice(&crc.to_le_bytes());
}

/// Checksums guard against accidents, hashes against what goes round them.
#[test]
fn a_change_with_the_right_checksum_is_found_by_the_hash() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    for epoch in [2, 7] {
        let commit = chain.find(epoch).unwrap();
        let path = chain.file_of(commit).to_owned();
        let content = fs::read(&path).unwrap();
        let header = commit.offset as usize;
        let footer = header + commit.stored_bytes as usize - 256;
        for start in [header, footer] {
            for at in start..start + 252 {
                let mut forged = content.clone();
                forged[at] ^= 1;
                reseal(&mut forged[start..start + 256]);
                fs::write(&path, &forged).unwrap();
                let report = verify(temp.path(), &images);
                assert!(
                    !report.damage.is_empty(),
                    "epoch {epoch}, byte {}",
                    at - start
                );
                // Its epoch may be what was forged, so it may be lost without a name.
                assert!(
                    !report.restorable.contains(&epoch),
                    "epoch {epoch}, byte {}",
                    at - start
                );
                assert_eq!(report.torn, None, "epoch {epoch}, byte {}", at - start);
            }
        }
        fs::write(&path, content).unwrap();
    }
}

/// Changes a record, and makes anew all that vouches for it but the body's hash.
fn forge(path: &Path, commit: &CommitInfo, change: impl Fn(&mut [u8])) {
    let mut content = fs::read(path).unwrap();
    let end = commit.offset + commit.stored_bytes;
    let record = &mut content[commit.offset as usize..end as usize];
    change(record);
    let (body, footer) = record.split_at_mut(commit.stored_bytes as usize - 256);
    reseal(&mut body[..256]);
    let hashed = [&footer[56..88], &body[..256], &footer[88..120]].concat();
    footer[120..152].copy_from_slice(blake3::hash(&hashed).as_bytes());
    reseal(footer);
    fs::write(path, content).unwrap();
}

/// Changes the pause that a commit tells of.
fn forge_pause(record: &mut [u8]) {
    record[96] ^= 1;
}

#[test]
fn pages_that_were_replaced_with_their_checksums_are_found_by_the_hash() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let commit = chain.find(7).unwrap();
    forge(chain.file_of(commit), commit, |record| {
        let number = |record: &[u8], at: usize| {
            usize::try_from(u64::from_le_bytes(record[at..at + 8].try_into().unwrap())).unwrap()
        };
        let index = number(record, 144)..number(record, 144) + number(record, 152);
        // The last run is page 50, noise, stored as it is.
        let entry = index.end - 32;
        let page = number(record, entry + 16);
        record[page..page + PAGE].fill(7);
        let crc = crc32c::crc32c(&record[page..page + PAGE]);
        record[entry + 28..entry + 32].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&record[index]);
        record[180..184].copy_from_slice(&crc.to_le_bytes());
    });
    // Loading checks the checksums alone: a forger is what verifying is for.
    let report = Chain::open(temp.path()).unwrap().verify(|_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.lost, [7]);
    assert_eq!(report.restorable.len(), images.len() - 1);
}

#[test]
fn a_record_that_was_replaced_by_another_is_found_by_the_one_that_builds_on_it() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let commit = chain.find(1).unwrap();
    forge(chain.file_of(commit), commit, forge_pause);
    let report = verify(temp.path(), &images);
    assert_eq!(report.restorable, [1]);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.lost, [2, 5, 6, 7]);
}

#[test]
fn a_record_that_was_replaced_at_the_end_of_a_segment_is_found_by_the_next_segment() {
    let temp = memory_dir();
    let mut images = Images::new();
    let (mut writer, _) = open(temp.path(), 4096).unwrap();
    // Nothing builds on epoch 2.
    for (epoch, parent) in [(1, None), (2, Some(1)), (3, Some(1))] {
        append(
            &mut writer,
            &mut images,
            &meta(epoch, parent),
            &Delta::new(),
        )
        .unwrap();
    }
    let commit = writer.chain().find(2).unwrap().clone();
    let path = writer.chain().file_of(&commit).to_owned();
    drop(writer);
    forge(&path, &commit, forge_pause);
    let report = verify(temp.path(), &images);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].file, path);
}

/// A change to a chain's files.
#[derive(Clone, Debug)]
enum Harm {
    Set {
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Copy {
        from: prop::sample::Index,
        to: prop::sample::Index,
        len: usize,
    },
    Cut {
        at: prop::sample::Index,
    },
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(at, bytes)| Harm::Set { at, bytes }),
        2 => (index(), index(), prop_oneof![Just(BLOCK), Just(256), 1..9000usize])
            .prop_map(|(from, to, len)| Harm::Copy { from, to, len }),
        1 => index().prop_map(|at| Harm::Cut { at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    // `check_against` fails when anything comes out other than it was committed.
    #[test]
    fn no_harm_makes_a_chain_hand_out_something_else(
        harms in prop::collection::vec((any::<bool>(), harm()), 1..6),
    ) {
        let temp = memory_dir();
        let images = small_chain(temp.path());
        let mut segments = segments(temp.path());
        for (first, harm) in harms {
            let content = &mut segments[usize::from(!first)].1;
            if content.is_empty() {
                continue;
            }
            match harm {
                Harm::Set { at, bytes } => {
                    let at = at.index(content.len());
                    let len = bytes.len().min(content.len() - at);
                    content[at..at + len].copy_from_slice(&bytes[..len]);
                }
                Harm::Copy { from, to, len } => {
                    // Blocks are what a file system confuses.
                    let from = from.index(content.len()) / BLOCK * BLOCK;
                    let to = to.index(content.len()) / BLOCK * BLOCK;
                    let len = len.min(content.len() - from.max(to));
                    content.copy_within(from..from + len, to);
                }
                Harm::Cut { at } => content.truncate(at.index(content.len())),
            }
        }
        for (path, content) in &segments {
            fs::write(path, content)?;
        }
        verify(temp.path(), &images);
        if let Ok((writer, _)) = open(temp.path(), 16_000) {
            check_against(writer.chain(), &images);
        }
        verify(temp.path(), &images);
    }
}
