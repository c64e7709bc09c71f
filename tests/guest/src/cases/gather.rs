// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_GATHER and CKPT_IOC_THAW.

use std::collections::BTreeSet;
use std::sync::Mutex;

use nix::errno::Errno;

use super::snapshot::filled;
use super::snapshot::number_page;
use crate::abi;
use crate::arena::Arena;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::rng::Rng;
use crate::runner::Test;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::snapshot::gather_request;
use crate::snapshot::need_snapshots;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    one_call_gathers_scattered_pages_into_one_buffer,
    ranges_alone_can_be_asked_for,
    calls_with_little_room_go_on_where_the_last_one_stopped,
    a_gather_starts_where_it_is_told_to,
    what_makes_no_sense_together_is_refused,
    pages_handed_over_with_thaw_are_not_in_the_snapshot_any_more,
    pages_handed_over_without_thaw_can_be_had_again,
    a_call_that_fails_thaws_nothing,
    pages_at_the_far_end_of_the_largest_arena_are_handed_over,
    thawed_ranges_are_taken_out_wherever_they_end,
    a_thaw_of_no_pages_is_refused,
    thawing_takes_nothing_from_another_snapshot,
    gathers_at_once_hand_every_page_over_once,
    a_buffer_in_the_arena_is_refused_or_filled_and_never_hangs,
];

/// An arena of 64 pages, a snapshot of some of them, and which those are.
fn some_of_64() -> Result<(Arena, Mapping, Snapshot, Vec<u64>), Failure> {
    need_snapshots()?;
    let (arena, map) = filled(64)?;
    let pages = vec![0, 1, 2, 9, 31, 32, 33, 50, 63];
    for page in &pages {
        map.write(*page as usize * PAGE, &number_page(*page));
    }
    let (snapshot, commit) = commit_with_snapshot(&arena, 1, 0)?;
    ensure_eq!(
        commit.snapshot_pages,
        pages.len() as u64,
        "pages of the snapshot"
    );
    Ok((arena, map, snapshot, pages))
}

const RANGES: &[(u64, u64)] = &[(0, 3), (9, 1), (31, 3), (50, 1), (63, 1)];

fn one_call_gathers_scattered_pages_into_one_buffer(_: &Options) -> Outcome {
    let (_arena, map, snapshot, pages) = some_of_64()?;
    for page in 0..64 {
        map.write(page * PAGE, &[0x77; PAGE]);
    }
    let gathered = snapshot.gather(0, 16, 16, 0)?;
    ensure_eq!(gathered.ranges, RANGES, "ranges");
    ensure_eq!(
        (gathered.pages, gathered.next),
        (pages.len() as u64, None),
        "pages and more"
    );
    let expected: Vec<u8> = pages.iter().flat_map(|page| number_page(*page)).collect();
    ensure!(gathered.content == expected, "content");
    Ok(())
}

fn ranges_alone_can_be_asked_for(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    let gathered = snapshot.gather(0, 16, 0, 0)?;
    ensure_eq!(gathered.ranges, RANGES, "ranges");
    ensure_eq!(gathered.pages, pages.len() as u64, "pages");
    ensure_eq!(snapshot.held()?, pages, "pages held afterwards");
    Ok(())
}

fn calls_with_little_room_go_on_where_the_last_one_stopped(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    for (capacity, buffer_pages) in [(1, 1), (1, 16), (16, 1), (2, 3), (3, 2), (5, 9), (1, 0)] {
        let mut got = Vec::new();
        let mut start = Some(0);
        while let Some(from) = start {
            let part = snapshot.gather(from, capacity, buffer_pages, 0)?;
            let what = format!("{capacity} ranges and {buffer_pages} pages from {from}");
            ensure!(part.ranges.len() <= capacity, "{what}: {part:?}");
            ensure!(
                buffer_pages == 0 || part.pages <= buffer_pages as u64,
                "{what}: {} pages",
                part.pages
            );
            ensure!(part.pages > 0, "{what}: nothing, though there was more");
            if buffer_pages > 0 {
                for (pgoff, content) in part.pages_with_content() {
                    ensure!(content == number_page(pgoff), "{what}: page {pgoff}");
                }
            }
            got.extend(part.page_offsets());
            start = part.next;
        }
        ensure_eq!(got, pages, "{capacity} ranges and {buffer_pages} pages");
    }
    Ok(())
}

