// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot is what there was, whatever is written meanwhile.

use std::path::Path;

use ckptctl::track::Choice;
use ckptctl::track::Frozen;

use super::Claim;
use super::Mirror;
use super::PAGE;
use super::Random;
use super::Subject;

pub const CLAIMS: &[Claim] = &[
    ("a_snapshot_has_what_changed_as_it_was", one),
    ("several_snapshots_do_not_disturb_each_other", several),
    ("a_snapshot_that_nobody_reads_leaves_no_trace", unread),
    (
        "a_refused_snapshot_takes_nothing_from_the_next_commit",
        refused,
    ),
];

fn scribble(subject: &Subject, random: &mut Random, value: u64) {
    for _ in 0..150 {
        subject.put(random.below(subject.pages()), value);
    }
}

fn one(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 400);
    let mut mirror = Mirror::new(&subject);
    let mut random = Random(3);
    for round in 1..20 {
        scribble(&subject, &mut random, round);
        let image = subject.image();
        let (epoch, mut snapshot) = subject.freeze(mirror.cursor);
        scribble(&subject, &mut random, 1000 + round);
        mirror.gather(&mut *snapshot, epoch, 1 + random.below(70));
        mirror.assert_is(&image, "a snapshot");
    }
}

fn several(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 300);
    let mut random = Random(4);
    let mut open = Vec::new();
    for round in 1..30 {
        scribble(&subject, &mut random, round);
        let image = subject.image();
        // Since the beginning, so that each has all that there is.
        let (epoch, snapshot) = subject.freeze(0);
        open.push((epoch, snapshot, image));
        if open.len() == 4 {
            let (epoch, mut snapshot, image) = open.swap_remove(random.below(4));
            let mut mirror = Mirror::new(&subject);
            mirror.gather(&mut *snapshot, epoch, 64);
            mirror.assert_is(&image, "one of several");
        }
    }
    for (epoch, mut snapshot, image) in open {
        let mut mirror = Mirror::new(&subject);
        mirror.gather(&mut *snapshot, epoch, 7);
        mirror.assert_is(&image, "one of the last");
    }
}

fn unread(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 100);
    let mut mirror = Mirror::new(&subject);
    for round in 1..200 {
        subject.put(round as usize % 100, round);
        let (_, mut snapshot) = subject.freeze(0);
        if round % 2 == 0 {
            let mut runs = Vec::new();
            snapshot.gather(&mut [0; 3 * PAGE], &mut runs).unwrap();
        }
    }
    let epoch = subject.commit();
    let image = subject.image();
    mirror.pull(&mut subject, epoch);
    mirror.assert_is(&image, "behind snapshots that nobody read");
}

/// More than is copied, and than may be locked.
fn refused(choice: Choice, _: &Path) {
    let pages = 20_000;
    let mut subject = Subject::new(choice, pages);
    for page in 0..pages {
        subject.put(page, 1);
    }
    let frozen = subject
        .tracker
        .commit_with_snapshot(&subject.used, 0, true)
        .unwrap();
    let (snapshot, refusal) = match frozen {
        Frozen::Made(committed, snapshot) => (Some((committed.epoch, snapshot)), None),
        Frozen::Refused(why) => (None, Some(why)),
    };
    match choice {
        Choice::Pagemap => {
            let why = refusal.expect("more than is copied").to_string();
            assert!(why.contains("20000 pages changed"), "{why}");
        }
        _ => println!("20,000 pages are frozen: {}", snapshot.is_some()),
    }
    drop(snapshot);
    subject.put(17, 2);
    subject.commit();
    assert_eq!(subject.delta(0).len(), pages);
}
