// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_DELTA.

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::arena::delta_request;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::oracle::backend::DeltaPart;
use crate::oracle::cursor::check_shape;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    an_arena_never_touched_has_an_empty_delta,
    since_zero_tells_every_page_ever_committed,
    a_page_is_told_to_every_cursor_before_its_last_epoch,
    two_cursors_do_not_disturb_each_other,
    a_delta_asked_for_twice_is_the_same_twice,
    what_was_written_after_the_commit_is_not_told_yet,
    a_cursor_after_the_last_commit_is_refused,
    a_cursor_before_the_arenas_past_is_answered,
    ranges_are_as_long_as_they_can_be,
    a_delta_in_steps_of_any_size_is_the_whole_delta,
    more_is_told_only_when_the_array_was_too_small,
    a_delta_starts_at_the_wanted_page,
    commits_in_between_only_add_to_later_calls,
    capacity_zero_is_refused,
    ranges_that_cannot_be_written_are_refused,
    a_capacity_beyond_all_memory_costs_nothing,
    ranges_may_be_written_into_the_arena_itself,
    a_refused_delta_takes_nothing_away,
];

fn touch(map: &Mapping, pages: &[u64]) {
    for page in pages {
        map.touch(*page as usize, 1);
    }
}

/// An arena of 4096 pages, of which these were written and committed.
fn committed(pages: &[u64]) -> Result<(Arena, Mapping), Failure> {
    let arena = Device::open()?.create("delta", 4096)?;
    let map = arena.map_all()?;
    touch(&map, pages);
    arena.commit()?;
    Ok((arena, map))
}

fn an_arena_never_touched_has_an_empty_delta(_: &Options) -> Outcome {
    let arena = Device::open()?.create("untouched", 1 << 32)?;
    let (ranges, delta) = arena.delta_from(0, 0, 8)?;
    ensure_eq!(ranges.len(), 0, "ranges before any commit");
    ensure_eq!(
        (delta.epoch, delta.count, delta.pages, delta.more),
        (0, 0, 0, 0),
        "answer"
    );
    arena.commit()?;
    let (_, delta) = arena.delta_from(0, 0, 8)?;
    ensure_eq!(
        (delta.epoch, delta.count, delta.pages, delta.more),
        (1, 0, 0, 0),
        "answer"
    );
    Ok(())
}

fn since_zero_tells_every_page_ever_committed(_: &Options) -> Outcome {
    let (arena, map) = committed(&[1, 2, 3])?;
    touch(&map, &[3, 4, 1000]);
    arena.commit()?;
    arena.commit()?;
    touch(&map, &[9]);
    ensure_eq!(arena.delta(0)?.pages(), vec![1, 2, 3, 4, 1000], "pages");
    drop(map);
    ensure_eq!(
        arena.delta(0)?.pages(),
        vec![1, 2, 3, 4, 1000],
        "pages after munmap"
    );
    Ok(())
}

fn a_page_is_told_to_every_cursor_before_its_last_epoch(_: &Options) -> Outcome {
    let (arena, map) = committed(&[10, 11, 12])?;
    touch(&map, &[11, 20]);
    arena.commit()?;
    touch(&map, &[12, 600]);
    arena.commit()?;
    arena.commit()?;
    for (since, expected) in [
        (0, vec![10, 11, 12, 20, 600]),
        (1, vec![11, 12, 20, 600]),
        (2, vec![12, 600]),
        (3, vec![]),
        (4, vec![]),
    ] {
        let delta = arena.delta(since)?;
        ensure_eq!(delta.pages(), expected, "pages since {since}");
        ensure_eq!(delta.epoch, 4, "epoch");
    }
    // The stamp of a page written again moves on.
    touch(&map, &[10]);
    arena.commit()?;
    ensure_eq!(arena.delta(4)?.pages(), vec![10], "pages since 4");
    ensure_eq!(
        arena.delta(1)?.pages(),
        vec![10, 11, 12, 20, 600],
        "pages since 1"
    );
    Ok(())
}

