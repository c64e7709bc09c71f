// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The size of an arena is a reservation.

use crate::device::Device;
use crate::device::PAGE;
use crate::diag;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::meminfo::available_bytes;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_huge_arena_costs_next_to_nothing_until_it_is_touched,
    a_huge_arena_can_be_touched_at_both_ends,
    a_hundred_huge_arenas_cost_next_to_nothing,
    a_page_in_each_of_many_chunks_costs_little_more_than_the_pages,
];

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
// Twelve pages and some bookkeeping, with a wide margin; a flat byte per page of the smaller
// arena would be 256 MiB.
const NEXT_TO_NOTHING: u64 = MIB;
// MemAvailable moves by itself: the per-processor lists of free pages and the like.
const NOISE: u64 = 8 * MIB;

fn pages_of(bytes: u64) -> u64 {
    bytes / PAGE as u64
}

fn a_huge_arena_costs_next_to_nothing_until_it_is_touched(_: &Options) -> Outcome {
    let device = Device::open()?;
    for bytes in [TIB, 16 * TIB] {
        let before = available_bytes()?;
        let arena = device.create("huge", pages_of(bytes))?;
        let map = arena.map_all()?;
        arena.commit()?;
        arena.delta(0)?;
        let stats = arena.stats()?;
        ensure!(
            stats.bytes_held < NEXT_TO_NOTHING,
            "{} bytes held by an untouched arena of {bytes}",
            stats.bytes_held
        );
        let used = before.saturating_sub(available_bytes()?);
        ensure!(
            used < NOISE,
            "{used} bytes of memory used by an arena of {bytes}"
        );
        drop(map);
    }
    Ok(())
}

fn a_huge_arena_can_be_touched_at_both_ends(_: &Options) -> Outcome {
    let device = Device::open()?;
    for bytes in [TIB, 16 * TIB] {
        let pages = pages_of(bytes);
        let before = available_bytes()?;
        let arena = device.create("ends", pages)?;
        let map = arena.map_all()?;
        let touched = vec![0, 1, pages / 2, pages - 2, pages - 1];
        for page in &touched {
            map.touch(*page as usize, 5);
        }
        // A scan of all that could be there would not end within the test's time.
        for _ in 0..100 {
            arena.commit()?;
        }
        ensure_eq!(arena.delta(0)?.pages(), touched, "delta");
        ensure_eq!(arena.delta(1)?.ranges, vec![], "delta since 1");
        ensure_eq!(
            arena.delta_in_steps(0, 1)?.pages(),
            touched,
            "delta in steps"
        );
        ensure_eq!(arena.pread(bytes - 1, 9)?, vec![0], "last byte");
        ensure_eq!(
            arena.pread(bytes - PAGE as u64, 1)?,
            vec![5],
            "first byte of the last page"
        );
        let stats = arena.stats()?;
        ensure_eq!(stats.resident_pages, 5, "resident pages");
        ensure!(
            stats.bytes_held < NEXT_TO_NOTHING,
            "{} bytes held",
            stats.bytes_held
        );
        let used = before.saturating_sub(available_bytes()?);
        ensure!(used < NOISE, "{used} bytes of memory used");
        map.touch(pages as usize - 1, 6);
        arena.commit()?;
        ensure_eq!(
            arena.delta(100)?.ranges,
            vec![(pages - 1, 1)],
            "delta of the last page"
        );
    }
    Ok(())
}

fn a_hundred_huge_arenas_cost_next_to_nothing(_: &Options) -> Outcome {
    let device = Device::open()?;
    let before = available_bytes()?;
    let mut arenas = Vec::new();
    for _ in 0..100 {
        arenas.push(device.create("many", pages_of(16 * TIB))?);
    }
    let used = before.saturating_sub(available_bytes()?);
    diag!("100 arenas of 16 TiB use {} KiB", used / 1024);
    ensure!(used < 2 * NOISE, "{used} bytes of memory used");
    Ok(())
}

fn a_page_in_each_of_many_chunks_costs_little_more_than_the_pages(_: &Options) -> Outcome {
    let arena = Device::open()?.create("spread", pages_of(16 * TIB))?;
    // Chunks close to each other, and far apart.
    let mut touched: Vec<u64> = (0..500).map(|chunk| chunk * 512 + chunk).collect();
    touched.extend((1..100).map(|step| step * (1 << 25)));
    for page in &touched {
        let map = arena.map(*page, 1)?;
        map.touch(0, 1);
    }
    ensure_eq!(
        arena.commit()?.changed_pages,
        touched.len() as u64,
        "changed pages"
    );
    ensure_eq!(arena.delta(0)?.pages(), touched, "delta");
    let stats = arena.stats()?;
    let held = stats.bytes_held / touched.len() as u64;
    diag!("{held} bytes held for each page that is alone in its chunk");
    // A stamp and a few bits for 512 pages are less than this.
    ensure!(
        held < 5 * PAGE as u64,
        "{held} bytes held for each page that is alone in its chunk"
    );
    if arena.info()?.resident_pages != touched.len() as u64 {
        return Err(Failure::new("resident pages"));
    }
    Ok(())
}
