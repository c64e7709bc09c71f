// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Content that the chain has is not stored again, and references that are not right are
//! damage.

mod support;

use std::fs;
use std::path::Path;

use ckptctl::store::Chain;
use ckptctl::store::CommitInfo;
use ckptctl::store::CommitMeta;
use ckptctl::store::Options;
use ckptctl::store::Writer;
use support::Fill::Even;
use support::Fill::Noise;
use support::Fill::Zero;
use support::*;

/// A chain, and what its epochs must be.
struct Story {
    dir: tempfile::TempDir,
    writer: Writer,
    images: Images,
    newest: Option<u64>,
}

impl Story {
    fn begin() -> Story {
        let dir = memory_dir();
        let (writer, _) = open(dir.path(), 1 << 20).unwrap();
        Story {
            dir,
            writer,
            images: Images::new(),
            newest: None,
        }
    }

    /// Commits, and checks all epochs up to then.
    fn commit(&mut self, delta: &[(u64, Fill)]) -> CommitInfo {
        let epoch = self.newest.unwrap_or(0) + 1;
        self.commit_from(self.newest, epoch, delta)
    }

    fn commit_from(
        &mut self,
        parent: Option<u64>,
        epoch: u64,
        delta: &[(u64, Fill)],
    ) -> CommitInfo {
        let delta = delta.iter().copied().collect();
        let meta = meta(epoch, parent);
        append(&mut self.writer, &mut self.images, &meta, &delta).unwrap();
        self.newest = Some(epoch);
        assert_eq!(verify(self.dir.path(), &self.images).damage, vec![]);
        self.writer.chain().find(epoch).unwrap().clone()
    }
}

/// Data, zero, shared and unchanged pages.
fn counts(info: &CommitInfo) -> [u64; 4] {
    [
        info.data_pages,
        info.zero_pages,
        info.shared_pages,
        info.unchanged_pages,
    ]
}

#[test]
fn a_page_that_was_written_with_what_it_had_is_left_out() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1)), (4, Noise(2)), (9, Zero)]);
    let info = story.commit(&[(3, Noise(1)), (4, Noise(3)), (9, Zero)]);
    assert_eq!(counts(&info), [1, 0, 0, 2]);
    assert_eq!(info.pages(), 3);
    let info = story.commit(&[(3, Noise(1)), (4, Noise(3)), (9, Zero)]);
    assert_eq!(counts(&info), [0, 0, 0, 3]);
    assert_eq!(info.stored_bytes, 4096);
}

#[test]
fn what_it_had_is_what_the_last_durable_epoch_has() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1))]);
    let page = Noise(2).page();
    let given_up = story.writer.append_with(&meta(2, 1), |sink| {
        sink.push(3, &page)?;
        Err(ckptctl::store::StoreError::Invalid {
            epoch: 2,
            what: "given up".into(),
        })
    });
    assert!(given_up.is_err());
    let info = story.commit(&[(3, Noise(2))]);
    assert_eq!(counts(&info), [1, 0, 0, 0]);
    let info = story.commit(&[(3, Noise(1))]);
    assert_eq!(counts(&info), [1, 0, 0, 0], "an older content is not kept");
}

#[test]
fn pages_that_are_alike_are_stored_once() {
    let mut story = Story::begin();
    let many: Vec<(u64, Fill)> = (0..60).map(|pgoff| (pgoff, Noise(pgoff % 4))).collect();
    let info = story.commit(&many);
    assert_eq!(counts(&info), [4, 0, 56, 0]);
    assert!(info.stored_bytes < 6 * 4096, "{}", info.stored_bytes);
}

#[test]
fn a_page_like_another_one_of_the_parent_is_not_stored() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1)), (4, Noise(2)), (5, Noise(3))]);
    let info = story.commit(&[(13, Noise(1)), (14, Noise(2)), (15, Noise(3))]);
    assert_eq!(counts(&info), [0, 0, 3, 0]);
    // Also when the other one is gone by then, and when they change places.
    let info = story.commit(&[(3, Zero), (4, Noise(3)), (5, Noise(2)), (20, Noise(1))]);
    assert_eq!(counts(&info), [0, 1, 3, 0]);
    let info = story.commit(&[(13, Even(1)), (14, Noise(4)), (3, Noise(1))]);
    assert_eq!(counts(&info), [2, 0, 1, 0]);
}