fn two_cursors_do_not_disturb_each_other(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (arena, map) = committed(&[])?;
    let other = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    let (mut often, mut seldom) = (1, 1);
    let mut missed: Vec<u64> = Vec::new();
    for round in 0..60_u64 {
        let pages = [round * 7 % 64, 500 + round % 30, 4000 - round * 40];
        touch(&map, &pages);
        arena.commit()?;
        let delta = arena.delta_in_steps(often, 1)?;
        let mut expected = pages.to_vec();
        expected.sort_unstable();
        ensure_eq!(delta.pages(), expected, "the cursor that follows closely");
        often = delta.epoch;
        missed.extend(pages);
        if round % 7 == 6 {
            missed.sort_unstable();
            missed.dedup();
            let delta = other.delta_in_steps(seldom, 2)?;
            ensure_eq!(delta.pages(), missed, "the cursor that falls behind");
            seldom = delta.epoch;
            missed.clear();
        }
    }
    Ok(())
}

fn a_delta_asked_for_twice_is_the_same_twice(_: &Options) -> Outcome {
    let (arena, map) = committed(&[5, 6, 700])?;
    touch(&map, &[6]);
    arena.commit()?;
    for since in [0, 1, 2] {
        let first = arena.delta(since)?;
        for capacity in [1, 2, 64] {
            ensure_eq!(
                arena.delta_in_steps(since, capacity)?,
                first,
                "delta since {since}"
            );
        }
    }
    Ok(())
}

fn what_was_written_after_the_commit_is_not_told_yet(_: &Options) -> Outcome {
    let (arena, map) = committed(&[1])?;
    touch(&map, &[2]);
    let delta = arena.delta(0)?;
    ensure_eq!((delta.epoch, delta.pages()), (1, vec![1]), "delta since 0");
    ensure_eq!(arena.delta(1)?.pages(), vec![], "delta since 1");
    ensure_eq!(arena.commit()?.changed_pages, 1, "pages of the next commit");
    ensure_eq!(arena.delta(1)?.pages(), vec![2], "delta since 1 after it");
    Ok(())
}

fn a_cursor_after_the_last_commit_is_refused(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[1])?;
    ensure_eq!(arena.delta(1)?.pages(), vec![], "since the last commit");
    for since in [2, 3, 1 << 32, u64::MAX >> 1, u64::MAX] {
        ensure_eq!(
            arena.delta(since).err(),
            Some(Errno::ERANGE),
            "since {since}"
        );
    }
    let fresh = Device::open()?.create("fresh", 1)?;
    ensure_eq!(
        fresh.delta(1).err(),
        Some(Errno::ERANGE),
        "since 1 before any commit"
    );
    Ok(())
}

fn a_cursor_before_the_arenas_past_is_answered(_: &Options) -> Outcome {
    let mut create = create_request("past", 16);
    create.epoch = 1000;
    let arena = Device::open()?.create_with(&mut create)?;
    let map = arena.map_all()?;
    for since in [0, 1, 999, 1000] {
        let delta = arena.delta(since)?;
        ensure_eq!(
            (delta.epoch, delta.pages()),
            (1000, vec![]),
            "before any commit"
        );
    }
    ensure_eq!(arena.delta(1001).err(), Some(Errno::ERANGE), "since 1001");
    touch(&map, &[3]);
    arena.commit()?;
    for since in [0, 1, 999, 1000] {
        ensure_eq!(arena.delta(since)?.pages(), vec![3], "since {since}");
    }
    Ok(())
}

fn ranges_are_as_long_as_they_can_be(_: &Options) -> Outcome {
    let everything: Vec<u64> = (0..4096).collect();
    let (arena, map) = committed(&everything)?;
    ensure_eq!(
        arena.delta(0)?.ranges,
        vec![(0, 4096)],
        "all pages, across all chunks"
    );
    // In a different order, and in two epochs: still one run for a cursor before both.
    for page in (500..530).rev() {
        map.touch(page, 2);
        if page == 512 {
            arena.commit()?;
        }
    }
    arena.commit()?;
    ensure_eq!(
        arena.delta(1)?.ranges,
        vec![(500, 30)],
        "one run stamped by two epochs"
    );
    ensure_eq!(
        arena.delta(2)?.ranges,
        vec![(500, 12)],
        "what the second stamped"
    );
    touch(&map, &[511, 513, 515, 516, 518, 1023, 1024, 4095]);
    arena.commit()?;
    let expected = vec![(511, 1), (513, 1), (515, 2), (518, 1), (1023, 2), (4095, 1)];
    ensure_eq!(arena.delta(3)?.ranges, expected, "runs");
    Ok(())
}

