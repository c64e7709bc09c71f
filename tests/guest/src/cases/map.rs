// SPDX-License-Identifier: Apache-2.0 OR MIT
//! mmap() of an arena: what is refused, and what a mapping is.

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::process::End;
use crate::process::end_of;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_private_mapping_is_refused,
    a_range_beyond_the_arena_is_refused,
    a_mapping_shows_the_part_that_its_offset_says,
    two_mappings_of_one_page_are_one_memory,
    a_page_written_through_one_mapping_is_noted_when_it_is_open_in_another,
    a_read_only_mapping_can_be_made_and_widened,
    a_store_to_a_read_only_mapping_is_sigsegv_and_no_change,
    a_mapping_cannot_grow,
    a_populated_or_locked_mapping_is_tracked,
    a_mapping_doubled_by_mremap_is_tracked_or_refused,
    a_mapping_can_be_cut_and_what_is_left_is_tracked,
    a_mapping_is_not_inherited_by_fork,
    the_inheritance_and_dumping_of_a_mapping_cannot_be_switched_on,
    an_unmapped_arena_keeps_its_content,
    a_mapping_outlives_its_descriptor,
    every_page_of_a_large_arena_can_be_mapped_one_by_one,
];

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn a_private_mapping_is_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("private", 4)?;
    for protection in [libc::PROT_NONE, libc::PROT_READ, READ_WRITE] {
        let map = Mapping::new(&arena, 0, 4, protection, libc::MAP_PRIVATE);
        ensure_eq!(map.err(), Some(Errno::EINVAL), "protection {protection}");
    }
    Ok(())
}

fn a_range_beyond_the_arena_is_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("short", 4)?;
    for (pgoff, pages) in [
        (0, 5),
        (3, 2),
        (4, 1),
        (5, 1),
        (1, 1 << 30),
        (1 << 32, 1),
        (1 << 50, 1),
    ] {
        ensure_eq!(
            arena.map(pgoff, pages).err(),
            Some(Errno::ENXIO),
            "{pages} pages from {pgoff}"
        );
    }
    for (pgoff, pages) in [(0, 4), (3, 1), (1, 2)] {
        arena.map(pgoff, pages)?;
    }
    Ok(())
}

fn a_mapping_shows_the_part_that_its_offset_says(_: &Options) -> Outcome {
    let arena = Device::open()?.create("parts", 2000)?;
    let whole = arena.map_all()?;
    for (pgoff, pages) in [(0, 1), (510, 5), (1024, 1), (1999, 1), (700, 1300)] {
        let part = arena.map(pgoff, pages)?;
        for page in [0, pages - 1] {
            let here = page as usize * PAGE + 9;
            let there = (pgoff + page) as usize * PAGE + 9;
            part.set(here, 200);
            ensure_eq!(whole.get(there), 200, "page {page} of a mapping at {pgoff}");
            whole.set(there, 201);
            ensure_eq!(part.get(here), 201, "page {page} of a mapping at {pgoff}");
        }
    }
    arena.commit()?;
    let expected = vec![0, 510, 514, 700, 1024, 1999];
    ensure_eq!(arena.delta(0)?.pages(), expected, "delta");
    Ok(())
}

fn two_mappings_of_one_page_are_one_memory(_: &Options) -> Outcome {
    let arena = Device::open()?.create("twice", 4)?;
    let maps: Vec<_> = (0..10).map(|_| arena.map_all()).collect::<Result<_, _>>()?;
    for (round, map) in maps.iter().enumerate() {
        map.touch(2, round as u8);
        for other in &maps {
            ensure_eq!(other.get(2 * PAGE), round as u8, "byte");
        }
    }
    ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
    ensure_eq!(arena.info()?.resident_pages, 1, "resident pages");
    Ok(())
}

fn a_page_written_through_one_mapping_is_noted_when_it_is_open_in_another(_: &Options) -> Outcome {
    let arena = Device::open()?.create("twice", 4)?;
    let (one, other) = (arena.map_all()?, arena.map_all()?);
    for round in 1..=6_u8 {
        one.touch(1, round);
        other.touch(1, round);
        ensure_eq!(arena.commit()?.changed_pages, 1, "written through both");
        other.touch(1, round + 100);
        ensure_eq!(
            arena.commit()?.changed_pages,
            1,
            "written through the second"
        );
        one.touch(1, round + 100);
        ensure_eq!(
            arena.commit()?.changed_pages,
            1,
            "written through the first"
        );
        ensure_eq!(arena.commit()?.changed_pages, 0, "not written");
    }
    Ok(())
}