fn a_gather_starts_where_it_is_told_to(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    for start in [0, 1, 2, 3, 9, 10, 32, 33, 34, 62, 63, 64, 1 << 40, u64::MAX] {
        let gathered = snapshot.gather(start, 16, 16, 0)?;
        let expected: Vec<u64> = pages
            .iter()
            .copied()
            .filter(|page| *page >= start)
            .collect();
        ensure_eq!(gathered.page_offsets(), expected, "from {start}");
        ensure_eq!(gathered.next, None, "more from {start}");
    }
    Ok(())
}

fn what_makes_no_sense_together_is_refused(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    let refused = |change: &dyn Fn(&mut abi::ckpt_gather), what: &str| -> Outcome {
        let mut ranges = [abi::ckpt_range::ZERO; 4];
        let mut buffer = vec![0; 4 * PAGE];
        let mut gather = gather_request(&mut ranges, &mut buffer);
        change(&mut gather);
        let result = snapshot.gather_with(&mut gather);
        ensure_eq!(result, Err(Errno::EINVAL), "{what}");
        ensure_eq!(snapshot.held()?, pages, "pages held after {what}");
        Ok(())
    };
    refused(&|gather| gather.capacity = 0, "no room for a range")?;
    refused(
        &|gather| gather.buffer_pages = 0,
        "a buffer without room for a page",
    )?;
    refused(
        &|gather| gather.buffer = 0,
        "room for pages without a buffer",
    )?;
    refused(
        &|gather| {
            gather.buffer = 0;
            gather.buffer_pages = 0;
            gather.flags = abi::CKPT_GATHER_THAW;
        },
        "thawing without taking",
    )?;
    for bit in 1..32 {
        refused(&|gather| gather.flags = 1 << bit, "an unknown flag")?;
    }
    Ok(())
}

