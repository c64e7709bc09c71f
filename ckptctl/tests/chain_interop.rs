// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A reader in another language, written from `docs/format.md` alone, reads what
//! this crate writes. It needs `python3`, and nothing from outside its library but for
//! zstd before Python 3.14.

mod support;

use std::path::Path;
use std::process::Command;
use std::process::Output;

use ckptctl::store::Chain;
use ckptctl::store::CommitMeta;
use ckptctl::store::Keep;
use ckptctl::store::Kind;
use ckptctl::store::Options;
use ckptctl::store::compact;
use support::*;

/// Lets the other reader restore an epoch.
fn read_chain(dir: &Path, epoch: u64) -> Output {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/read_chain.py");
    Command::new("python3")
        .arg("-B")
        .arg(reader)
        .arg(dir)
        .arg(epoch.to_string())
        .output()
        .expect("python3 is needed: apt-get install python3")
}

#[test]
fn another_implementation_restores_every_epoch() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let (mut writer, _) = open(temp.path(), 16_000).unwrap();
    // Something that LZ4 has to work at: long matches, short ones, literals.
    let mut text = [
        &include_bytes!("../src/store/scan.rs")[..],
        include_bytes!("chain_damage.rs"),
    ]
    .concat();
    text.truncate(6 * PAGE);
    let mut adopted = meta(8, 7);
    adopted.regions[0].adopted_at = Some(0x7f00_0000_1000);
    writer.append(&adopted, [(20, text.as_slice())]).unwrap();
    assert_eq!(writer.chain().get(8).unwrap(), adopted);
    let stored = writer.chain().find(8).unwrap().stored_bytes as usize;
    assert!(
        (2 * PAGE..5 * PAGE).contains(&stored),
        "{stored} bytes: LZ4 had no work"
    );
    let mut image = images[&7].clone();
    image[20 * PAGE..][..text.len()].copy_from_slice(&text);
    images.insert(8, image);
    for (epoch, image) in &images {
        let output = read_chain(temp.path(), *epoch);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stdout == *image,
            "epoch {epoch} was restored to something else"
        );
    }
}

#[test]
fn another_implementation_restores_what_zstd_compressed_or_says_what_it_lacks() {
    let temp = memory_dir();
    let images = full_chain(temp.path());
    assert!(read_chain(temp.path(), 7).stdout == images[&7]);
    let output = read_chain(temp.path(), 9);
    let told = String::from_utf8_lossy(&output.stderr);
    if !told.contains("install the package zstandard") {
        assert!(output.status.success(), "{told}");
        assert!(output.stdout == images[&9]);
    }
}

#[test]
fn another_implementation_restores_pages_that_are_stored_once() {
    let temp = memory_dir();
    let mut images = Images::new();
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    let mut shared = 0;
    for epoch in 1..8 {
        // Pages move, come again in other places, and stay.
        let page = |at: u64| (at, Fill::Even(((at * epoch) % 7) as u8));
        let delta = (epoch..60)
            .step_by(1 + epoch as usize % 3)
            .map(page)
            .collect();
        let meta = meta(epoch, (epoch > 1).then(|| epoch - 1));
        append(&mut writer, &mut images, &meta, &delta).unwrap();
        shared += writer.chain().find(epoch).unwrap().shared_pages;
    }
    assert!(shared > 100, "{shared}");
    for (epoch, image) in &images {
        let output = read_chain(temp.path(), *epoch);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "epoch {epoch}: {told}");
        assert!(output.stdout == *image, "epoch {epoch}");
    }
}

#[test]
fn another_implementation_reads_a_chain_that_was_compacted_twice_and_went_on() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    for (epoch, last) in [(8, 3), (9, 2)] {
        let keep = Keep {
            last,
            ..Keep::default()
        };
        let outcome = compact(temp.path(), &keep, &Options::default(), |_| true).unwrap();
        assert!(outcome.dropped.len() > 1);
        let (mut writer, _) = open(temp.path(), 16_000).unwrap();
        let delta = [(3, Fill::Even(1)), (30 + epoch, Fill::Noise(epoch))].into();
        append(&mut writer, &mut images, &meta(epoch, epoch - 1), &delta).unwrap();
    }
    let kept: Vec<u64> = Chain::open(temp.path())
        .unwrap()
        .commits()
        .map(|commit| commit.epoch)
        .collect();
    assert_eq!(kept, [7, 8, 9]);
    for epoch in kept {
        let output = read_chain(temp.path(), epoch);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout == images[&epoch], "epoch {epoch}");
    }
    assert!(!read_chain(temp.path(), 6).status.success());
    // It does check: a base whose last record is cut off, whole.
    let (path, mut content) = segments(temp.path()).remove(0);
    let last = Chain::open(temp.path()).unwrap().find(8).unwrap().offset;
    content.truncate(last as usize);
    std::fs::write(&path, &content).unwrap();
    assert!(!read_chain(temp.path(), 7).status.success());
}

#[test]
fn another_implementation_restores_what_went_back() {
    let temp = memory_dir();
    let mut images = small_chain(temp.path());
    let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
    let rollback = CommitMeta {
        kind: Kind::Rollback,
        ..meta(8, 2)
    };
    let before = segments(temp.path()).len();
    append(&mut writer, &mut images, &rollback, &Delta::new()).unwrap();
    append(
        &mut writer,
        &mut images,
        &meta(9, 8),
        &[(2, Fill::Even(200))].into(),
    )
    .unwrap();
    let after = segments(temp.path());
    assert_eq!(after.len(), before + 1, "the segment says what is in it");
    assert_eq!(after[before].1[16] & 8, 8);
    assert!(images[&8] == images[&2] && images[&9] != images[&2]);
    let all_are_read = |epochs: &[u64]| {
        for epoch in epochs {
            let output = read_chain(temp.path(), *epoch);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "epoch {epoch}: {told}");
            assert!(output.stdout == images[epoch], "epoch {epoch}");
        }
    };
    all_are_read(&images.keys().copied().collect::<Vec<_>>());
    drop(writer);
    let keep = Keep {
        last: 2,
        ..Keep::default()
    };
    compact(temp.path(), &keep, &Options::default(), |_| true).unwrap();
    let base = &segments(temp.path())[0].1;
    assert_eq!(base[16] & 12, 12, "the base says what is in it");
    all_are_read(&[8, 9]);
}

#[test]
fn another_implementation_stops_at_a_torn_tail_and_at_damage() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let (path, mut content) = segments(temp.path()).pop().unwrap();
    content.truncate(content.len() - 100);
    std::fs::write(&path, &content).unwrap();
    assert!(read_chain(temp.path(), 6).stdout == images[&6]);
    assert!(!read_chain(temp.path(), 7).status.success());
    content[6000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    assert!(!read_chain(temp.path(), 6).status.success());
}