#[test]
fn another_branch_takes_nothing_from_this_one() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1))]);
    story.commit(&[(3, Noise(2)), (4, Noise(3))]);
    let info = story.commit_from(Some(1), 3, &[(3, Noise(2)), (5, Noise(3))]);
    assert_eq!(counts(&info), [2, 0, 0, 0]);
    let info = story.commit(&[(3, Noise(2)), (6, Noise(3))]);
    assert_eq!(counts(&info), [0, 0, 1, 1]);
    let info = story.commit_from(None, 5, &[(3, Noise(2))]);
    assert_eq!(counts(&info), [1, 0, 0, 0]);
}

#[test]
fn what_was_restored_is_known_as_if_it_had_been_written() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1)), (4, Noise(2)), (5, Even(1))]);
    story.commit(&[(3, Noise(3)), (4, Zero), (40, Noise(1))]);
    for (epoch, changed) in [(2, 0), (1, 3)] {
        drop(story.writer);
        (story.writer, _) = open(story.dir.path(), 1 << 20).unwrap();
        story.writer.restore(epoch, 2, |_, _| {}).unwrap();
        let next = story.newest.unwrap() + 1;
        // As the library notes a restore.
        story.commit_from(Some(epoch), next, &[]);
        let info = story.commit(&[(3, Noise(3)), (5, Even(1)), (40, Noise(1)), (50, Noise(1))]);
        let shared = [info.data_pages, info.shared_pages, info.unchanged_pages];
        match changed {
            0 => assert_eq!(shared, [0, 1, 3]),
            _ => assert_eq!(shared, [1, 2, 1]),
        }
    }
}

#[test]
fn a_restore_that_failed_leaves_nothing_known() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1)), (4, Noise(2))]);
    story.commit(&[(4, Noise(3))]);
    let (path, mut content) = segments(story.dir.path()).pop().unwrap();
    let noise = Noise(3).page();
    let at = content
        .windows(PAGE)
        .position(|bytes| bytes == noise)
        .unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
    drop(story.writer);
    let (mut writer, _) = open(story.dir.path(), 1 << 20).unwrap();
    assert!(writer.restore(2, 2, |_, _| {}).is_err());
    let page = Noise(1).page();
    writer.append(&meta(3, 1), [(3, page.as_slice())]).unwrap();
    assert_eq!(counts(writer.chain().find(3).unwrap()), [1, 0, 0, 0]);
}

#[test]
fn sharing_can_be_switched_off() {
    let temp = memory_dir();
    let options = Options {
        share: false,
        ..Options::default()
    };
    let (mut writer, _) = Writer::open_or_create(temp.path(), options).unwrap();
    let mut images = Images::new();
    let delta = [(3, Noise(1)), (4, Noise(1))].into();
    append(&mut writer, &mut images, &meta(1, None), &delta).unwrap();
    append(&mut writer, &mut images, &meta(2, 1), &delta).unwrap();
    for info in writer.chain().commits() {
        assert_eq!(counts(info), [2, 0, 0, 0]);
    }
    assert_eq!(verify(temp.path(), &images).damage, vec![]);
    // A reader that knows nothing of sharing can read it.
    assert_eq!(segments(temp.path())[0].1[16], 0);
}

#[test]
fn an_arena_that_becomes_smaller_and_larger_has_only_what_it_has() {
    let mut story = Story::begin();
    story.commit(&[(3, Noise(1)), (60, Noise(2))]);
    let meta = |epoch: u64, arena_len_pages: u64| CommitMeta {
        arena_len_pages,
        regions: vec![],
        ..meta(epoch, epoch - 1)
    };
    let page = Noise(2).page();
    let writer = &mut story.writer;
    writer.append(&meta(2, 50), []).unwrap();
    // Page 60 is beyond the parent's arena now.
    writer.append(&meta(3, 64), [(4, page.as_slice())]).unwrap();
    assert_eq!(counts(writer.chain().find(3).unwrap()), [1, 0, 0, 0]);
    assert_eq!(
        restore(writer.chain(), 3).unwrap()[4 * PAGE..5 * PAGE],
        page
    );
}

