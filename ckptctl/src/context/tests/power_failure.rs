// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The power fails at any moment while commits are on their way: every epoch that somebody was
//! told to be durable is there, and nothing that is there was never committed.

use super::failing_saves::Images;
use super::failing_saves::Program;
use super::failing_saves::assert_is_what_was_committed;
use super::*;
use crate::store::tests::disk::Change;
use crate::store::tests::disk::Disk;
use crate::store::tests::disk::Random;
use crate::store::tests::memory_dir;
use crate::sys::file::fake::share;

/// Runs a program whose calls are logged. The log, and what the program had by epoch.
fn record(fail_calls: impl Fn(u64) -> Verdict + Send + Sync + 'static) -> (Vec<Change>, Images) {
    let temp = memory_dir();
    let log: Arc<Mutex<Vec<Change>>> = Arc::default();
    let sharing = {
        let (log, root) = (Arc::clone(&log), temp.path().to_owned());
        let calls = AtomicU64::new(0);
        share(move |call| {
            let verdict = fail_calls(1 + calls.fetch_add(1, Ordering::SeqCst));
            let change = match (Change::of(call, &root), &verdict) {
                (change, Verdict::Go) => change,
                (Some(Change::SyncData(path)), _) => Some(Change::FailedSync(path)),
                _ => None,
            };
            log.lock().unwrap().extend(change);
            verdict
        })
    };
    let mut program = Program::start(temp.path());
    let hook = {
        let log = Arc::clone(&log);
        move |_: &Context, epoch| {
            log.lock().unwrap().push(Change::Reported(epoch));
            0
        }
    };
    program
        .context()
        .hook(When::AfterCommit, Arc::new(hook))
        .unwrap();
    for step in 1..=20 {
        let _ = program.step();
        if step % 7 == 0 && program.context().wait(0, None).is_ok() {
            let epoch = program.context().epoch().unwrap().unwrap();
            log.lock().unwrap().push(Change::Reported(epoch));
        }
    }
    let _ = program.context().wait(0, None);
    drop(sharing);
    let log = std::mem::take(&mut *log.lock().unwrap());
    (log, program.images)
}

fn fail_everywhere(log: &[Change], images: &Images, ways: u64) {
    for moment in 0..=log.len() {
        let disk = Disk::replay(&log[..moment]);
        let reported = log[..moment].iter().filter_map(|change| match change {
            Change::Reported(epoch) => Some(*epoch),
            _ => None,
        });
        let reported = reported.max().unwrap_or(0);
        for way in 0..ways {
            let seed = (moment as u64 + 1) * 1_000_003 + way;
            let temp = memory_dir();
            disk.fail(&mut Random(seed), temp.path());
            // As the next start does.
            let opened =
                crate::store::Writer::open_or_create(temp.path(), crate::store::Options::default());
            let (writer, recovery) =
                opened.unwrap_or_else(|error| panic!("moment {moment}, seed {seed}: {error}"));
            assert_eq!(recovery.damage, vec![], "moment {moment}, seed {seed}");
            let newest = assert_is_what_was_committed(writer.chain(), images);
            assert!(
                newest >= reported,
                "moment {moment}, seed {seed}: {reported} was durable, {newest} is there"
            );
        }
    }
}

#[test]
fn no_epoch_that_was_told_to_be_durable_is_lost_when_the_power_fails() {
    let (log, images) = record(|_| Verdict::Go);
    let told = log
        .iter()
        .filter(|change| matches!(change, Change::Reported(_)));
    assert!(told.count() >= 20);
    fail_everywhere(&log, &images, 6);
}

#[test]
fn no_epoch_that_was_told_to_be_durable_is_lost_when_saves_fail_before_the_power_does() {
    // Every ninth call does, whichever that is.
    let (log, images) = record(|call| match call % 9 {
        0 if call > 20 => Verdict::Fail(libc::EIO),
        _ => Verdict::Go,
    });
    fail_everywhere(&log, &images, 6);
}
