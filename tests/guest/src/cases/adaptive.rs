// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pages that stay writable because they keep being written, and what is told of them.

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::rng::Rng;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_chunk_with_many_new_writes_is_opened_and_takes_no_more_faults,
    pages_written_in_two_epochs_running_are_kept_and_counted,
    an_open_chunk_tells_only_of_pages_that_were_written,
    an_open_chunk_that_stays_clean_is_closed,
    a_page_written_in_every_epoch_stays_writable,
    a_set_that_moves_costs_faults_only_where_it_is_new,
    hot_pages_are_found_however_they_are_mapped,
    hot_pages_are_found_when_they_are_unmapped_before_the_commit,
    hot_pages_made_read_only_and_writable_again_are_found,
    figures_of_the_tracker_fit_together,
];

const CHUNK: usize = 512;
/// A page that stays clean for so many commits is armed again, at the latest.
const SURELY_COLD: usize = 64;

fn arena_of(pages: usize) -> Result<(Arena, Mapping), Failure> {
    let arena = Device::open()?.create("adaptive", pages as u64)?;
    let info = arena.info()?;
    if info.tracker & abi::CKPT_TRACKER_ADAPTIVE == 0 {
        return Err(Failure::skip(
            "pages of this kernel's arenas are armed only",
        ));
    }
    let map = arena.map_all()?;
    Ok((arena, map))
}

/// Writes some pages in that many epochs, and checks each delta.
fn heat(arena: &Arena, map: &Mapping, pages: &[usize], epochs: usize) -> Outcome {
    for turn in 0..epochs {
        for page in pages {
            map.touch(*page, turn as u8 + 1);
        }
        let commit = arena.commit()?;
        ensure_eq!(
            commit.changed_pages,
            pages.len() as u64,
            "changed_pages in epoch {}",
            commit.epoch
        );
        let told = arena.delta(commit.epoch - 1)?.pages();
        ensure!(
            told.iter()
                .copied()
                .eq(pages.iter().map(|page| *page as u64)),
            "delta of epoch {}: {told:?}",
            commit.epoch
        );
    }
    Ok(())
}

fn a_chunk_with_many_new_writes_is_opened_and_takes_no_more_faults(_: &Options) -> Outcome {
    let (arena, map) = arena_of(4 * CHUNK)?;
    let all: Vec<usize> = (CHUNK..2 * CHUNK).collect();
    heat(&arena, &map, &all, 1)?;
    for _ in 0..4 {
        arena.commit()?;
    }
    // Pages that were not written lately, many of them in one epoch.
    let armed = arena.stats()?;
    let even: Vec<usize> = (CHUNK..2 * CHUNK).step_by(2).collect();
    heat(&arena, &map, &even, 1)?;
    let hot = arena.stats()?;
    let faults = hot.write_faults - armed.write_faults;
    ensure!(
        faults < even.len() as u64 / 4,
        "{faults} faults for writes to {} pages of one chunk",
        even.len()
    );
    ensure!(
        hot.chunk_openings > armed.chunk_openings,
        "no chunk was opened"
    );
    ensure!(
        hot.open_pages > even.len() as u64 && hot.open_chunks == 1,
        "open_pages {} and open_chunks {}",
        hot.open_pages,
        hot.open_chunks
    );
    // The others of the chunk are open now, too.
    let odd: Vec<usize> = (CHUNK + 1..2 * CHUNK).step_by(2).collect();
    heat(&arena, &map, &odd, 1)?;
    let later = arena.stats()?;
    ensure_eq!(later.write_faults, hot.write_faults, "write_faults later");
    ensure!(
        later.harvested_ptes > hot.harvested_ptes,
        "harvested_ptes do not grow"
    );
    Ok(())
}