#[test]
fn damage_of_a_page_costs_the_epochs_that_have_it_by_reference() {
    let mut story = Story::begin();
    let first = story.commit(&[(3, Noise(1)), (7, Noise(1)), (8, Noise(9))]);
    story.commit(&[(3, Even(1)), (7, Even(2)), (20, Noise(1))]);
    story.commit(&[(20, Even(2)), (30, Noise(1))]);
    story.commit(&[(30, Zero)]);
    let (path, mut content) = segments(story.dir.path()).pop().unwrap();
    let noise = Noise(1).page();
    let at = content
        .windows(PAGE)
        .position(|bytes| bytes == noise)
        .unwrap();
    assert!(at as u64 > first.offset);
    content[at] ^= 1;
    fs::write(path, content).unwrap();
    let report = verify(story.dir.path(), &story.images);
    assert_eq!((report.lost, report.restorable), (vec![1, 2, 3], vec![4]));
}

/// Lets `forge` change the header and the entries of the index of the last record, and then
/// puts right whatever vouches for them.
fn forge(dir: &Path, forge: impl FnOnce(&mut [u8], &mut Vec<[u8; 32]>)) {
    let chain = Chain::open(dir).unwrap();
    let last = chain.commits().next_back().unwrap();
    let (path, mut content) = segments(dir).pop().unwrap();
    let record = &mut content[last.offset as usize..];
    let number = |record: &[u8], at: usize| {
        u64::from_le_bytes(record[at..at + 8].try_into().unwrap()) as usize
    };
    let (index_off, index_len) = (number(record, 144), number(record, 152));
    let index = &record[index_off..index_off + index_len];
    let mut entries: Vec<[u8; 32]> = index
        .chunks_exact(32)
        .map(|entry| entry.try_into().unwrap())
        .collect();
    let (header, body) = record.split_at_mut(256);
    forge(header, &mut entries);
    assert_eq!(entries.len() * 32, index_len, "an index keeps its length");
    let index = entries.concat();
    body[index_off - 256..][..index_len].copy_from_slice(&index);
    header[180..184].copy_from_slice(&crc32c::crc32c(&index).to_le_bytes());
    let crc = crc32c::crc32c(&header[..252]);
    header[252..].copy_from_slice(&crc.to_le_bytes());
    let (body, footer) = body.split_at_mut(body.len() - 256);
    footer[88..120].copy_from_slice(blake3::hash(body).as_bytes());
    let linked = [&footer[56..88], &header[..], &footer[88..120]].concat();
    footer[120..152].copy_from_slice(blake3::hash(&linked).as_bytes());
    let crc = crc32c::crc32c(&footer[..252]);
    footer[252..].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, content).unwrap();
}

/// Entry of an index.
fn entry(pgoff: u64, pages: u32, codec: u32, data_off: u64) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..8].copy_from_slice(&pgoff.to_le_bytes());
    entry[8..12].copy_from_slice(&pages.to_le_bytes());
    entry[12..16].copy_from_slice(&codec.to_le_bytes());
    entry[16..24].copy_from_slice(&data_off.to_le_bytes());
    entry
}

/// A chain whose second record has pages 2 to 4 with data, 8 like 3 of its own, and 10 and 11
/// like 5 and 6 of its parent, where 7 is zero, and 40 to 63 are nothing.
fn chain_with_references() -> Story {
    let mut story = Story::begin();
    story.commit(&[(5, Noise(5)), (6, Noise(6)), (7, Zero), (9, Noise(9))]);
    let delta = [
        (2, Noise(2)),
        (3, Noise(3)),
        (4, Noise(4)),
        (8, Noise(3)),
        (10, Noise(5)),
        (11, Noise(6)),
    ];
    let info = story.commit(&delta);
    assert_eq!(counts(&info), [3, 0, 3, 0]);
    story
}