// Singles, pairs and runs, some across the boundaries of chunks.
fn scattered() -> Vec<u64> {
    (0..4096)
        .filter(|page| page % 5 == 0 || page % 7 == 3 || (1020..1030).contains(page))
        .collect()
}

fn a_delta_in_steps_of_any_size_is_the_whole_delta(_: &Options) -> Outcome {
    let pages = scattered();
    let (arena, _map) = committed(&pages)?;
    let whole = arena.delta_in_steps(0, 4096)?;
    ensure_eq!(whole.pages(), pages, "in one call");
    for capacity in [1, 2, 3, 10, 100, whole.ranges.len() - 1, whole.ranges.len()] {
        let mut start = 0;
        let mut taken = Vec::new();
        loop {
            let (ranges, delta) = arena.delta_from(0, start, capacity)?;
            let part = DeltaPart {
                epoch: delta.epoch,
                ranges: ranges
                    .iter()
                    .map(|range| (range.pgoff, range.pages))
                    .collect(),
                pages: delta.pages,
                next: (delta.more != 0).then_some(delta.start_pgoff),
            };
            check_shape(&part, start, capacity, arena.len_pages())
                .map_err(|text| Failure::new(text))?;
            taken.extend(
                part.ranges
                    .iter()
                    .flat_map(|(first, pages)| *first..first + pages),
            );
            match part.next {
                Some(next) => start = next,
                None => break,
            }
        }
        ensure_eq!(taken, pages, "in steps of {capacity}");
    }
    Ok(())
}

fn more_is_told_only_when_the_array_was_too_small(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[3, 4, 5, 100, 101, 2000])?;
    for (capacity, count, pages, more) in [(1, 1, 3, 1), (2, 2, 5, 1), (3, 3, 6, 0), (4, 3, 6, 0)] {
        let (_, delta) = arena.delta_from(0, 0, capacity)?;
        ensure_eq!(
            (delta.count, delta.pages, delta.more),
            (count, pages, more),
            "count, pages and more with room for {capacity}"
        );
    }
    Ok(())
}

fn a_delta_starts_at_the_wanted_page(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[3, 4, 5, 511, 512, 4095])?;
    let from = |start| -> Result<Vec<(u64, u64)>, Errno> {
        let (ranges, _) = arena.delta_from(0, start, 64)?;
        Ok(ranges
            .iter()
            .map(|range| (range.pgoff, range.pages))
            .collect())
    };
    ensure_eq!(
        from(4)?,
        vec![(4, 2), (511, 2), (4095, 1)],
        "from inside a run"
    );
    ensure_eq!(
        from(6)?,
        vec![(511, 2), (4095, 1)],
        "from a page that is not told"
    );
    ensure_eq!(
        from(512)?,
        vec![(512, 1), (4095, 1)],
        "from a chunk's first page"
    );
    ensure_eq!(from(4095)?, vec![(4095, 1)], "from the last page");
    for beyond in [4096, 4097, 1 << 40, u64::MAX] {
        // Not said in the header: nothing or a refusal, but no page.
        match from(beyond) {
            Ok(ranges) => ensure_eq!(ranges, vec![], "from beyond the arena"),
            Err(errno) => ensure_eq!(errno, Errno::EINVAL, "from beyond the arena"),
        }
    }
    Ok(())
}

fn commits_in_between_only_add_to_later_calls(_: &Options) -> Outcome {
    let first: Vec<u64> = (0..100).map(|page| page * 3).collect();
    let (arena, map) = committed(&first)?;
    let mut told = Vec::new();
    let mut start = 0;
    let mut epoch = None;
    let mut round = 0;
    loop {
        let (ranges, delta) = arena.delta_from(0, start, 4)?;
        epoch.get_or_insert(delta.epoch);
        ensure_eq!(delta.epoch, 1 + round, "epoch of the call");
        told.extend(
            ranges
                .iter()
                .flat_map(|range| range.pgoff..range.pgoff + range.pages),
        );
        if delta.more == 0 {
            break;
        }
        start = delta.start_pgoff;
        // Before, at and after where it goes on; some pages again, some new.
        touch(&map, &[0, 1, start, start + 7, 299]);
        arena.commit()?;
        round += 1;
    }
    ensure!(round > 5, "only {round} calls had more");
    ensure!(
        first.iter().all(|page| told.contains(page)),
        "a page of the first epoch was not told: {told:?}"
    );
    ensure!(
        told.is_sorted() && told.windows(2).all(|two| two[0] != two[1]),
        "told {told:?}"
    );
    // What the commits in between changed is in the next delta.
    let next = arena.delta(epoch.unwrap_or(0))?;
    ensure!(
        next.has(0) && next.has(1) && next.has(299),
        "next delta {next:?}"
    );
    Ok(())
}