fn an_open_chunk_tells_only_of_pages_that_were_written(options: &Options) -> Outcome {
    let (arena, map) = arena_of(2 * CHUNK)?;
    let all: Vec<usize> = (0..CHUNK).collect();
    heat(&arena, &map, &all, 3)?;
    let mut rng = Rng::new(options.seed);
    for _ in 0..30 {
        let mut some: Vec<usize> = (0..rng.between(0, 40)).map(|_| rng.below(CHUNK)).collect();
        some.sort_unstable();
        some.dedup();
        heat(&arena, &map, &some, 1)?;
    }
    Ok(())
}

fn an_open_chunk_that_stays_clean_is_closed(_: &Options) -> Outcome {
    let (arena, map) = arena_of(4 * CHUNK)?;
    let pages: Vec<usize> = (0..CHUNK).collect();
    heat(&arena, &map, &pages, 4)?;
    ensure!(arena.stats()?.open_pages > 0, "nothing is open");
    for _ in 0..SURELY_COLD {
        ensure_eq!(arena.commit()?.changed_pages, 0, "pages of an idle commit");
        if arena.stats()?.open_pages == 0 {
            break;
        }
    }
    let cold = arena.stats()?;
    ensure_eq!(
        (cold.open_pages, cold.open_chunks),
        (0, 0),
        "open_pages and open_chunks after {SURELY_COLD} idle commits"
    );
    ensure!(
        cold.closed_pages >= CHUNK as u64,
        "closed_pages {}",
        cold.closed_pages
    );
    // An idle commit looks at nothing any more.
    let before = arena.stats()?;
    arena.commit()?;
    let after = arena.stats()?;
    ensure_eq!(
        (after.harvested_ptes, after.flushes),
        (before.harvested_ptes, before.flushes),
        "harvested_ptes and flushes of an idle commit"
    );
    // And a write to what was open before faults again.
    map.touch(7, 1);
    ensure_eq!(
        arena.stats()?.write_faults,
        after.write_faults + 1,
        "write_faults"
    );
    ensure_eq!(arena.commit()?.changed_pages, 1, "pages of the commit");
    Ok(())
}

fn pages_written_in_two_epochs_running_are_kept_and_counted(_: &Options) -> Outcome {
    let (arena, map) = arena_of(4 * CHUNK)?;
    let pages = [7, 600, 601, 2000];
    heat(&arena, &map, &pages, 4)?;
    let stats = arena.stats()?;
    ensure_eq!(
        (stats.kept_pages, stats.open_pages, stats.open_chunks),
        (4, 4, 3),
        "kept_pages, open_pages and open_chunks"
    );
    Ok(())
}

fn a_page_written_in_every_epoch_stays_writable(_: &Options) -> Outcome {
    let (arena, map) = arena_of(8 * CHUNK)?;
    let pages = [3, 700, 701, 3000];
    heat(&arena, &map, &pages, 8)?;
    let warm = arena.stats()?;
    ensure!(warm.open_pages >= 4, "open_pages {}", warm.open_pages);
    heat(&arena, &map, &pages, 8)?;
    ensure_eq!(
        arena.stats()?.write_faults,
        warm.write_faults,
        "write_faults of eight more epochs"
    );
    Ok(())
}

fn a_set_that_moves_costs_faults_only_where_it_is_new(_: &Options) -> Outcome {
    let (arena, map) = arena_of(16 * CHUNK)?;
    for turn in 0..12 {
        let pages: Vec<usize> = (turn * 600..turn * 600 + 300).collect();
        heat(&arena, &map, &pages, 5)?;
        let warm = arena.stats()?.write_faults;
        heat(&arena, &map, &pages, 3)?;
        ensure_eq!(
            arena.stats()?.write_faults,
            warm,
            "write_faults once the set has settled at {turn}"
        );
    }
    let stats = arena.stats()?;
    ensure!(
        stats.open_pages < 12 * 300,
        "{} pages are open, where 300 are written",
        stats.open_pages
    );
    Ok(())
}

