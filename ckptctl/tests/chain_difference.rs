// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What two epochs have different, held against their images.

mod support;

use std::ops::Range;

use ckptctl::store::Chain;
use ckptctl::store::Options;
use ckptctl::store::PageDifference;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;
use proptest::prelude::*;
use support::*;

fn compare(from: (&Chain, u64), to: (&Chain, u64)) -> Vec<PageDifference> {
    let mut pages = Vec::new();
    from.0.compare(from.1, to, |page| pages.push(page)).unwrap();
    pages
}

fn expected(from: &Image, to: &Image) -> Vec<PageDifference> {
    let mut pages = Vec::new();
    for (pgoff, (from, to)) in from.chunks(PAGE).zip(to.chunks(PAGE)).enumerate() {
        let bytes = (0..PAGE).filter(|&at| from[at] != to[at]).count() as u32;
        if bytes > 0 {
            let pgoff = pgoff as u64;
            pages.push(PageDifference { pgoff, bytes });
        }
    }
    pages
}

#[test]
fn any_two_epochs_of_a_chain_and_of_its_copy_differ_as_their_images_do() {
    let temp = memory_dir();
    let copy = memory_dir();
    let images = full_chain(temp.path());
    for (path, content) in segments(temp.path()) {
        std::fs::write(copy.path().join(path.file_name().unwrap()), content).unwrap();
    }
    let chain = Chain::open(temp.path()).unwrap();
    let copy = Chain::open(copy.path()).unwrap();
    let mut different = 0;
    for (&from, from_image) in &images {
        for (&to, to_image) in &images {
            let expected = expected(from_image, to_image);
            different += expected.len();
            assert_eq!(compare((&chain, from), (&chain, to)), expected);
            assert_eq!(compare((&chain, from), (&copy, to)), expected);
        }
    }
    assert!(different > 100, "only {different} pages differ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_two_epochs_of_any_history_differ_as_their_images_do(
        deltas in prop::collection::vec(
            (
                0..3usize,
                prop::collection::btree_map(
                    0..ARENA_PAGES,
                    // Few contents, so that pages are alike.
                    prop_oneof![Just(Fill::Zero), (0..3u8).prop_map(Fill::Even), (0..3u64).prop_map(Fill::Noise)],
                    0..30,
                ),
            ),
            2..8,
        ),
    ) {
        let temp = memory_dir();
        let (mut writer, _) = open(temp.path(), 60_000).unwrap();
        let mut images = Images::new();
        for ((back, delta), epoch) in deltas.iter().zip(1u64..) {
            let parent = (epoch - 1).checked_sub(*back as u64).filter(|parent| *parent > 0);
            append(&mut writer, &mut images, &meta(epoch, parent), delta).unwrap();
        }
        let chain = writer.chain();
        for (&from, from_image) in &images {
            for (&to, to_image) in &images {
                let expected = expected(from_image, to_image);
                prop_assert_eq!(compare((chain, from), (chain, to)), expected);
            }
        }
    }
}

#[test]
fn what_is_beyond_a_smaller_arena_is_zero() {
    let temp = memory_dir();
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    let mut images = Images::new();
    let delta = [(40, Fill::Even(1)), (60, Fill::Even(2))].into();
    append(&mut writer, &mut images, &meta(1, None), &delta).unwrap();
    let mut small = meta(2, 1);
    small.arena_len_pages = 50;
    small.regions.clear();
    append(&mut writer, &mut images, &small, &Delta::new()).unwrap();
    let chain = writer.chain();
    let gone = PageDifference {
        pgoff: 60,
        bytes: PAGE as u32,
    };
    assert_eq!(compare((chain, 1), (chain, 2)), [gone]);
    assert_eq!(compare((chain, 2), (chain, 1)), [gone]);
}

#[test]
fn only_commits_behind_the_first_epoch_that_lead_to_the_second_count() {
    let temp = memory_dir();
    small_chain(temp.path());
    let chain = Chain::open(temp.path()).unwrap();
    let written = |from, to| -> Vec<(u64, Vec<Range<u64>>)> {
        let written = chain.written_between(from, to).unwrap();
        let commits = written.into_iter();
        commits.map(|commit| (commit.epoch, commit.pages)).collect()
    };
    let second = (2, vec![4..5, 9..10, 63..64]);
    let seventh = (7, vec![3..5, 50..51]);
    assert_eq!(written(1, 2), [second]);
    // Epoch 5 is on a branch of its own.
    assert_eq!(written(2, 7), [(6, vec![]), seventh.clone()]);
    assert_eq!(written(5, 7), [(6, vec![]), seventh]);
    assert_eq!(written(7, 5), [(5, vec![3..4, 50..51])]);
    assert_eq!(written(7, 7), []);
}

#[test]
fn pages_that_differ_are_checked_and_those_in_the_same_place_are_not_read() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    // Page 9 of epochs 2 and 5.
    let (path, mut content) = segments(temp.path()).remove(0);
    let page = Fill::Noise(2).page();
    let at = content.windows(PAGE).position(|window| window == page);
    content[at.unwrap()] ^= 1;
    std::fs::write(path, content).unwrap();
    let chain = Chain::open(temp.path()).unwrap();
    assert_eq!(
        compare((&chain, 2), (&chain, 5)),
        expected(&images[&2], &images[&5])
    );
    let refused = chain.compare(1, (&chain, 2), |_| {});
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
}

#[test]
fn epochs_with_pages_of_different_sizes_are_refused() {
    let temps = [memory_dir(), memory_dir()];
    for (temp, page_shift) in temps.iter().zip([12, 14]) {
        let options = Options::default();
        let (mut writer, _) = Writer::open_or_create(temp.path(), options).unwrap();
        let mut meta = meta(1, None);
        meta.page_shift = page_shift;
        let page = vec![1; 1 << page_shift];
        writer.append(&meta, [(3, page.as_slice())]).unwrap();
    }
    let [small, large] = temps.map(|temp| {
        let chain = Chain::open(temp.path()).unwrap();
        (chain, temp)
    });
    let refused = small.0.compare(1, (&large.0, 1), |_| {});
    assert!(matches!(
        refused,
        Err(StoreError::PageSizes {
            bytes: [4096, 16_384]
        })
    ));
}
