// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that write while others commit.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::track::Choice;

use super::Claim;
use super::Mirror;
use super::Random;
use super::Subject;
use super::WORDS;

pub const CLAIMS: &[Claim] = &[
    ("what_threads_write_during_commits_is_never_missed", deltas),
    (
        "what_threads_write_during_commits_with_snapshots_is_never_missed",
        with_snapshots,
    ),
];

const PAGES: usize = 300;
const ROUNDS: u64 = 100;

/// Stops threads, also when a claim fails: the others wait for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs commits while threads write without a pause, and looks at the end whether what was
/// pulled is what there is.
fn disturbed(choice: Choice, mut commit: impl FnMut(&mut Subject, &mut Mirror)) {
    let mut subject = Subject::new(choice, PAGES);
    let mut mirror = Mirror::new(&subject);
    let words = subject.words();
    let stop = AtomicBool::new(false);
    let written = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for (seed, written) in (1..).zip(&written) {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut value = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Some pages often, most of them now and then.
                    let page = match random.below(3) {
                        0 => random.below(5),
                        _ => random.below(PAGES),
                    };
                    value += 1;
                    words[page * WORDS + seed as usize].store(value, Ordering::Relaxed);
                    written.store(value, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=ROUNDS {
            // They write in every round, however fast those are.
            while written
                .iter()
                .any(|count| count.load(Ordering::Relaxed) < 1000 * round)
            {
                thread::yield_now();
            }
            commit(&mut subject, &mut mirror);
        }
    });
    let image = subject.image();
    assert!(image.iter().any(|&word| word > 0));
    let epoch = subject.commit();
    mirror.pull(&mut subject, epoch);
    mirror.assert_is(&image, "when threads had stopped");
}

fn deltas(choice: Choice, _: &Path) {
    disturbed(choice, |subject, mirror| {
        let epoch = subject.commit();
        mirror.pull(subject, epoch);
    });
}

fn with_snapshots(choice: Choice, _: &Path) {
    disturbed(choice, |subject, mirror| {
        let (epoch, mut snapshot) = subject.freeze(mirror.cursor);
        mirror.gather(&mut *snapshot, epoch, 40);
    });
}