fn hot_pages_are_found_however_they_are_mapped(_: &Options) -> Outcome {
    let (arena, map) = arena_of(2 * CHUNK)?;
    let pages: Vec<usize> = (100..CHUNK + 100).collect();
    heat(&arena, &map, &pages, 4)?;
    // Whoever maps them now has entries of their own, and the first keeps its own.
    let second = arena.map_all()?;
    let shifted = arena.map(100, CHUNK as u64)?;
    for turn in 0..6_usize {
        map.touch(100 + turn, 0x10);
        second.touch(200 + turn, 0x20);
        shifted.touch(200 + turn, 0x30);
        let commit = arena.commit()?;
        let expected: Vec<u64> = [100, 200, 300]
            .iter()
            .map(|page| page + turn as u64)
            .collect();
        ensure_eq!(
            arena.delta(commit.epoch - 1)?.pages(),
            expected,
            "pages of turn {turn}"
        );
    }
    Ok(())
}

fn hot_pages_are_found_when_they_are_unmapped_before_the_commit(_: &Options) -> Outcome {
    let (arena, map) = arena_of(CHUNK)?;
    let pages: Vec<usize> = (0..CHUNK).collect();
    heat(&arena, &map, &pages, 4)?;
    for turn in 0..4_usize {
        let other = arena.map_all()?;
        // Through entries that were open before, and through new ones.
        map.touch(10 + turn, 1);
        map.advise(10 + turn, 1, libc::MADV_DONTNEED)?;
        other.touch(20 + turn, 2);
        other.unmap()?;
        let commit = arena.commit()?;
        let told = arena.delta(commit.epoch - 1)?;
        ensure!(
            told.has(10 + turn as u64) && told.has(20 + turn as u64),
            "turn {turn}: {:?}",
            told.ranges
        );
    }
    map.touch(400, 3);
    map.unmap()?;
    let commit = arena.commit()?;
    ensure!(arena.delta(commit.epoch - 1)?.has(400), "the last write");
    Ok(())
}

// mprotect() makes an entry that is dirty writable again, without a fault.
fn hot_pages_made_read_only_and_writable_again_are_found(_: &Options) -> Outcome {
    let (arena, map) = arena_of(CHUNK)?;
    let pages: Vec<usize> = (0..CHUNK).collect();
    heat(&arena, &map, &pages, 4)?;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    for turn in 0..20_usize {
        let page = 11 * turn;
        map.touch(page, 1);
        map.protect(0, CHUNK, libc::PROT_READ)?;
        if turn % 3 == 0 {
            arena.commit()?;
        }
        map.protect(0, CHUNK, both)?;
        if turn % 3 == 1 {
            arena.commit()?;
        }
        let since = arena.info()?.epoch;
        map.touch(page, 2);
        arena.commit()?;
        ensure!(
            arena.delta(since)?.has(page as u64),
            "page {page} in turn {turn}"
        );
    }
    Ok(())
}

fn figures_of_the_tracker_fit_together(options: &Options) -> Outcome {
    let (arena, map) = arena_of(12 * CHUNK)?;
    let mut rng = Rng::new(options.seed);
    let mut first = 0;
    for turn in 0..80_u8 {
        if turn % 10 == 0 {
            first = rng.below(11 * CHUNK);
        }
        for page in first..first + rng.between(1, CHUNK) {
            map.touch(page, turn);
        }
        arena.commit()?;
        let stats = arena.stats()?;
        ensure!(
            stats.open_pages <= stats.resident_pages,
            "{} open of {} resident",
            stats.open_pages,
            stats.resident_pages
        );
        ensure!(
            stats.open_chunks <= stats.chunks && stats.chunks <= 12,
            "{} of {} chunks open",
            stats.open_chunks,
            stats.chunks
        );
        ensure!(
            stats.open_pages <= stats.open_chunks * CHUNK as u64,
            "{} pages in {} chunks",
            stats.open_pages,
            stats.open_chunks
        );
        ensure_eq!(
            stats.open_pages > 0,
            stats.open_chunks > 0,
            "open pages and open chunks"
        );
        ensure_eq!(
            stats.bytes_held >= stats.resident_pages * PAGE as u64,
            true,
            "bytes_held covers the pages"
        );
    }
    Ok(())
}
