// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a chain does when system calls fail, when the power does, and when a file
//! changes between two calls. These tests need the fake behind the system calls;
//! all others are in `ckptctl/tests`.

#[cfg(feature = "cli")]
mod archives;
mod changing_files;
mod compacting;
pub(crate) mod disk;
pub(crate) mod every_call;
mod expectation;
mod failing_calls;
pub(crate) mod failing_work;
mod power_failure;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::Chain;
use super::CommitMeta;
use super::Identity;
use super::Kind;
use super::Options;
use super::StoreError;
use super::Writer;

const PAGE: usize = 4096;
const ARENA_PAGES: u64 = 32;

/// A directory in memory where there is such a place: these tests sync a lot.
pub(crate) fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub(crate) fn meta(epoch: u64) -> CommitMeta {
    CommitMeta {
        epoch,
        parent: (epoch > 1).then(|| epoch - 1),
        kind: Kind::Commit,
        generation: [1; 16],
        time_ns: epoch,
        pause_ns: 0,
        arena_base: 0x2000_0000_0000,
        arena_len_pages: ARENA_PAGES,
        page_shift: 12,
        regions: vec![],
        identity: Identity::default(),
    }
}

/// A page of noise.
fn noise(seed: u64) -> Vec<u8> {
    // Made once: these tests need it often.
    static MADE: Mutex<BTreeMap<u64, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let make = || {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let noise = (0..PAGE).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        noise.collect()
    };
    MADE.lock()
        .unwrap()
        .entry(seed)
        .or_insert_with(make)
        .clone()
}

/// Every epoch is its parent with one page of noise and two even pages.
fn delta(epoch: u64) -> Vec<(u64, Vec<u8>)> {
    let at = epoch % (ARENA_PAGES - 4);
    vec![(at, noise(epoch)), (at + 2, vec![epoch as u8; 2 * PAGE])]
}

fn append(writer: &mut Writer, epoch: u64) -> Result<(), StoreError> {
    let delta = delta(epoch);
    let runs = delta
        .iter()
        .map(|(pgoff, bytes)| (*pgoff, bytes.as_slice()));
    writer.append(&meta(epoch), runs).map(|_| ())
}

fn image(epoch: u64) -> Vec<u8> {
    let mut image = vec![0; ARENA_PAGES as usize * PAGE];
    for (pgoff, bytes) in (1..=epoch).flat_map(delta) {
        image[pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(&bytes);
    }
    image
}

fn open(dir: &Path, segment_bytes: u64) -> Result<Writer, StoreError> {
    let options = Options {
        segment_bytes,
        ..Options::default()
    };
    Writer::open_or_create(dir, options).map(|(writer, _)| writer)
}

/// Asserts that a chain is sound, and holds epochs 1 to `newest` and no other.
fn assert_holds(chain: &Chain, newest: u64) {
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!(report.damage, vec![]);
    assert_eq!(report.restorable, (1..=newest).collect::<Vec<_>>());
    for epoch in 1..=newest {
        let restored = expectation::restored(chain, epoch).unwrap();
        assert!(restored == image(epoch), "epoch {epoch} is something else");
    }
}
