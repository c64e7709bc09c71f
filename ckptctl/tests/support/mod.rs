// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A model of a chain: what every epoch must be restored to.

#![allow(
    dead_code,
    reason = "every test binary has its own copy of this and uses a part of it"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use ckptctl::store::Chain;
use ckptctl::store::CommitMeta;
use ckptctl::store::Compression;
use ckptctl::store::Identity;
use ckptctl::store::Kind;
use ckptctl::store::Options;
use ckptctl::store::Recovery;
use ckptctl::store::RegionEntry;
use ckptctl::store::Report;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;

pub const PAGE: usize = 4096;
pub const ARENA_PAGES: u64 = 64;

/// An epoch's whole image.
pub type Image = Vec<u8>;

/// Images by epoch.
pub type Images = BTreeMap<u64, Image>;

/// A directory for tests that write much: in memory where there is such a place.
pub fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("room for a test")
}

/// An image with nothing in it.
pub fn empty_image() -> Image {
    vec![0; ARENA_PAGES as usize * PAGE]
}

/// A commit that differs from others by its epoch and parent alone.
pub fn meta(epoch: u64, parent: impl Into<Option<u64>>) -> CommitMeta {
    CommitMeta {
        epoch,
        parent: parent.into(),
        kind: Kind::Commit,
        generation: [0x11; 16],
        time_ns: 1_700_000_000_000_000_000 + epoch * 1_000_000_000,
        pause_ns: 1000 * epoch,
        arena_base: 0x2000_0000_0000,
        arena_len_pages: ARENA_PAGES,
        page_shift: 12,
        regions: vec![
            RegionEntry {
                name: "heap".into(),
                kind: 1,
                offset_pages: 16,
                len_pages: 10 + epoch % 20,
                reserve_pages: 40,
                adopted_at: None,
            },
            RegionEntry {
                name: "täble".into(),
                kind: 7,
                offset_pages: 56,
                len_pages: 0,
                reserve_pages: 8,
                adopted_at: None,
            },
        ],
        identity: Identity {
            build_id: vec![0xab; 20],
            load_address: 0x5555_5555_4000,
            objects_digest: [0x22; 32],
            path: "/usr/bin/program".into(),
            no_code_pointers: epoch % 2 == 0,
        },
    }
}

/// Content of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    Zero,
    /// One byte all over: LZ4 likes it.
    Even(u8),
    /// Noise from a seed: LZ4 cannot help.
    Noise(u64),
}

impl Fill {
    pub fn page(self) -> Vec<u8> {
        match self {
            Fill::Zero => vec![0; PAGE],
            Fill::Even(byte) => vec![byte; PAGE],
            Fill::Noise(seed) => {
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut page = Vec::with_capacity(PAGE);
                while page.len() < PAGE {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    page.extend_from_slice(&state.to_le_bytes());
                }
                page
            }
        }
    }
}

/// The pages of a delta, by page number.
pub type Delta = BTreeMap<u64, Fill>;

/// A delta as runs of consecutive pages.
pub fn runs(delta: &Delta) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (&pgoff, fill) in delta {
        match runs.last_mut() {
            Some((start, bytes)) if *start + (bytes.len() / PAGE) as u64 == pgoff => {
                bytes.extend(fill.page());
            }
            _ => runs.push((pgoff, fill.page())),
        }
    }
    runs
}

