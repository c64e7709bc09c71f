// SPDX-License-Identifier: GPL-2.0-only
//! All interleavings of small scenarios: writers, commits, consumers of snapshots.
//!
//! The index, the chunks, the tracker are the real ones. Modelled are the machine (entries of
//! page tables, translations that processors keep, memory), what a snapshot holds, and the
//! order in which the fault handler, the commit and the consumers do things, step by step as
//! `kmod/arena/`, `kmod/snapshot.rs` and `kmod/mm/direct.rs` have it. A step is what others
//! can see the middle of nothing of: an access to an entry under its table's lock, what is
//! done under the lock of the list, a store.
//!
//! Of what the model says, this must hold in all states:
//!
//! - What was stored before a commit had the barrier is in a delta when it ends, for a consumer
//!   who reads what is in each delta. After a last commit nothing is missing.
//! - Snapshots hold what changed since their cursor, as it was in memory at their commit.
//! - No frozen page is writable, by an entry or by a translation, but within a commit.
//! - Epochs only grow. Nobody waits for ever.
//!
//! The tests of mistakes show that each of these can be found violated.

mod commit;
mod consumer;
mod memory;
mod search;
mod state;
mod writer;

use ckpt_core::tracker::Policy;
use search::{explore, Explored};
use state::{Asked, Consume, Mistake, Scenario};

/// A commit without a snapshot.
const PLAIN: Asked = Asked { snapshot: None };

/// Of a snapshot, with room for copies of all pages, that is read and then closed.
const READ: Consume = Consume {
    reserve: 3,
    all: true,
    read: true,
    thaw: false,
};

/// A commit with a snapshot.
const fn with(snapshot: Consume) -> Asked {
    Asked {
        snapshot: Some(snapshot),
    }
}

/// All policies, with so many epochs behind them that pages are armed, open, open.
const POLICIES: [(Policy, usize); 3] =
    [(Policy::Armed, 1), (Policy::Open, 1), (Policy::Adaptive, 3)];

/// A scenario holds in all its states, of which there are at least `floor`.
fn holds(floor: usize, scenario: Scenario) -> Explored {
    let name = format!("{scenario:?}");
    let begun = std::time::Instant::now();
    let explored = match explore(scenario) {
        Ok(explored) => explored,
        Err(trace) => panic!("{name}:\n{trace}"),
    };
    let Explored {
        states,
        steps,
        ends,
        ..
    } = explored;
    let ms = begun.elapsed().as_millis();
    println!("{states} states, {steps} steps, {ends} ends, {ms} ms: {name}");
    assert!(states >= floor, "only {states} states: {name}");
    explored
}

/// Steps that were taken in some state.
fn took(explored: &Explored, steps: &[&str]) {
    for step in steps {
        assert!(explored.done.contains(step), "nobody ever {step}");
    }
}

/// A scenario goes wrong as it must with a mistake, and not without.
fn fails(mistake: Mistake, wrong: &str, scenario: Scenario) {
    holds(50, scenario.clone());
    match explore(scenario.with(mistake)) {
        Ok(explored) => panic!("{mistake:?} is not found in {} states", explored.states),
        Err(trace) => {
            println!("{mistake:?}:\n{trace}");
            assert!(
                trace.wrong.contains(wrong),
                "{mistake:?} is found by something else"
            );
        }
    }
}

fn armed() -> Scenario {
    Scenario::new(Policy::Armed).after(1)
}

fn open() -> Scenario {
    Scenario::new(Policy::Open).after(1)
}

#[test]
fn what_two_writers_store_beside_commits_is_in_the_deltas() {
    for (policy, epochs) in POLICIES {
        let writers = Scenario::new(policy)
            .after(epochs)
            .writer(&[0, 1])
            .writer(&[0]);
        holds(5_000, writers.committer(&[PLAIN, PLAIN]));
    }
    // Pages that no commit has seen.
    let new = Scenario::new(Policy::Adaptive).writer(&[0, 2]).writer(&[0]);
    holds(5_000, new.committer(&[PLAIN, PLAIN]));
}

#[test]
fn two_commits_at_once_get_two_epochs_and_lose_nothing() {
    for (policy, epochs) in POLICIES {
        let writers = Scenario::new(policy)
            .after(epochs)
            .writer(&[0, 2])
            .writer(&[2]);
        holds(5_000, writers.committer(&[PLAIN]).committer(&[PLAIN]));
    }
}

#[test]
fn a_fault_that_opens_its_chunk_beside_commits_loses_nothing() {
    // What a snapshot held is armed, and the next fault opens all of it.
    let closed = Consume {
        read: false,
        ..READ
    };
    let writers = open().writer(&[0]).writer(&[1]);
    let explored = holds(5_000, writers.committer(&[with(closed), PLAIN]));
    took(
        &explored,
        &[
            "opens the entries of the chunk",
            "tells that the chunk is open",
        ],
    );
}

#[test]
fn a_snapshot_is_memory_at_its_commit() {
    for (policy, epochs) in POLICIES {
        for all in [false, true] {
            let snapshot = with(Consume { all, ..READ });
            let writers = Scenario::new(policy)
                .after(epochs)
                .writer(&[0, 1])
                .writer(&[0]);
            let explored = holds(5_000, writers.committer(&[snapshot]));
            took(
                &explored,
                &["gives the copy to who needs it, and thaws", "reads a copy"],
            );
        }
    }
}