fn capacity_zero_is_refused(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[1])?;
    for since in [0, 1] {
        ensure_eq!(
            arena.delta_from(since, 0, 0).err(),
            Some(Errno::EINVAL),
            "since {since}"
        );
    }
    Ok(())
}

fn ranges_that_cannot_be_written_are_refused(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[1, 3, 5])?;
    let pages = Mapping::anonymous(2 * PAGE)?;
    pages.protect(1, 1, libc::PROT_READ)?;
    // The last place has room for one range and a half.
    let split = pages.at(PAGE) - size_of::<abi::ckpt_range>() * 3 / 2;
    for address in [0, 8, pages.at(PAGE), 1 << 47, !0xfff, split] {
        let mut delta = delta_request(0, &mut []);
        delta.ranges = address as u64;
        delta.capacity = 3;
        let result = ioctl::call(&arena, abi::CKPT_IOC_DELTA, &mut delta);
        ensure_eq!(result, Err(Errno::EFAULT), "ranges at {address:#x}");
    }
    ensure_eq!(arena.delta(0)?.pages(), vec![1, 3, 5], "delta afterwards");
    Ok(())
}

fn a_capacity_beyond_all_memory_costs_nothing(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[1, 3, 5])?;
    let mut ranges = vec![abi::ckpt_range::ZERO; 3];
    let mut delta = delta_request(0, &mut ranges);
    delta.capacity = u32::MAX;
    ioctl::call(&arena, abi::CKPT_IOC_DELTA, &mut delta)?;
    ensure_eq!((delta.count, delta.pages, delta.more), (3, 3, 0), "answer");
    ensure_eq!(ranges[2].pgoff, 5, "last range");
    Ok(())
}

fn ranges_may_be_written_into_the_arena_itself(_: &Options) -> Outcome {
    let pages: Vec<u64> = (0..2048).map(|page| page * 2).collect();
    let (arena, map) = committed(&pages)?;
    // 32 KiB of ranges, beginning in a page that is not mapped yet.
    let at = 101 * PAGE + PAGE / 2;
    let mut delta = delta_request(0, &mut []);
    delta.ranges = map.at(at) as u64;
    delta.capacity = 2048;
    ioctl::call(&arena, abi::CKPT_IOC_DELTA, &mut delta)?;
    ensure_eq!(delta.count, 2048, "count");
    for (index, range) in map.read(at, 2048 * 16).chunks(16).enumerate() {
        let expected = [(index as u64 * 2).to_ne_bytes(), 1_u64.to_ne_bytes()].concat();
        ensure_eq!(range, expected, "range {index}");
    }
    arena.commit()?;
    let written: Vec<u64> = (101..=109).collect();
    ensure_eq!(
        arena.delta(1)?.pages(),
        written,
        "pages that the answer was written to"
    );
    Ok(())
}

fn a_refused_delta_takes_nothing_away(_: &Options) -> Outcome {
    let (arena, _map) = committed(&[1, 3, 5])?;
    let mut delta = delta_request(0, &mut []);
    delta.ranges = 8;
    delta.capacity = 1;
    let result = ioctl::call(&arena, abi::CKPT_IOC_DELTA, &mut delta);
    ensure_eq!(result, Err(Errno::EFAULT), "ranges that cannot be written");
    ensure_eq!(
        arena.delta_from(9, 0, 1).err(),
        Some(Errno::ERANGE),
        "since 9"
    );
    ensure_eq!(
        arena.delta(0)?.pages(),
        vec![1, 3, 5],
        "delta since 0 afterwards"
    );
    Ok(())
}