/// Appends a delta, and notes in the images what its epoch must be.
pub fn append(
    writer: &mut Writer,
    images: &mut Images,
    meta: &CommitMeta,
    delta: &Delta,
) -> Result<(), StoreError> {
    let runs = runs(delta);
    writer.append(
        meta,
        runs.iter().map(|(pgoff, bytes)| (*pgoff, bytes.as_slice())),
    )?;
    let mut image = meta
        .parent
        .map_or_else(empty_image, |parent| images[&parent].clone());
    for (pgoff, bytes) in &runs {
        image[*pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(bytes);
    }
    images.insert(meta.epoch, image);
    Ok(())
}

/// Opens or makes a chain with small segments.
pub fn open(dir: &Path, segment_bytes: u64) -> Result<(Writer, Recovery), StoreError> {
    let options = Options {
        segment_bytes,
        ..Options::default()
    };
    Writer::open_or_create(dir, options)
}

/// Restores an epoch; holds each page up as handed out once.
pub fn restore(chain: &Chain, epoch: u64) -> Result<Image, StoreError> {
    let mut image = empty_image();
    let mut seen = vec![false; ARENA_PAGES as usize];
    let mut loader = chain.load(epoch)?;
    let expected = loader.pages();
    while let Some(run) = loader.next_run()? {
        for (i, page) in run.bytes.chunks_exact(PAGE).enumerate() {
            let pgoff = run.pgoff as usize + i;
            assert!(
                !seen[pgoff],
                "page {pgoff} of epoch {epoch} is handed out twice"
            );
            seen[pgoff] = true;
            image[pgoff * PAGE..][..PAGE].copy_from_slice(page);
        }
    }
    assert_eq!(seen.iter().filter(|seen| **seen).count() as u64, expected);
    Ok(image)
}

/// Restores an epoch of so many pages in several threads; holds each page up as handed out once, and not zero
/// unless it was stored so.
pub fn restore_in_parallel(
    chain: &Chain,
    epoch: u64,
    threads: usize,
    pages: u64,
) -> Result<Image, StoreError> {
    let image = Mutex::new(vec![0; pages as usize * PAGE]);
    let seen = Mutex::new(BTreeSet::new());
    let loader = chain.load(epoch)?;
    let expected = loader.pages();
    loader.restore(threads, |pgoff, bytes| {
        let mut seen = seen.lock().unwrap();
        for page in pgoff..pgoff + (bytes.len() / PAGE) as u64 {
            assert!(
                seen.insert(page),
                "page {page} of epoch {epoch} is handed out twice"
            );
        }
        image.lock().unwrap()[pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(bytes);
    })?;
    assert_eq!(seen.into_inner().unwrap().len() as u64, expected);
    Ok(image.into_inner().unwrap())
}

/// A chain of two segments with a bit of everything: data that is compressed and
/// not, zero runs, runs that are written over in part and whole, an abandoned
/// branch, a restore without pages, metas of several lengths.
pub fn small_chain(dir: &Path) -> Images {
    let mut images = Images::new();
    let (mut writer, _) = open(dir, 16_000).expect("a new directory");
    let mut commit = |meta: &CommitMeta, delta: &[(u64, Fill)]| {
        let delta = delta.iter().copied().collect();
        append(&mut writer, &mut images, meta, &delta).expect("a sound chain");
    };
    use Fill::Even;
    use Fill::Noise;
    use Fill::Zero;
    commit(
        &meta(1, None),
        &[
            (3, Even(1)),
            (4, Even(2)),
            (5, Zero),
            (6, Zero),
            (9, Noise(1)),
            (50, Even(9)),
        ],
    );
    commit(&meta(2, 1), &[(4, Even(3)), (9, Noise(2)), (63, Even(4))]);
    commit(&meta(5, 2), &[(3, Zero), (50, Even(5))]);
    let restore = CommitMeta {
        kind: Kind::Restore,
        generation: [0x33; 16],
        ..meta(6, 2)
    };
    commit(&restore, &[]);
    commit(&meta(7, 6), &[(3, Even(6)), (4, Even(7)), (50, Noise(3))]);
    images
}

/// The same, and a segment that uses all that a later writer may: zstd, and pages that are not
/// stored because they are as others, in their record and in its parent, or did not change.
pub fn full_chain(dir: &Path) -> Images {
    let mut images = small_chain(dir);
    let options = Options {
        compression: Compression::Zstd(3),
        ..Options::default()
    };
    let (mut writer, _) = Writer::open_or_create(dir, options).expect("a sound chain");
    let mut commit = |epoch: u64, delta: &[(u64, Fill)]| {
        let delta = delta.iter().copied().collect();
        append(&mut writer, &mut images, &meta(epoch, epoch - 1), &delta).expect("a sound chain");
        writer.chain().find(epoch).expect("it is there").clone()
    };
    use Fill::Even;
    use Fill::Noise;
    let first = commit(
        8,
        &[(11, Even(1)), (12, Even(2)), (13, Even(1)), (14, Noise(4))],
    );
    assert_eq!((first.data_pages, first.shared_pages), (3, 1));
    let second = commit(
        9,
        &[(12, Even(2)), (14, Even(8)), (20, Noise(4)), (21, Even(1))],
    );
    assert_eq!((second.data_pages, second.shared_pages), (1, 2));
    images
}

/// A file and its content.
pub type Segment = (PathBuf, Vec<u8>);

/// The segments of a chain, with their content.
pub fn segments(dir: &Path) -> Vec<Segment> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a chain")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ckpt")
        })
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let content = fs::read(&path).expect("a segment");
            (path, content)
        })
        .collect()
}

/// Restores all that the chain says can be restored, and holds it against the
/// images; returns the epochs that cannot be restored. An epoch that comes out
/// other than it was committed fails the test.
pub fn check_against(chain: &Chain, images: &Images) -> Vec<u64> {
    let mut lost = Vec::new();
    for (&epoch, image) in images {
        let restored = restore(chain, epoch);
        // Threads cost more than all the rest of this.
        if images.keys().next_back() == Some(&epoch) {
            let in_parallel = restore_in_parallel(chain, epoch, 2, ARENA_PAGES);
            assert_eq!(restored.as_ref().ok(), in_parallel.as_ref().ok());
        }
        match restored {
            Ok(restored) => {
                assert!(
                    restored == *image,
                    "epoch {epoch} was restored to something else"
                );
            }
            Err(StoreError::Damaged { .. } | StoreError::NoSuchEpoch { .. }) => lost.push(epoch),
            Err(error) => panic!("epoch {epoch}: {error}"),
        }
    }
    lost
}

/// Verifies a chain and holds the verdict against what loading really gives.
pub fn verify(dir: &Path, images: &Images) -> Report {
    let chain = Chain::open(dir).expect("damage keeps no chain from being opened");
    let report = chain
        .verify(|_, _| {})
        .expect("damage keeps no chain from being verified");
    let lost = check_against(&chain, images);
    for epoch in images.keys() {
        assert_eq!(
            report.restorable.contains(epoch),
            !lost.contains(epoch),
            "verify and load disagree about epoch {epoch}: {report:?}"
        );
    }
    for lost in &report.lost {
        assert!(
            report
                .damage
                .iter()
                .any(|damage| damage.lost.contains(lost))
        );
    }
    report
}

/// What a writer makes of a damaged chain: it refuses it, or opens it and leaves
/// it as it is.
pub fn a_writer_cuts_nothing(dir: &Path) {
    match open(dir, 16_000) {
        Ok((writer, recovery)) => {
            assert_eq!(recovery.torn, None);
            // Headers only: damage of page data hinders no writer.
            assert_eq!(recovery.damage, writer.chain().damage());
        }
        Err(StoreError::Damaged { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
