// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is done with a chain, while calls fail: each time there is an error or what was asked for,
//! and the next attempt works.

use std::path::PathBuf;
use std::sync::Mutex;

use super::every_call::Trouble;
use super::every_call::every_call;
use super::expectation::restored;
use super::*;
use crate::store::Compaction;
use crate::store::Compression;
use crate::store::Keep;
use crate::store::compact;

pub(crate) type Delta = Vec<(u64, Vec<u8>)>;

fn apply(image: &mut [u8], delta: &Delta) {
    for (pgoff, bytes) in delta {
        image[*pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// A chain in a directory, and what its epochs have.
pub(crate) struct Work {
    /// Gone when this is.
    root: tempfile::TempDir,
    options: Options,
    delta: fn(u64) -> Delta,
}

impl Work {
    pub(crate) fn new(options: &Options, delta: fn(u64) -> Delta) -> Work {
        Work {
            root: memory_dir(),
            options: options.clone(),
            delta,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("chain")
    }

    pub(crate) fn open(&self) -> Result<Writer, StoreError> {
        Writer::open_or_create(self.dir(), self.options.clone()).map(|(writer, _)| writer)
    }

    pub(crate) fn append(&self, writer: &mut Writer, epoch: u64) -> Result<(), StoreError> {
        let delta = (self.delta)(epoch);
        let runs = delta.iter().map(|(pgoff, bytes)| (*pgoff, &bytes[..]));
        writer.append(&meta(epoch), runs).map(drop)
    }

    pub(super) fn image(&self, epoch: u64) -> Vec<u8> {
        let mut image = vec![0; ARENA_PAGES as usize * PAGE];
        for epoch in 1..=epoch {
            apply(&mut image, &(self.delta)(epoch));
        }
        image
    }

    /// Asserts that a chain is sound, has the newest of these epochs, and what it has is right.
    pub(crate) fn assert_holds(&self, chain: &Chain, newest: u64) -> Vec<u64> {
        let report = chain.verify(|_, _| {}).unwrap();
        assert_eq!((report.damage, chain.torn()), (vec![], None));
        assert_eq!(report.restorable.last().copied().unwrap_or(0), newest);
        for &epoch in &report.restorable {
            assert!(
                restored(chain, epoch).unwrap() == self.image(epoch),
                "epoch {epoch}"
            );
        }
        report.restorable
    }

    fn assert_has_all(&self, newest: u64) {
        let epochs = self.assert_holds(&Chain::open(self.dir()).unwrap(), newest);
        assert_eq!(epochs, (1..=newest).collect::<Vec<_>>());
    }
}

/// One page of noise, one that the epoch before has elsewhere, and one that is there twice.
fn shared_delta(epoch: u64) -> Delta {
    vec![
        (epoch, noise(epoch)),
        (12 + epoch, noise(epoch - 1)),
        (24, noise(epoch)),
    ]
}

/// A page of noise, in place of that of the epoch before the last.
pub(crate) fn page(epoch: u64) -> Delta {
    vec![(epoch % 2, noise(epoch))]
}

pub(crate) fn options(segment_bytes: u64, compression: Compression, share: bool) -> Options {
    Options {
        segment_bytes,
        compression,
        share,
        ..Options::default()
    }
}

pub(super) fn assert_told(error: &StoreError, trouble: Option<&Trouble>) {
    let trouble = trouble.expect("nothing went wrong");
    let full = trouble.is_full();
    match error {
        StoreError::NoSpace { .. } => assert!(full, "{error}"),
        StoreError::Io { .. } => {}
        // What was begun could not be taken back.
        StoreError::Poisoned { .. } => assert!(trouble.for_good, "{error}"),
        error => panic!("{error}"),
    }
}

/// The third commit of a chain, and what comes after it.
fn assert_third_can_fail(options: &Options, delta: fn(u64) -> Delta) {
    let make = || {
        let work = Work::new(options, delta);
        let mut writer = work.open().unwrap();
        work.append(&mut writer, 1).unwrap();
        work.append(&mut writer, 2).unwrap();
        (work, writer)
    };
    let tried = every_call(
        make,
        |(work, writer)| work.append(writer, 3),
        |(work, mut writer), done, trouble| {
            let mut newest = 3;
            if let Err(error) = done {
                assert_told(&error, trouble);
                if let StoreError::Poisoned { .. } = error {
                    // What was written as a whole may be there.
                    drop(writer);
                    writer = work.open().unwrap();
                    newest = writer.chain().newest().unwrap().unwrap().epoch;
                    assert!((2..=3).contains(&newest));
                } else {
                    let full = matches!(error, StoreError::NoSpace { .. });
                    assert_eq!(full, trouble.unwrap().is_full(), "{error}");
                    newest = 2;
                }
            }
            work.assert_has_all(newest);
            for epoch in newest + 1..=4 {
                work.append(&mut writer, epoch).unwrap();
            }
            drop(writer);
            work.assert_has_all(4);
            drop(work.open().unwrap());
        },
    );
    assert!(tried > 20, "{tried} failures are too few to be all");
}

#[test]
fn a_commit_without_compression() {
    assert_third_can_fail(&options(1 << 20, Compression::None, false), delta);
}

#[test]
fn a_commit_with_zstd_that_begins_a_segment() {
    let zstd = Compression::Zstd(Compression::ZSTD_LEVEL);
    assert_third_can_fail(&options(4096, zstd, false), delta);
}

#[test]
fn a_commit_that_refers_to_what_the_chain_has() {
    for segment_bytes in [4096, 1 << 20] {
        let options = options(segment_bytes, Compression::Lz4, true);
        assert_third_can_fail(&options, shared_delta);
        let work = Work::new(&options, shared_delta);
        let mut writer = work.open().unwrap();
        for epoch in 1..=3 {
            work.append(&mut writer, epoch).unwrap();
        }
        let third = writer.chain().find(3).unwrap();
        assert_eq!((third.data_pages, third.shared_pages), (1, 2));
    }
}

#[test]
fn a_large_commit_that_several_threads_pack() {
    const PAGES: usize = 600;
    let noise: Vec<u8> = (0..8).flat_map(noise).collect();
    let pages = noise.repeat(PAGES / 8);
    let mut large = meta(2);
    large.arena_len_pages = PAGES as u64;
    let options = Options {
        threads: 2,
        ..options(1 << 30, Compression::Lz4, false)
    };
    let make = || {
        let work = Work::new(&options, delta);
        let mut writer = work.open().unwrap();
        work.append(&mut writer, 1).unwrap();
        (work, writer)
    };
    let tried = every_call(
        make,
        |(_, writer)| writer.append(&large, [(0, &pages[..])]).map(drop),
        |(work, mut writer), done, trouble| {
            let Err(error) = done else {
                let chain = Chain::open(work.dir()).unwrap();
                assert_eq!(chain.verify(|_, _| {}).unwrap().restorable, [1, 2]);
                return;
            };
            assert_told(&error, trouble);
            if let StoreError::Poisoned { .. } = error {
                drop(writer);
                writer = work.open().unwrap();
            }
            let newest = writer.chain().newest().unwrap().unwrap().epoch;
            assert!(newest == 1 || trouble.unwrap().for_good && newest == 2);
            let chain = Chain::open(work.dir()).unwrap();
            assert_eq!(chain.verify(|_, _| {}).unwrap().damage, vec![]);
            work.append(&mut writer, newest + 1).unwrap();
        },
    );
    assert!(tried > 20, "{tried} failures are too few to be all");
}

#[test]
fn a_rollback_for_which_a_segment_is_begun() {
    let options = options(1 << 20, Compression::Lz4, true);
    let back = CommitMeta {
        kind: Kind::Rollback,
        parent: Some(1),
        ..meta(3)
    };
    let make = || {
        let work = Work::new(&options, delta);
        let mut writer = work.open().unwrap();
        work.append(&mut writer, 1).unwrap();
        work.append(&mut writer, 2).unwrap();
        (work, writer)
    };
    let tried = every_call(
        make,
        |(_, writer)| writer.append(&back, []).map(drop),
        |(work, mut writer), done, trouble| {
            let mut parent = if done.is_ok() { 3 } else { 2 };
            if let Err(error) = &done {
                assert_told(error, trouble);
                if let StoreError::Poisoned { .. } = error {
                    drop(writer);
                    writer = work.open().unwrap();
                    parent = writer.chain().newest().unwrap().unwrap().epoch;
                } else {
                    work.assert_has_all(2);
                }
            }
            // What comes next builds on it if it is there.
            let mut next = meta(4);
            next.parent = Some(parent);
            let mut image = work.image(if parent == 3 { 1 } else { 2 });
            apply(&mut image, &delta(4));
            let delta = delta(4);
            let runs = delta.iter().map(|(pgoff, bytes)| (*pgoff, &bytes[..]));
            writer.append(&next, runs).unwrap();
            drop(writer);
            let chain = Chain::open(work.dir()).unwrap();
            let report = chain.verify(|_, _| {}).unwrap();
            assert_eq!(report.damage, vec![]);
            assert_eq!(report.restorable.contains(&3), parent == 3);
            assert!(restored(&chain, 4).unwrap() == image);
            drop(work.open().unwrap());
        },
    );
    assert!(tried > 20, "{tried} failures are too few to be all");
}

#[test]
fn a_chain_that_is_begun_or_opened() {
    let options = options(4096, Compression::Lz4, true);
    for epochs in [0, 2] {
        let make = || {
            let work = Work::new(&options, page);
            if epochs > 0 {
                let mut writer = work.open().unwrap();
                for epoch in 1..=epochs {
                    work.append(&mut writer, epoch).unwrap();
                }
                drop(writer);
                // What a writer and a compactor left that were killed.
                for name in ["segment-0000000003.ckpt.tmp", "base-0000000001.ckpt.tmp"] {
                    std::fs::write(work.dir().join(name), "x").unwrap();
                }
                let last = work.dir().join("segment-0000000002.ckpt");
                let whole = std::fs::read(&last).unwrap();
                std::fs::write(last, [&whole[..], &[0; 100]].concat()).unwrap();
            }
            work
        };
        let tried = every_call(
            make,
            |work| work.open().map(drop),
            |work, done, trouble| {
                if let Err(error) = done {
                    assert_told(&error, trouble);
                }
                let mut writer = work.open().unwrap();
                work.append(&mut writer, epochs + 1).unwrap();
                drop(writer);
                work.assert_has_all(epochs + 1);
                let names = std::fs::read_dir(work.dir()).unwrap();
                let mut names = names.map(|entry| entry.unwrap().file_name());
                assert!(names.all(|name| !name.to_string_lossy().contains(".tmp")));
            },
        );
        assert!(tried > 20, "{tried} failures are too few to be all");
    }
}

fn compact_to(dir: &Path, last: u64, options: &Options) -> Result<Compaction, StoreError> {
    let keep = Keep {
        last,
        ..Keep::default()
    };
    compact(dir, &keep, options, |_| true)
}

#[test]
fn a_compaction() {
    let options = options(4096, Compression::Lz4, true);
    for written in [false, true] {
        let make = || {
            let work = Work::new(&options, page);
            let mut writer = work.open().unwrap();
            for epoch in 1..=3 {
                work.append(&mut writer, epoch).unwrap();
            }
            (work, written.then_some(writer))
        };
        let tried = every_call(
            make,
            |(work, _)| compact_to(&work.dir(), 2, &work.options),
            |(work, writer), done, trouble| {
                let found = work.assert_holds(&Chain::open(work.dir()).unwrap(), 3);
                match done {
                    // What failed was the removal of what is not needed any more.
                    Ok(_) => assert_eq!(found, [2, 3]),
                    Err(error) => {
                        assert_told(&error, trouble);
                        // Only what comes after the rename can fail with the base in place.
                        assert!(found == [1, 2, 3] || found == [2, 3], "{found:?}");
                    }
                }
                // A program that runs does not notice.
                let mut writer = writer.unwrap_or_else(|| work.open().unwrap());
                work.append(&mut writer, 4).unwrap();
                drop(writer);
                let done = compact_to(&work.dir(), 1, &work.options).unwrap();
                assert_eq!(done.not_removed, [""; 0].map(PathBuf::from));
                let chain = Chain::open(work.dir()).unwrap();
                assert_eq!(work.assert_holds(&chain, 4), [4]);
            },
        );
        assert!(tried > 60, "{tried} failures are too few to be all");
    }
}

/// A chain with two epochs in a base and in segments.
pub(super) fn to_be_read(options: &Options) -> Work {
    let work = Work::new(options, page);
    let mut writer = work.open().unwrap();
    for epoch in 1..=3 {
        work.append(&mut writer, epoch).unwrap();
    }
    compact_to(&work.dir(), 2, options).unwrap();
    work
}

#[test]
fn reading_gives_what_was_written_or_an_error() {
    let work = to_be_read(&options(4096, Compression::Lz4, true));
    let newest = work.image(3);
    let read = |_: &mut ()| {
        let chain = Chain::open(work.dir())?;
        assert_eq!(chain.get(3)?.epoch, 3);
        let one_by_one = restored(&chain, 3)?;
        let parallel = Mutex::new(vec![0; newest.len()]);
        chain.load(3)?.restore(2, |pgoff, bytes| {
            let mut parallel = parallel.lock().unwrap();
            parallel[pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(bytes);
        })?;
        let mut differences = 0;
        chain.compare(2, (&chain, 3), |_| differences += 1)?;
        let written = chain.written_between(2, 3)?;
        assert_eq!((differences, written.len()), (1, 1));
        Ok([one_by_one, parallel.into_inner().unwrap()])
    };
    let tried = every_call(
        || (),
        read,
        |(), done: Result<_, StoreError>, trouble| match done {
            Ok(images) => assert!(images.iter().all(|image| *image == newest)),
            Err(error) => assert_told(&error, trouble),
        },
    );
    assert!(tried > 15, "{tried} failures are too few to be all");
}

#[test]
fn verifying_says_of_nothing_that_it_was_read_that_was_not() {
    let work = to_be_read(&options(4096, Compression::Lz4, true));
    let chain = Chain::open(work.dir()).unwrap();
    let mut damaged = 0;
    let tried = every_call(
        || (),
        |()| chain.verify(|_, _| {}),
        |(), done, trouble| match done {
            Ok(report) if report.damage.is_empty() => {
                assert_eq!(
                    (report.restorable, trouble.map(|trouble| trouble.errno)),
                    (vec![2, 3], None)
                );
            }
            // What cannot be read may be damaged for good.
            Ok(report) => {
                assert!(trouble.is_some() && !report.lost.is_empty());
                damaged += 1;
            }
            Err(error) => assert_told(&error, trouble),
        },
    );
    assert!(tried > 5 && damaged > 0, "{tried} failures, {damaged}");
}

/// A writer restores before it goes on.
#[test]
fn restoring_and_going_on() {
    let options = options(4096, Compression::Lz4, true);
    let make = || {
        let work = to_be_read(&options);
        let writer = work.open().unwrap();
        (work, writer)
    };
    let tried = every_call(
        make,
        |(_, writer)| writer.restore(3, 2, |_, _| {}),
        |(work, mut writer), done, trouble| {
            if let Err(error) = done {
                assert_told(&error, trouble);
            }
            work.append(&mut writer, 4).unwrap();
            drop(writer);
            work.assert_holds(&Chain::open(work.dir()).unwrap(), 4);
        },
    );
    assert!(tried > 3, "{tried} failures are too few to be all");
}
