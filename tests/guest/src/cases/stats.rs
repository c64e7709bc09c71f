// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_STATS.

use crate::abi;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_new_arena_has_counted_nothing,
    a_fault_is_counted_as_what_it_was_for,
    stores_alone_are_never_noted_late,
    commits_and_their_pages_add_up,
    the_times_of_commits_are_those_that_commit_told,
    every_delta_call_is_counted,
    bytes_held_covers_the_pages_and_little_more,
];

fn a_new_arena_has_counted_nothing(_: &Options) -> Outcome {
    let stats = Device::open()?.create("new", 1000)?.stats()?;
    let expected = abi::ckpt_stats {
        size: size_of::<abi::ckpt_stats>() as u32,
        bytes_held: stats.bytes_held,
        ..abi::ckpt_stats::ZERO
    };
    ensure_eq!(format!("{stats:?}"), format!("{expected:?}"), "statistics");
    Ok(())
}

fn a_fault_is_counted_as_what_it_was_for(_: &Options) -> Outcome {
    let arena = Device::open()?.create("faults", 1000)?;
    let map = arena.map_all()?;
    for page in 0..30 {
        map.get(page * PAGE);
    }
    let read = arena.stats()?;
    // One fault may bring in neighbours, but not without a page being asked for.
    ensure!(
        (1..=30).contains(&read.read_faults),
        "read_faults {}",
        read.read_faults
    );
    ensure_eq!(read.write_faults, 0, "write_faults after reads");
    for page in 0..30 {
        map.touch(page, 1);
    }
    let written = arena.stats()?;
    ensure_eq!(
        written.write_faults,
        30,
        "write_faults of 30 pages read before"
    );
    for page in 500..540 {
        map.touch(page, 1);
        map.touch(page, 2);
    }
    let written = arena.stats()?;
    ensure_eq!(
        written.write_faults,
        70,
        "write_faults with 40 pages never touched"
    );
    ensure_eq!(
        written.read_faults,
        read.read_faults,
        "read_faults after writes"
    );
    arena.commit()?;
    map.touch(3, 3);
    ensure_eq!(
        arena.stats()?.write_faults,
        71,
        "write_faults with one in the next epoch"
    );
    ensure_eq!(arena.stats()?.resident_pages, 70, "resident_pages");
    Ok(())
}

fn stores_alone_are_never_noted_late(_: &Options) -> Outcome {
    let arena = Device::open()?.create("late", 1000)?;
    for round in 0..3 {
        let map = arena.map_all()?;
        for page in 0..300 {
            map.touch(page * 3, round);
        }
        arena.commit()?;
        map.unmap()?;
    }
    let stats = arena.stats()?;
    ensure_eq!(
        (stats.write_faults, stats.late_notes),
        (900, 0),
        "write_faults and late_notes"
    );
    Ok(())
}

fn commits_and_their_pages_add_up(_: &Options) -> Outcome {
    let arena = Device::open()?.create("commits", 1000)?;
    let map = arena.map_all()?;
    let mut stamped = 0;
    for round in 1..=10_usize {
        for page in 0..round * round {
            map.touch(page * 7 % 1000, 1);
        }
        stamped += arena.commit()?.changed_pages;
        let stats = arena.stats()?;
        ensure_eq!(stats.commits, round as u64, "commits");
        ensure_eq!(stats.committed_pages, stamped, "committed_pages");
        // The entry of every page written through a mapping has to be looked at.
        ensure!(
            stats.harvested_ptes >= stamped,
            "harvested_ptes {} of {stamped} stamped",
            stats.harvested_ptes
        );
        ensure!(
            stats.rearmed_spans <= stats.rearmed_pages,
            "rearmed_spans {} over {} pages",
            stats.rearmed_spans,
            stats.rearmed_pages
        );
    }
    Ok(())
}

fn the_times_of_commits_are_those_that_commit_told(_: &Options) -> Outcome {
    let arena = Device::open()?.create("times", 1000)?;
    let map = arena.map_all()?;
    let (mut total, mut longest) = (0, 0);
    for round in 0..12 {
        for page in 0..round * 20 {
            map.touch(page, 1);
        }
        let duration = arena.commit()?.duration_ns;
        total += duration;
        longest = longest.max(duration);
        let stats = arena.stats()?;
        ensure_eq!(stats.commit_ns_last, duration, "commit_ns_last");
        ensure_eq!(stats.commit_ns, total, "commit_ns");
        ensure_eq!(stats.commit_ns_max, longest, "commit_ns_max");
    }
    Ok(())
}

fn every_delta_call_is_counted(_: &Options) -> Outcome {
    let arena = Device::open()?.create("deltas", 100)?;
    let map = arena.map_all()?;
    for page in [1, 3, 5] {
        map.touch(page, 1);
    }
    arena.commit()?;
    arena.delta_in_steps(0, 1)?;
    ensure_eq!(arena.stats()?.deltas, 3, "after a delta in three calls");
    arena.delta(1)?;
    ensure_eq!(arena.stats()?.deltas, 4, "after an empty one");
    let _ = arena.delta(2);
    ensure_eq!(arena.stats()?.deltas, 4, "after one that was refused");
    Ok(())
}

fn bytes_held_covers_the_pages_and_little_more(_: &Options) -> Outcome {
    let arena = Device::open()?.create("bytes", 100_000)?;
    let map = arena.map_all()?;
    let empty = arena.stats()?.bytes_held;
    ensure!(empty < 64 * 1024, "{empty} bytes held before any page");
    for page in 0..2048 {
        map.touch(page, 1);
    }
    arena.commit()?;
    let stats = arena.stats()?;
    let pages = stats.resident_pages * PAGE as u64;
    ensure_eq!(stats.resident_pages, 2048, "resident_pages");
    ensure!(
        (pages..pages + pages / 8).contains(&stats.bytes_held),
        "{} bytes held for {pages} bytes of pages",
        stats.bytes_held
    );
    ensure_eq!(stats.charged_pages, 2048, "charged_pages");
    Ok(())
}
