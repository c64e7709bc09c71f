// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exports, imports and copies, while calls fail and when the power does.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::disk::Change;
use super::disk::Data;
use super::disk::Disk;
use super::disk::Random;
use super::disk::lay_out;
use super::disk::record;
use super::every_call::every_call;
use super::expectation::summary;
use super::failing_work::assert_told;
use super::failing_work::options;
use super::failing_work::to_be_read;
use super::*;
use crate::store::Compression;
use crate::store::import;

fn export(dir: &Path) -> Result<Vec<u8>, StoreError> {
    let mut archive = Vec::new();
    Chain::open(dir)?.export(&mut archive, |_| {})?;
    Ok(archive)
}

#[test]
fn an_export() {
    let work = to_be_read(&options(4096, Compression::Lz4, true));
    let whole = export(&work.dir()).unwrap();
    let tried = every_call(
        || (),
        |()| export(&work.dir()),
        |(), done, trouble| match done {
            Ok(archive) => assert!(archive == whole),
            Err(error) => assert_told(&error, trouble),
        },
    );
    assert!(tried > 10, "{tried} failures are too few to be all");
    work.assert_holds(&Chain::open(work.dir()).unwrap(), 3);
}

#[test]
fn an_import() {
    let work = to_be_read(&options(4096, Compression::Lz4, true));
    let archive = export(&work.dir()).unwrap();
    let tried = every_call(
        memory_dir,
        |temp| import(&archive[..], &temp.path().join("chain"), |_| {}).map(drop),
        |temp, done, trouble| {
            let dir = temp.path().join("chain");
            if let Err(error) = done {
                // What was written and cannot be read is damaged.
                if !error.is_damage() {
                    assert_told(&error, trouble);
                }
                // Only the last sync fails when all is there.
                if !dir.exists() {
                    let begun = temp.path().join(".chain.importing");
                    if begun.exists() {
                        assert!(trouble.unwrap().for_good, "names are left");
                        std::fs::remove_dir_all(begun).unwrap();
                    }
                    import(&archive[..], &dir, |_| {}).unwrap();
                }
            }
            assert_eq!(work.assert_holds(&Chain::open(&dir).unwrap(), 3), [2, 3]);
        },
    );
    assert!(tried > 40, "{tried} failures are too few to be all");
}

#[test]
fn an_epoch_that_is_copied_out() {
    let options = options(4096, Compression::Lz4, true);
    let work = to_be_read(&options);
    let chain = Chain::open(work.dir()).unwrap();
    let tried = every_call(
        memory_dir,
        |temp| chain.copy_epoch(3, &temp.path().join("copy"), |_| {}),
        |temp, done, trouble| {
            let dir = temp.path().join("copy");
            if let Err(error) = done {
                assert_told(&error, trouble);
                // It may be there when it could not be taken back.
                let there = Chain::open(&dir).is_ok_and(|chain| chain.find(3).is_some());
                assert!(!there || trouble.unwrap().for_good);
                if !there {
                    chain.copy_epoch(3, &dir, |_| {}).unwrap();
                }
            }
            assert_eq!(work.assert_holds(&Chain::open(&dir).unwrap(), 3), [3]);
        },
    );
    assert!(tried > 40, "{tried} failures are too few to be all");
}

/// An import, from before it is begun until it was said to be done.
fn life() -> Vec<Change> {
    let work = to_be_read(&options(4096, Compression::Lz4, true));
    let archive = export(&work.dir()).unwrap();
    let temp = memory_dir();
    record(temp.path(), |log| {
        import(&archive[..], &temp.path().join("chain"), |_| {}).unwrap();
        log.note(Change::Reported(3));
    })
}

/// Lets the power fail at every moment: the directory is not there, or all of it is, and it is
/// when that was said. How many different disks were found.
fn try_everywhere(log: &[Change]) -> Result<usize, String> {
    let mut seen = BTreeSet::new();
    for moment in 0..=log.len() {
        let disk = Disk::replay(&log[..moment]);
        let mut random = Random(moment as u64 + 1);
        for names in disk.ways_to_lose_names(&mut random) {
            for way in 0..16 {
                let mut data = match way {
                    0 => Data::Lost,
                    1 => Data::Kept,
                    _ => Data::Some(&mut random),
                };
                let found = disk.after_failure(&names, &mut data);
                if !seen.insert((moment == log.len(), found.clone())) {
                    continue;
                }
                let temp = memory_dir();
                lay_out(&found, temp.path());
                let dir = temp.path().join("chain");
                let whole = match Chain::open(&dir) {
                    _ if !dir.exists() => moment < log.len(),
                    Ok(chain) => chain.verify(|_, _| {}).is_ok_and(|report| {
                        report.damage.is_empty() && report.restorable == [2, 3]
                    }),
                    Err(_) => false,
                };
                if !whole {
                    let found: Vec<&PathBuf> = found.keys().collect();
                    return Err(format!("moment {moment}: {found:?}; {}", summary(log)));
                }
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn an_import_is_there_as_a_whole_or_not_at_all_when_the_power_fails() {
    let states = try_everywhere(&life()).unwrap();
    assert!(states > 20, "{states} are too few to be all");
}

#[test]
fn an_import_that_left_any_sync_out_would_be_found_out() {
    let log = life();
    let syncs: Vec<usize> = (0..log.len()).filter(|&at| log[at].is_sync()).collect();
    assert_eq!(syncs.len(), 4, "two files and two directories");
    for at in syncs {
        let mut without = log.clone();
        let sync = without.remove(at);
        assert!(try_everywhere(&without).is_err(), "nobody misses {sync:?}");
    }
}
