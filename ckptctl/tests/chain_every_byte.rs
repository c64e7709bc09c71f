// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every byte of a chain is flipped, and every file cut at every place.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ckptctl::store::Chain;
use support::*;

const BLOCK: usize = 4096;

/// Makes a chain and flips every `step`th byte from `first` on of its segments, the first
/// `skip` of them left out.
fn flip_bytes(make: fn(&Path) -> Images, skip: usize, first: usize, step: usize) {
    let temp = memory_dir();
    let images = make(temp.path());
    let segments = segments(temp.path());
    assert!(
        segments.len() >= 2,
        "the last segment and another one are to be there"
    );
    for (path, content) in &segments[skip..] {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for at in (first..content.len()).step_by(step) {
            // Another bit each time, but never a change that is none.
            let flipped = content[at] ^ (1 << (at * 7 % 8));
            file.write_all_at(&[flipped], at as u64).unwrap();
            let report = verify(temp.path(), &images);
            assert!(
                !report.damage.is_empty(),
                "byte {at} of {} is overlooked",
                path.display()
            );
            assert!(
                report.damage.iter().any(|damage| damage.file == *path),
                "{report:?}"
            );
            assert_eq!(
                report.torn,
                None,
                "byte {at} of {} is taken for torn",
                path.display()
            );
            a_writer_cuts_nothing(temp.path());
            file.write_all_at(&content[at..=at], at as u64).unwrap();
        }
    }
    assert_eq!(verify(temp.path(), &images).damage, vec![]);
    assert_eq!(support::segments(temp.path()), segments);
}

// Two tests, so that two processors share the work.
#[test]
fn every_flipped_even_byte_is_found_and_never_handed_out() {
    flip_bytes(small_chain, 0, 0, 2);
}

#[test]
fn every_flipped_odd_byte_is_found_and_never_handed_out() {
    flip_bytes(small_chain, 0, 1, 2);
}

#[test]
fn every_flipped_even_byte_of_zstd_and_references_is_found() {
    flip_bytes(full_chain, 2, 0, 2);
}

#[test]
fn every_flipped_odd_byte_of_zstd_and_references_is_found() {
    flip_bytes(full_chain, 2, 1, 2);
}

/// Where the records of a chain's last segment end.
fn record_ends(dir: &Path) -> Vec<u64> {
    let chain = Chain::open(dir).unwrap();
    let last = chain.segments() as u64;
    let in_last = chain.commits().filter(|commit| commit.segment == last);
    in_last
        .map(|commit| commit.offset + commit.stored_bytes)
        .collect()
}

#[test]
fn every_truncation_of_the_last_segment_is_a_shorter_chain_with_a_torn_tail() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let ends = record_ends(temp.path());
    let (path, content) = segments(temp.path()).pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for len in (0..content.len() as u64).rev() {
        file.set_len(len).unwrap();
        let report = verify(temp.path(), &images);
        if len < BLOCK as u64 {
            // The header is there as a whole before the segment gets its name.
            assert!(!report.damage.is_empty(), "{len}");
            continue;
        }
        let kept = ends.iter().filter(|end| **end <= len).count();
        let end = kept.checked_sub(1).map_or(BLOCK as u64, |last| ends[last]);
        assert_eq!(report.damage, vec![], "{len}");
        assert_eq!(
            report.restorable.len(),
            images.len() - (ends.len() - kept),
            "{len}"
        );
        match report.torn {
            None => assert_eq!(len, end),
            Some(torn) => {
                assert_eq!((torn.offset, torn.bytes), (end, len - end));
                assert!(torn.bytes > 0 && torn.file == path);
            }
        }
    }
}

#[test]
fn a_writer_cuts_every_torn_tail_and_goes_on() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let (path, content) = segments(temp.path()).pop().unwrap();
    let ends = record_ends(temp.path());
    for len in (BLOCK + 1..content.len())
        .step_by(83)
        .chain([content.len() - 1])
    {
        fs::write(&path, &content[..len]).unwrap();
        let (mut writer, recovery) = open(temp.path(), 1 << 20).unwrap();
        let torn = recovery.torn.expect("the length is no end of a record");
        assert_eq!(torn.bytes + torn.offset, len as u64);
        assert_eq!(path.metadata().unwrap().len(), torn.offset);
        let kept = ends.iter().filter(|end| **end <= len as u64).count();
        let newest = writer.chain().newest().unwrap().unwrap().epoch;
        assert_eq!(
            writer.chain().commits().count(),
            images.len() - (ends.len() - kept)
        );

        let mut images = images.clone();
        images.retain(|epoch, _| *epoch <= newest);
        let delta = [(1, Fill::Noise(8)), (4, Fill::Even(8))].into();
        append(&mut writer, &mut images, &meta(20, newest), &delta).unwrap();
        drop(writer);
        let report = verify(temp.path(), &images);
        assert_eq!((report.damage, report.torn), (vec![], None));
    }
}

#[test]
fn every_truncation_of_a_finished_segment_is_damage() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let (path, content) = segments(temp.path()).remove(0);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for len in (0..content.len() as u64).rev() {
        file.set_len(len).unwrap();
        let report = verify(temp.path(), &images);
        assert!(!report.damage.is_empty(), "{len}");
        assert_eq!(report.torn, None, "{len}");
    }
}
