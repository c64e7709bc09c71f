// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must hold of a chain whenever the power failed, and the proof that each sync is needed
//! for it.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::ops::Range;
use std::ops::RangeInclusive;
use std::path::Path;

use super::disk::Change;
use super::disk::Data;
use super::disk::Disk;
use super::disk::Random;
use super::disk::lay_out;
use super::*;

/// What somebody knew when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Told {
    /// The newest epoch that was said to be durable, 0 before any.
    pub reported: u64,
    /// The newest epoch that was begun and of which nothing else was said.
    pub begun: u64,
}

impl Told {
    pub(super) fn until(changes: &[Change]) -> Told {
        let mut told = Told {
            reported: 0,
            begun: 0,
        };
        for change in changes {
            match change {
                Change::Begun(epoch) => told.begun = *epoch,
                Change::Reported(epoch) => (told.reported, told.begun) = (*epoch, *epoch),
                Change::Failed => told.begun = told.reported,
                _ => {}
            }
        }
        told
    }
}

/// What is expected of a chain.
pub(super) struct Expectation<'a> {
    /// Where it is beneath the root.
    pub dir: &'a str,
    pub options: Options,
    /// What each epoch has.
    pub image: &'a dyn Fn(u64) -> Vec<u8>,
    /// Whether these epochs are all that must be there when the last of them is.
    pub is_whole: &'a dyn Fn(&BTreeSet<u64>) -> bool,
    /// Whether there is more to be asked of what is found.
    pub also: &'a dyn Fn(&Path, Told) -> Result<(), String>,
    /// What must work in the end.
    pub then: &'a dyn Fn(&Path) -> Result<(), String>,
}

impl Default for Expectation<'_> {
    fn default() -> Self {
        Expectation {
            dir: "chain",
            options: Options::default(),
            image: &image,
            is_whole: &|epochs| epochs.iter().copied().eq(1..=epochs.len() as u64),
            also: &|_, _| Ok(()),
            then: &|_| Ok(()),
        }
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    holds.then_some(()).ok_or_else(what)
}

/// The pages of an epoch as they are restored.
pub(super) fn restored(chain: &Chain, epoch: u64) -> Result<Vec<u8>, StoreError> {
    let mut restored = vec![0; ARENA_PAGES as usize * PAGE];
    let mut loader = chain.load(epoch)?;
    while let Some(run) = loader.next_run()? {
        restored[run.pgoff as usize * PAGE..][..run.bytes.len()].copy_from_slice(run.bytes);
    }
    Ok(restored)
}