#[test]
fn a_page_is_copied_for_all_snapshots_that_hold_it() {
    let last = Consume { all: false, ..READ };
    for (policy, epochs) in POLICIES {
        let writer = Scenario::new(policy).after(epochs).writer(&[0]);
        let explored = holds(5_000, writer.committer(&[with(READ), with(READ)]));
        took(&explored, &["reads a copy"]);
    }
    holds(
        5_000,
        armed()
            .writer(&[0, 0])
            .committer(&[with(READ)])
            .committer(&[with(last)]),
    );
}

#[test]
fn a_commit_beside_a_snapshot_loses_nothing() {
    for (policy, epochs) in POLICIES {
        let writer = Scenario::new(policy).after(epochs).writer(&[0, 1, 0]);
        holds(2_000, writer.committer(&[with(READ)]).committer(&[PLAIN]));
    }
}

#[test]
fn a_writer_without_room_waits_until_pages_are_thawed_and_no_longer() {
    let no_room = [
        "has no room for a copy",
        "has no room for a copy and waits",
        "wakes up",
    ];
    for (policy, epochs) in POLICIES {
        for (read, thaw) in [(true, true), (true, false), (false, false)] {
            let snapshot = Consume {
                reserve: 1,
                all: true,
                read,
                thaw,
            };
            let writer = Scenario::new(policy).after(epochs).writer(&[0, 1]);
            took(&holds(500, writer.committer(&[with(snapshot)])), &no_room);
        }
    }
    let closed = Consume {
        reserve: 1,
        read: false,
        ..READ
    };
    let writers = armed().writer(&[0, 1]).writer(&[2]);
    took(&holds(5_000, writers.committer(&[with(closed)])), &no_room);
}

#[test]
fn entries_that_are_taken_away_lose_no_store_to_armed_pages() {
    let scenario = armed().writer(&[0, 0]).zapper(&[0, 1]);
    holds(1_000, scenario.clone().writer(&[1]).committer(&[PLAIN]));
    holds(
        1_000,
        scenario.clone().committer(&[PLAIN]).committer(&[PLAIN]),
    );
    holds(1_000, scenario.committer(&[with(READ)]));
}

#[test]
fn entries_that_are_taken_away_lose_no_store_to_open_pages() {
    let scenario = open().writer(&[0, 0]).zapper(&[0, 1]);
    holds(100, scenario.clone().committer(&[PLAIN]));
    holds(1_000, scenario.clone().writer(&[1]).committer(&[PLAIN]));
    holds(
        1_000,
        scenario.clone().committer(&[PLAIN]).committer(&[PLAIN]),
    );
    holds(1_000, scenario.committer(&[with(READ)]));
}

#[test]
fn without_the_flush_stores_are_lost() {
    fails(
        Mistake::NoFlush,
        "in no delta",
        armed().writer(&[0, 0]).committer(&[PLAIN]),
    );
}

#[test]
fn without_the_barrier_two_commits_get_one_epoch() {
    let scenario = armed().writer(&[0]).committer(&[PLAIN]).committer(&[PLAIN]);
    fails(Mistake::EpochBeforeBarrier, "comes after epoch", scenario);
}

#[test]
fn before_the_flush_the_epoch_says_nothing_about_a_copy() {
    let scenario = armed().writer(&[0]).writer(&[0]).committer(&[with(READ)]);
    fails(Mistake::EpochBeforeFlush, "at its commit", scenario);
}

#[test]
fn a_page_that_is_writable_before_it_is_noted_is_missed() {
    let scenario = armed().writer(&[0]).writer(&[0]).committer(&[PLAIN]);
    fails(Mistake::WritableBeforeNoted, "in no delta", scenario);
}

#[test]
fn a_page_that_is_writable_after_a_commit_took_its_note_is_missed() {
    let scenario = armed().writer(&[0]).committer(&[PLAIN]);
    fails(Mistake::WritableAfterBarrier, "in no delta", scenario);
}

#[test]
fn whether_a_page_is_frozen_has_to_be_asked_again() {
    let scenario = armed().writer(&[0]).committer(&[with(READ)]);
    fails(
        Mistake::FrozenNotAskedAgain,
        "frozen and writable",
        scenario,
    );
}

#[test]
fn a_copy_of_another_epoch_is_not_what_was_frozen() {
    let scenario = armed().writer(&[0]).writer(&[0]).committer(&[with(READ)]);
    fails(Mistake::CopyOfAnyEpoch, "at its commit", scenario);
}

#[test]
fn thawing_beside_a_commit_thaws_what_it_freezes() {
    let scenario = armed().writer(&[0]).committer(&[with(READ), with(READ)]);
    fails(Mistake::ThawWithoutBarrier, "at its commit", scenario);
}

#[test]
fn what_another_snapshot_needs_must_not_be_thawed() {
    let scenario = armed().writer(&[0]).committer(&[with(READ), with(READ)]);
    fails(Mistake::ThawForOthers, "at its commit", scenario);
}

#[test]
fn who_reads_a_page_must_look_for_a_copy_again() {
    let scenario = armed().writer(&[0]).committer(&[with(READ)]);
    fails(Mistake::NoSecondLook, "at its commit", scenario);
}

#[test]
fn what_is_waited_for_must_be_asked_before_the_room() {
    let snapshot = with(Consume { reserve: 1, ..READ });
    let scenario = armed().writer(&[0, 1]).committer(&[snapshot]);
    fails(Mistake::WaitTooLate, "waits for ever", scenario);
}

#[test]
fn a_dirty_bit_has_to_be_taken_with_the_entry() {
    let scenario = open().writer(&[0]).committer(&[with(READ)]);
    fails(Mistake::DirtyAskedBefore, "in no delta", scenario);
}
