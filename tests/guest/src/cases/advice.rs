// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel is told about an arena's memory, or does to memory by itself,
//! loses nothing.

use super::writes::PAGES;
use super::writes::TARGETS;
use super::writes::store;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_write_to_a_populated_page_is_in_the_next_delta,
    advice_to_free_loses_nothing,
    memory_compaction_loses_nothing,
];

// Populating may note a page that nobody wrote; a write to it later must still be noted.
fn a_write_to_a_populated_page_is_in_the_next_delta(_: &Options) -> Outcome {
    for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
        let arena = Device::open()?.create("populated", PAGES)?;
        let map = arena.map_all()?;
        map.advise(0, PAGES as usize, advice)?;
        ensure_eq!(arena.info()?.resident_pages, PAGES, "resident pages");
        arena.commit()?;
        for epoch in 1..4_u64 {
            store(&map, epoch as u8);
            arena.commit()?;
            ensure_eq!(
                arena.delta(epoch)?.pages(),
                TARGETS.to_vec(),
                "delta, advice {advice}"
            );
        }
    }
    Ok(())
}

// Whether the kernel takes such advice for an arena or not: content and tracking stay.
fn advice_to_free_loses_nothing(_: &Options) -> Outcome {
    const MADV_COLD: i32 = 20;
    const MADV_PAGEOUT: i32 = 21;
    const MADV_COLLAPSE: i32 = 25;
    let arena = Device::open()?.create("advice", PAGES)?;
    let map = arena.map_all()?;
    for (epoch, advice) in [
        libc::MADV_FREE,
        libc::MADV_REMOVE,
        MADV_COLD,
        MADV_PAGEOUT,
        MADV_COLLAPSE,
        libc::MADV_HUGEPAGE,
        libc::MADV_MERGEABLE,
        libc::MADV_WIPEONFORK,
    ]
    .into_iter()
    .enumerate()
    {
        let value = epoch as u8 + 1;
        store(&map, value);
        let _ = map.advise(0, PAGES as usize, advice);
        arena.commit()?;
        ensure_eq!(
            arena.delta(epoch as u64)?.pages(),
            TARGETS.to_vec(),
            "delta, advice {advice}"
        );
        for page in TARGETS {
            ensure_eq!(
                map.get(page as usize * PAGE),
                value,
                "byte, advice {advice}"
            );
        }
    }
    Ok(())
}

fn memory_compaction_loses_nothing(_: &Options) -> Outcome {
    let compact = "/proc/sys/vm/compact_memory";
    if !std::path::Path::new(compact).exists() {
        return Err(Failure::skip("no memory compaction in this kernel"));
    }
    let arena = Device::open()?.create("compacted", 4096)?;
    let map = arena.map_all()?;
    for epoch in 0..3_u64 {
        let written: Vec<u64> = (0..4096).filter(|page| page % (epoch + 2) == 0).collect();
        for page in &written {
            map.touch(*page as usize, epoch as u8 + 1);
        }
        std::fs::write(compact, "1")?;
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        for page in &written {
            ensure_eq!(
                map.get(*page as usize * PAGE),
                epoch as u8 + 1,
                "byte of page {page}"
            );
        }
        arena.commit()?;
        std::fs::write(compact, "1")?;
        ensure_eq!(arena.delta(epoch)?.pages(), written, "delta");
    }
    Ok(())
}