fn a_read_only_mapping_can_be_made_and_widened(_: &Options) -> Outcome {
    let arena = Device::open()?.create("widened", 4)?;
    let map = Mapping::new(&arena, 0, 4, libc::PROT_READ, libc::MAP_SHARED)?;
    ensure_eq!(map.get(PAGE), 0, "byte");
    map.protect(0, 4, READ_WRITE)?;
    map.touch(1, 3);
    map.touch(2, 3);
    arena.commit()?;
    ensure_eq!(arena.delta(0)?.pages(), vec![1, 2], "delta");
    Ok(())
}

fn a_store_to_a_read_only_mapping_is_sigsegv_and_no_change(_: &Options) -> Outcome {
    let arena = Device::open()?.create("readonly", 4)?;
    arena.map_all()?.touch(1, 7);
    arena.commit()?;
    let end = end_of(|| {
        if let Ok(map) = Mapping::new(&arena, 0, 4, libc::PROT_READ, libc::MAP_SHARED) {
            map.touch(1, 9);
        }
    })?;
    ensure_eq!(end, End::Killed(Signal::SIGSEGV), "the process that stored");
    ensure_eq!(arena.pread(PAGE as u64, 1)?, vec![7], "content");
    ensure_eq!(arena.commit()?.changed_pages, 0, "changed pages");
    Ok(())
}

fn a_mapping_cannot_grow(_: &Options) -> Outcome {
    let arena = Device::open()?.create("growing", 64)?;
    let map = arena.map(0, 4)?;
    let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(map.address());
    // SAFETY: the old range is this mapping, which stays as it is when the call fails.
    let grown = unsafe { libc::mremap(address, 4 * PAGE, 8 * PAGE, libc::MREMAP_MAYMOVE) };
    ensure!(
        grown == libc::MAP_FAILED,
        "mremap to twice the size was done"
    );
    map.touch(3, 1);
    ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
    Ok(())
}

fn a_populated_or_locked_mapping_is_tracked(_: &Options) -> Outcome {
    for flag in [libc::MAP_POPULATE, libc::MAP_LOCKED] {
        let arena = Device::open()?.create("populated", 600)?;
        let map = Mapping::new(&arena, 0, 600, READ_WRITE, libc::MAP_SHARED | flag)?;
        for epoch in 0..3 {
            arena.commit()?;
            map.touch(5, 1);
            map.touch(599, 1);
            arena.commit()?;
            ensure_eq!(
                arena.delta(2 * epoch + 1)?.pages(),
                vec![5, 599],
                "delta, flag {flag:#x}"
            );
        }
    }
    Ok(())
}

// mremap() of a shared mapping with an old size of zero makes a second one of the same pages.
fn a_mapping_doubled_by_mremap_is_tracked_or_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("doubled", 16)?;
    let map = arena.map_all()?;
    map.touch(3, 1);
    arena.commit()?;
    let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(map.address());
    // SAFETY: nothing is unmapped when the old size is zero.
    let second = unsafe { libc::mremap(address, 0, 16 * PAGE, libc::MREMAP_MAYMOVE) };
    if second == libc::MAP_FAILED {
        return Ok(());
    }
    // SAFETY: the call made a mapping of sixteen pages, readable and writable as the first.
    unsafe {
        let bytes = second.cast::<u8>();
        bytes.add(3 * PAGE).write_volatile(2);
        bytes.add(4 * PAGE).write_volatile(2);
    }
    arena.commit()?;
    ensure_eq!(arena.delta(1)?.pages(), vec![3, 4], "delta");
    // SAFETY: unmaps what the call mapped.
    Errno::result(unsafe { libc::munmap(second, 16 * PAGE) })?;
    Ok(())
}

fn a_mapping_can_be_cut_and_what_is_left_is_tracked(_: &Options) -> Outcome {
    let arena = Device::open()?.create("cut", 64)?;
    let map = arena.map_all()?;
    for page in 0..64 {
        map.touch(page, 1);
    }
    // A hole in the middle: two mappings are left of one.
    let hole = std::ptr::with_exposed_provenance_mut::<libc::c_void>(map.at(20 * PAGE));
    // SAFETY: unmaps pages of this mapping that are not used any more.
    Errno::result(unsafe { libc::munmap(hole, 10 * PAGE) })?;
    ensure_eq!(
        arena.commit()?.changed_pages,
        64,
        "changed pages, those of the hole among them"
    );
    for page in [0, 19, 30, 63] {
        map.touch(page, 2);
    }
    arena.commit()?;
    ensure_eq!(arena.delta(1)?.pages(), vec![0, 19, 30, 63], "delta");
    ensure_eq!(
        arena.pread(25 * PAGE as u64, 1)?,
        vec![1],
        "content of the hole"
    );
    Ok(())
}