fn pages_handed_over_with_thaw_are_not_in_the_snapshot_any_more(_: &Options) -> Outcome {
    let (arena, map, snapshot, pages) = some_of_64()?;
    let first = snapshot.gather(1, 2, 3, abi::CKPT_GATHER_THAW)?;
    ensure_eq!(
        first.page_offsets(),
        vec![1, 2, 9],
        "the first three from 1"
    );
    let left: Vec<u64> = pages
        .into_iter()
        .filter(|page| ![1, 2, 9].contains(page))
        .collect();
    ensure_eq!(snapshot.held()?, left, "pages left");
    // What is thawed is written without a copy.
    map.touch(1, 0x55);
    map.touch(9, 0x55);
    ensure_eq!(arena.stats()?.copied_pages, 0, "pages copied aside");
    map.touch(31, 0x55);
    ensure_eq!(arena.stats()?.copied_pages, 1, "copies with a frozen one");
    let rest = snapshot.gather(0, 16, 16, abi::CKPT_GATHER_THAW)?;
    ensure_eq!(rest.page_offsets(), left, "the rest");
    for (pgoff, content) in rest.pages_with_content() {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    ensure_eq!(snapshot.held()?, vec![0; 0], "pages left in the end");
    ensure_eq!(snapshot.info()?.held_pages, 0, "held_pages in the end");
    Ok(())
}

fn pages_handed_over_without_thaw_can_be_had_again(_: &Options) -> Outcome {
    let (_arena, map, snapshot, pages) = some_of_64()?;
    for round in 0..4_u8 {
        let all = snapshot.all()?;
        ensure_eq!(all.len(), pages.len(), "pages in round {round}");
        for (pgoff, content) in all {
            ensure!(
                content == number_page(pgoff),
                "page {pgoff} in round {round}"
            );
        }
        pages
            .iter()
            .for_each(|page| map.touch(*page as usize, round));
    }
    Ok(())
}

fn a_call_that_fails_thaws_nothing(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    let memory = Mapping::anonymous(8 * PAGE)?;
    memory.protect(2, 1, libc::PROT_NONE)?;
    memory.protect(5, 1, libc::PROT_READ)?;
    let call = |ranges: usize, buffer: usize| {
        let mut gather = gather_request(&mut [abi::ckpt_range::ZERO; 16], &mut []);
        gather.flags = abi::CKPT_GATHER_THAW;
        gather.ranges = ranges as u64;
        gather.buffer = buffer as u64;
        gather.buffer_pages = 16;
        snapshot.gather_with(&mut gather)
    };
    let room = Mapping::anonymous(16 * PAGE)?;
    for (ranges, buffer, what) in [
        (room.address(), 8, "a buffer at the bottom"),
        (room.address(), memory.at(2 * PAGE), "no buffer there"),
        (room.address(), memory.address(), "half a buffer"),
        (
            room.address(),
            memory.at(4 * PAGE),
            "a buffer that becomes read-only",
        ),
        (
            room.address(),
            usize::MAX - PAGE + 1,
            "a buffer of the kernel's",
        ),
        (8, room.address(), "an array at the bottom"),
        (memory.at(2 * PAGE), room.address(), "no array there"),
        (
            memory.at(2 * PAGE - 16),
            room.address(),
            "room for one range of the array",
        ),
        (memory.at(5 * PAGE), room.address(), "a read-only array"),
    ] {
        ensure_eq!(call(ranges, buffer), Err(Errno::EFAULT), "{what}");
        ensure_eq!(snapshot.held()?, pages, "pages held after {what}");
    }
    // The structure itself cannot be written back to.
    let read_only = Mapping::anonymous(PAGE)?;
    let mut gather = gather_request(&mut [abi::ckpt_range::ZERO; 16], &mut []);
    gather.flags = abi::CKPT_GATHER_THAW;
    gather.ranges = room.address() as u64;
    gather.buffer = room.at(PAGE) as u64;
    gather.buffer_pages = 15;
    let bytes = crate::ioctl::Bytes::extended(&gather, size_of::<abi::ckpt_gather>());
    read_only.write(0, bytes.as_slice());
    read_only.protect(0, 1, libc::PROT_READ)?;
    let result = crate::ioctl::call_at(&snapshot, abi::CKPT_IOC_GATHER, read_only.address());
    ensure_eq!(result, Err(Errno::EFAULT), "a read-only structure");
    ensure_eq!(snapshot.held()?, pages, "pages held after that");
    for (pgoff, content) in snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn pages_at_the_far_end_of_the_largest_arena_are_handed_over(_: &Options) -> Outcome {
    need_snapshots()?;
    let pages = abi::CKPT_ARENA_MAX_BYTES / PAGE as u64;
    let arena = crate::device::Device::open()?.create("far", pages)?;
    let wanted = [0, 511, 512, 1 << 20, pages / 2 - 1, pages / 2, pages - 1];
    for page in wanted {
        arena.map(page, 1)?.write(0, &number_page(page));
    }
    let (snapshot, commit) = commit_with_snapshot(&arena, 0, 0)?;
    ensure_eq!(commit.snapshot_pages, 7, "snapshot_pages");
    for page in wanted {
        arena.map(page, 1)?.write(0, &[0xff; PAGE]);
    }
    let all = snapshot.all()?;
    ensure_eq!(
        all.iter().map(|(page, _)| *page).collect::<Vec<_>>(),
        wanted,
        "pages"
    );
    for (pgoff, content) in all {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    snapshot.thaw(pages / 2, u64::MAX)?;
    ensure_eq!(snapshot.held()?, wanted[..5], "below the middle");
    Ok(())
}

fn thawed_ranges_are_taken_out_wherever_they_end(_: &Options) -> Outcome {
    let (_arena, map, snapshot, pages) = some_of_64()?;
    let mut left = pages;
    for (pgoff, pages) in [
        (3, 6),
        (9, 1),
        (2, 1),
        (32, 1),
        (40, 20),
        (63, 1),
        (63, u64::MAX),
        (1 << 50, 5),
        (u64::MAX, u64::MAX),
        (64, 1),
    ] {
        snapshot.thaw(pgoff, pages)?;
        left.retain(|page| *page < pgoff || page - pgoff >= pages);
        ensure_eq!(snapshot.held()?, left, "after thawing {pages} from {pgoff}");
        ensure_eq!(
            snapshot.info()?.held_pages,
            left.len() as u64,
            "held_pages after thawing {pages} from {pgoff}"
        );
    }
    (0..64).for_each(|page| map.touch(page, 0x99));
    for (pgoff, content) in snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    snapshot.thaw(0, 1 << 40)?;
    ensure_eq!(snapshot.held()?.len(), 0, "pages after thawing all");
    Ok(())
}

fn a_thaw_of_no_pages_is_refused(_: &Options) -> Outcome {
    let (_arena, _map, snapshot, pages) = some_of_64()?;
    for pgoff in [0, 5, 64, u64::MAX] {
        ensure_eq!(
            snapshot.thaw(pgoff, 0),
            Err(Errno::EINVAL),
            "no pages from {pgoff}"
        );
    }
    ensure_eq!(snapshot.held()?, pages, "pages held");
    Ok(())
}

fn thawing_takes_nothing_from_another_snapshot(_: &Options) -> Outcome {
    let (arena, map, first, pages) = some_of_64()?;
    let (second, _) = commit_with_snapshot(&arena, 1, 0)?;
    let (third, _) = commit_with_snapshot(&arena, 0, 0)?;
    first.gather(0, 16, 4, abi::CKPT_GATHER_THAW)?;
    third.thaw(0, 40)?;
    (0..64).for_each(|page| map.touch(page, 0x21));
    drop(first);
    (0..64).for_each(|page| map.touch(page, 0x22));
    ensure_eq!(second.held()?, pages, "pages of the second");
    for snapshot in [&second, &third] {
        for (pgoff, content) in snapshot.all()? {
            ensure!(content == number_page(pgoff), "page {pgoff}");
        }
    }
    ensure_eq!(third.held()?, (40..64).collect::<Vec<_>>(), "of the third");
    Ok(())
}

fn gathers_at_once_hand_every_page_over_once(options: &Options) -> Outcome {
    need_snapshots()?;
    const PAGES: u64 = 1500;
    let (arena, map) = filled(PAGES)?;
    for round in 0..6_u8 {
        let since = if round == 0 { 0 } else { arena.info()?.epoch };
        (0..PAGES as usize).for_each(|page| map.write(page * PAGE, &number_page(page as u64)));
        let (snapshot, _) = commit_with_snapshot(&arena, since, 0)?;
        let seen = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3_u64)
                .map(|taker| {
                    let (snapshot, seen) = (&snapshot, &seen);
                    scope.spawn(move || {
                        let mut rng = Rng::new(options.seed ^ taker);
                        loop {
                            let room = rng.between(1, 40);
                            let part = snapshot.gather(0, room, room, abi::CKPT_GATHER_THAW)?;
                            if part.pages == 0 {
                                return Ok(());
                            }
                            let mut seen =
                                seen.lock().map_err(|_| Failure::new("a taker panicked"))?;
                            for (pgoff, content) in part.pages_with_content() {
                                ensure!(seen.insert(pgoff), "page {pgoff} came twice");
                                ensure!(content == number_page(pgoff), "page {pgoff}");
                            }
                        }
                    })
                })
                .collect();
            // The program goes on meanwhile.
            (0..PAGES as usize).for_each(|page| map.touch(page, round));
            takers
                .into_iter()
                .try_for_each(|taker| taker.join().map_err(|_| Failure::new("a taker panicked"))?)
        })?;
        let seen = seen.into_inner().map_err(|_| Failure::new("panicked"))?;
        ensure_eq!(seen.len(), PAGES as usize, "pages in round {round}");
    }
    Ok(())
}