#[test]
fn a_reference_that_was_not_forged_is_sound() {
    let story = chain_with_references();
    let mut seen = Vec::new();
    forge(story.dir.path(), |_, entries| seen = entries.clone());
    assert_eq!(seen[1..], [entry(8, 1, 5, 3), entry(10, 2, 4, 5)]);
    assert_eq!(verify(story.dir.path(), &story.images).damage, vec![]);
}

#[test]
fn a_reference_that_is_not_right_is_damage() {
    type Forge = fn(&mut Vec<[u8; 32]>);
    let forgeries: [(&str, Forge); 14] = [
        ("a zero page", |index| index[2] = entry(10, 2, 4, 6)),
        ("nothing", |index| index[2] = entry(10, 2, 4, 40)),
        ("half nothing", |index| index[2] = entry(10, 2, 4, 9)),
        ("past the arena", |index| index[2] = entry(10, 2, 4, 63)),
        ("past all arenas", |index| {
            index[2] = entry(10, 2, 4, 1 << 41)
        }),
        ("past all numbers", |index| {
            index[2] = entry(10, 2, 4, u64::MAX)
        }),
        ("too long", |index| index[2] = entry(10, 65, 4, 5)),
        ("empty", |index| index[2] = entry(10, 0, 4, 5)),
        ("with a checksum", |index| index[2][28] = 1),
        ("with a length", |index| index[2][24] = 1),
        ("itself", |index| index[1] = entry(8, 1, 5, 8)),
        ("in a ring", |index| {
            index[1] = entry(8, 1, 5, 10);
            index[2] = entry(10, 2, 5, 8);
        }),
        ("like the parent", |index| index[1] = entry(8, 1, 5, 10)),
        ("half here", |index| index[2] = entry(10, 2, 5, 4)),
    ];
    for (name, forgery) in forgeries {
        let story = chain_with_references();
        drop(story.writer);
        forge(story.dir.path(), |_, entries| forgery(entries));
        let report = verify(story.dir.path(), &story.images);
        assert_eq!(report.restorable, [1], "{name}: {report:?}");
        assert!(!report.damage.is_empty(), "{name}");
    }
}

#[test]
fn a_reference_to_the_parent_of_none_is_damage() {
    let mut story = Story::begin();
    let info = story.commit(&[(3, Noise(1)), (4, Noise(1))]);
    assert_eq!(counts(&info), [1, 0, 1, 0]);
    drop(story.writer);
    forge(story.dir.path(), |_, entries| {
        entries[1] = entry(4, 1, 4, 3);
    });
    let report = verify(story.dir.path(), &story.images);
    assert_eq!(report.restorable, Vec::<u64>::new());
}

#[test]
fn what_descends_from_a_reference_that_is_not_right_is_lost_and_no_other_branch() {
    let story = chain_with_references();
    let Story {
        dir,
        writer,
        mut images,
        ..
    } = story;
    drop(writer);
    forge(dir.path(), |_, entries| entries[2] = entry(10, 2, 4, 40));
    let (mut writer, _) = open(dir.path(), 1 << 20).unwrap();
    let delta = [(10, Noise(1)), (11, Noise(1))].into();
    append(&mut writer, &mut images, &meta(3, 2), &delta).unwrap();
    append(&mut writer, &mut images, &meta(4, 1), &delta).unwrap();
    let report = verify(dir.path(), &images);
    assert_eq!((report.lost, report.restorable), (vec![2, 3], vec![1, 4]));
}

#[test]
fn the_header_counts_the_pages_that_are_shared() {
    let story = chain_with_references();
    drop(story.writer);
    forge(story.dir.path(), |header, _| header[216] = 2);
    let report = verify(story.dir.path(), &story.images);
    assert_eq!(report.restorable, [1]);
}