fn a_mapping_is_not_inherited_by_fork(_: &Options) -> Outcome {
    let arena = Device::open()?.create("forked", 4)?;
    let map = arena.map_all()?;
    map.touch(1, 5);
    let reads = end_of(|| {
        map.get(PAGE);
    })?;
    ensure_eq!(reads, End::Killed(Signal::SIGSEGV), "a child that reads");
    ensure_eq!(
        end_of(|| map.touch(1, 6))?,
        End::Killed(Signal::SIGSEGV),
        "a child that writes"
    );
    ensure_eq!(map.get(PAGE), 5, "content");
    map.touch(1, 6);
    ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
    Ok(())
}

/// The flags that the kernel shows for a mapping.
fn flags_of(map: &Mapping) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let start = format!("{:x}-", map.address());
    text.lines()
        .skip_while(|line| !line.starts_with(&start))
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .map(|flags| flags.split_whitespace().map(str::to_owned).collect())
        .ok_or_else(|| Failure::new("the mapping is not in smaps"))
}

fn the_inheritance_and_dumping_of_a_mapping_cannot_be_switched_on(_: &Options) -> Outcome {
    let arena = Device::open()?.create("flags", 4)?;
    let map = arena.map_all()?;
    for advice in [libc::MADV_DOFORK, libc::MADV_DODUMP] {
        ensure!(
            map.advise(0, 4, advice).is_err(),
            "madvise {advice} was done"
        );
    }
    let flags = flags_of(&map)?;
    // Not copied by fork, not dumped, not to be expanded, shared.
    for flag in ["dc", "dd", "de", "sh"] {
        ensure!(
            flags.iter().any(|set| set == flag),
            "flag {flag} is not in {flags:?}"
        );
    }
    ensure_eq!(
        end_of(|| map.touch(1, 6))?,
        End::Killed(Signal::SIGSEGV),
        "a child that writes"
    );
    Ok(())
}

fn an_unmapped_arena_keeps_its_content(_: &Options) -> Outcome {
    let arena = Device::open()?.create("kept", 1000)?;
    for round in 1..4_u8 {
        let map = arena.map(400, 200)?;
        for page in 0..200 {
            ensure_eq!(
                map.get(page * PAGE),
                round - 1,
                "page {page} in round {round}"
            );
            map.touch(page, round);
        }
        map.unmap()?;
        ensure_eq!(arena.commit()?.changed_pages, 200, "changed pages");
    }
    ensure_eq!(
        arena.pread(599 * PAGE as u64, 1)?,
        vec![3],
        "content of the last page"
    );
    Ok(())
}

fn a_mapping_outlives_its_descriptor(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("closed", 16)?;
    let watcher = device.open_arena(arena.id(), 0)?;
    let map = arena.map_all()?;
    drop(arena);
    map.touch(3, 4);
    ensure_eq!(watcher.commit()?.changed_pages, 1, "changed pages");
    drop(watcher);
    for page in 0..16 {
        map.touch(page, 9);
    }
    ensure_eq!(
        map.read(15 * PAGE, 1),
        vec![9],
        "content when all descriptors are closed"
    );
    Ok(())
}

fn every_page_of_a_large_arena_can_be_mapped_one_by_one(_: &Options) -> Outcome {
    let arena = Device::open()?.create("one by one", 600)?;
    // From behind, each with a mapping of its own: nothing may merge them wrongly.
    let maps: Vec<_> = (0..600_u64)
        .rev()
        .map(|pgoff| arena.map(pgoff, 1))
        .collect::<Result<_, _>>()?;
    for (index, map) in maps.iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        map.set(index % PAGE, 1);
    }
    arena.commit()?;
    let mut expected: Vec<u64> = (0..600)
        .filter(|index| index % 3 == 0)
        .map(|index| 599 - index)
        .collect();
    expected.sort_unstable();
    ensure_eq!(arena.delta(0)?.pages(), expected, "delta");
    Ok(())
}