// "The buffer must not lie in the arena": the kernel may fill it or refuse. When its pages are
// frozen and no copy may be made, it would wait for itself.
fn a_buffer_in_the_arena_is_refused_or_filled_and_never_hangs(_: &Options) -> Outcome {
    need_snapshots()?;
    for reserve in [0, 1, 3] {
        for thaw in [0, abi::CKPT_GATHER_THAW] {
            let (arena, map) = filled(32)?;
            let (snapshot, _) = commit_with_snapshot(&arena, 0, reserve)?;
            if reserve > 0 {
                // All copies there may be are made.
                (0..reserve as usize).for_each(|page| map.touch(20 + page, 1));
            }
            let call = |ranges: usize, buffer: usize| {
                let mut gather = gather_request(&mut [abi::ckpt_range::ZERO; 8], &mut []);
                gather.flags = thaw;
                gather.ranges = ranges as u64;
                gather.buffer = buffer as u64;
                gather.buffer_pages = 8;
                snapshot.gather_with(&mut gather)
            };
            let own = Mapping::anonymous(8 * PAGE)?;
            let held = snapshot.held()?;
            for (ranges, buffer) in [
                (own.address(), map.at(8 * PAGE)),
                (map.at(24 * PAGE), own.address()),
            ] {
                let result = call(ranges, buffer);
                if reserve > 0 {
                    ensure_eq!(result, Err(Errno::EFAULT), "with {reserve} copies made");
                    ensure_eq!(snapshot.held()?, held, "pages held afterwards");
                } else {
                    ensure!(
                        matches!(result, Ok(()) | Err(Errno::EFAULT)),
                        "with copies left: {result:?}"
                    );
                }
            }
            drop(snapshot);
            map.touch(9, 1);
            ensure!(arena.commit()?.changed_pages > 0, "a commit afterwards");
        }
    }
    Ok(())
}