impl Expectation<'_> {
    /// The epochs of a chain, which is sound and gives each back as it was.
    fn epochs(&self, chain: &Chain) -> Result<BTreeSet<u64>, String> {
        let report = chain.verify(|_, _| {}).map_err(|error| error.to_string())?;
        ensure(report.damage.is_empty(), || format!("{:?}", report.damage))?;
        for &epoch in &report.restorable {
            let restored = restored(chain, epoch).map_err(|error| error.to_string())?;
            ensure(restored == (self.image)(epoch), || {
                format!("epoch {epoch} is something else")
            })?;
        }
        Ok(report.restorable.into_iter().collect())
    }

    /// Looks at what was found beneath `root`, as a reader and then as a writer does, which goes on.
    pub(super) fn check(&self, root: &Path, told: Told) -> Result<(), String> {
        let dir = root.join(self.dir);
        (self.also)(&dir, told)?;
        match Chain::open(&dir) {
            Ok(chain) => ensure(chain.damage().is_empty(), || {
                format!("a reader finds {:?}", chain.damage())
            })?,
            Err(StoreError::NoChain { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        let opened = Writer::open_or_create(&dir, self.options.clone());
        let (mut writer, recovery) = opened.map_err(|error| error.to_string())?;
        ensure(recovery.damage.is_empty(), || {
            format!("{:?}", recovery.damage)
        })?;
        let epochs = self.epochs(writer.chain())?;
        let newest = epochs.last().copied().unwrap_or(0);
        ensure((told.reported..=told.begun).contains(&newest), || {
            format!("{newest} is there, {told:?}")
        })?;
        ensure((self.is_whole)(&epochs), || {
            format!("only {epochs:?} are there")
        })?;
        append(&mut writer, newest + 1).map_err(|error| error.to_string())?;
        drop(writer);
        let chain = Chain::open(&dir).map_err(|error| error.to_string())?;
        ensure(chain.damage().is_empty(), || {
            format!("then there is {:?}", chain.damage())
        })?;
        let mut next = match newest {
            0 => vec![],
            newest => (self.image)(newest),
        };
        next.resize(ARENA_PAGES as usize * PAGE, 0);
        for (pgoff, bytes) in delta(newest + 1) {
            next[pgoff as usize * PAGE..][..bytes.len()].copy_from_slice(&bytes);
        }
        let restored = restored(&chain, newest + 1).map_err(|error| error.to_string())?;
        ensure(restored == next, || "it does not go on".into())?;
        drop(chain);
        (self.then)(&dir)
    }

    /// Lets the power fail at these moments of a log, in every way in which names can be lost
    /// times so many in which data can. Returns how many different disks were found.
    pub(super) fn try_at(
        &self,
        log: &[Change],
        moments: RangeInclusive<usize>,
        ways: u64,
    ) -> Result<usize, String> {
        let mut seen = HashSet::new();
        for moment in moments {
            let disk = Disk::replay(&log[..moment]);
            let told = Told::until(&log[..moment]);
            let mut random = Random((moment as u64 + 1) * 1_000_003);
            for names in disk.ways_to_lose_names(&mut random) {
                for way in 0..ways {
                    let seed = random.0;
                    let mut data = match way {
                        0 => Data::Lost,
                        1 => Data::Kept,
                        2 => Data::Last,
                        3 => Data::ButFirst,
                        _ => Data::Some(&mut random),
                    };
                    let found = disk.after_failure(&names, &mut data);
                    let mut hasher = DefaultHasher::new();
                    (&found, told).hash(&mut hasher);
                    if !seen.insert(hasher.finish()) {
                        continue;
                    }
                    let temp = memory_dir();
                    lay_out(&found, temp.path());
                    self.check(temp.path(), told).map_err(|what| {
                        format!("moment {moment}, way {way}, seed {seed}, names {names:?}: {what}")
                    })?;
                }
            }
        }
        Ok(seen.len())
    }

    /// Lets the power fail at every moment of a log. Returns how many different disks were found.
    pub(super) fn try_everywhere(&self, log: &[Change], ways: u64) -> usize {
        match self.try_at(log, 0..=log.len(), ways) {
            Ok(states) => states,
            Err(what) => panic!("{what}; the log: {}", summary(log)),
        }
    }

    /// Whether somebody misses a sync of a log: without it, something is found that must not be.
    pub(super) fn misses(&self, log: &[Change], sync: usize) -> bool {
        let mut without = log.to_vec();
        assert!(without.remove(sync).is_sync());
        let last = without.len().min(sync + 24);
        self.try_at(&without, sync..=last, 12).is_err()
    }

    /// Leaves out each sync in a part of a log in turn. Returns how many there were.
    pub(super) fn assert_misses_each(&self, log: &[Change], part: Range<usize>) -> usize {
        let syncs: Vec<usize> = part.filter(|&at| log[at].is_sync()).collect();
        for &at in &syncs {
            let sync = &log[at];
            assert!(
                self.misses(log, at),
                "nobody misses change {at}, {sync:?}; the log: {}",
                summary(log)
            );
        }
        syncs.len()
    }
}

/// A log for people: without what was written.
pub(super) fn summary(log: &[Change]) -> String {
    let lines = log.iter().zip(0..).map(|(change, at)| match change {
        Change::Write(path, offset, bytes) => {
            format!("{at}: Write({path:?}, {offset}, {} bytes)", bytes.len())
        }
        change => format!("{at}: {change:?}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Syncs by what they are for, and whether one of several histories needs them.
#[derive(Default)]
pub(super) struct Needs {
    seen: BTreeSet<String>,
    needed: BTreeSet<String>,
}

impl Needs {
    /// Tries the syncs in a part of a log of which it is not known that they are needed.
    pub(super) fn learn(
        &mut self,
        expectation: &Expectation<'_>,
        log: &[Change],
        part: Range<usize>,
    ) {
        for at in part.filter(|&at| log[at].is_sync()) {
            let purpose = purpose(&log[at..]);
            self.seen.insert(purpose.clone());
            if !self.needed.contains(&purpose) && expectation.misses(log, at) {
                self.needed.insert(purpose);
            }
        }
    }

    /// Asserts that these were all, and that each was needed.
    pub(super) fn assert_are<const N: usize>(&self, all: [&str; N]) {
        assert_eq!(self.seen, all.map(String::from).into());
        let not_needed: Vec<_> = self.seen.difference(&self.needed).collect();
        assert!(not_needed.is_empty(), "nobody misses {not_needed:?}");
    }
}

/// What a sync, with which a log begins, is of, and what is done next.
fn purpose(log: &[Change]) -> String {
    let kind = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        None => "the root",
        Some(name) if name.starts_with("segment-") => "a segment",
        Some(name) if name.starts_with("base-") => "a base",
        Some(_) => "the directory",
    };
    let of = match &log[0] {
        Change::SyncData(path) | Change::SyncDir(path) => kind(path),
        change => panic!("{change:?} is no sync"),
    };
    let next = log[1..].iter().find_map(|change| match change {
        Change::Rename(_, to) => Some(format!("{} gets its name", kind(to))),
        Change::Unlink(path) => Some(format!("{} is removed", kind(path))),
        Change::Begun(_) | Change::Reported(_) => Some("somebody is told".into()),
        Change::Write(path, ..) => Some(format!("{} is written to", kind(path))),
        Change::SyncData(path) | Change::SyncDir(path) => Some(format!("{} is synced", kind(path))),
        _ => None,
    });
    format!("{of} before {}", next.unwrap_or("the end".into()))
}
