// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that the kernel refuses the module. Only the debug kernel does that on request.

use nix::errno::Errno;

use super::snapshot::filled;
use super::snapshot::number_page;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::diag;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::oracle::geometry::Geometry;
use crate::oracle::kernel::Kernel;
use crate::oracle::run::Config;
use crate::oracle::run::run;
use crate::oracle::run::source;
use crate::oracle::starved::Starved;
use crate::runner::Test;
use crate::snapshot::commit_with_snapshot;
use crate::starvation;
use crate::starvation::Hungry;
use crate::starvation::Nth;
use crate::starvation::Starvation;
use crate::starvation::with_nth_refused;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_call_whose_memory_is_refused_fails_and_changes_nothing,
    a_touch_whose_memory_is_refused_is_made_all_the_same,
    a_copy_into_the_arena_whose_memory_is_refused_fails_and_can_be_made_again,
    a_snapshot_whose_memory_is_refused_takes_nothing_from_any_cursor,
    a_write_to_a_frozen_page_whose_memory_is_refused_is_made_all_the_same,
    300 => random_operations_leave_all_right_while_memory_is_refused,
];

// More allocations than any one call makes.
const MANY: u32 = 500;

/// Carries out `call` with its first allocation failing, with its second, and so on, until
/// it no longer comes to that allocation. Returns how many it makes, and what the last
/// call gave.
fn with_each_refused<T>(
    name: &str,
    mut call: impl FnMut() -> Result<T, Errno>,
    mut unchanged: impl FnMut() -> Outcome,
) -> Result<(u32, T), Failure> {
    for nth in 1..=MANY {
        match with_nth_refused(nth, &mut call)? {
            (Ok(value), Nth::NotReached) => {
                diag!("{name}: {} allocations", nth - 1);
                return Ok((nth - 1, value));
            }
            // Some memory is only for speed, or is asked for in another way then.
            (Ok(value), Nth::Refused) => drop(value),
            (Err(errno), Nth::Refused) => {
                ensure!(
                    starvation::explains(errno),
                    "{name} with allocation {nth} refused gives {errno}"
                );
                unchanged().map_err(|failure| {
                    failure.within(format!("after {name} with allocation {nth} refused"))
                })?;
            }
            (Err(errno), Nth::NotReached) => {
                return Err(Failure::new(format!("{name} gives {errno} unhindered")));
            }
        }
    }
    Err(Failure::new(format!(
        "{name} makes more than {MANY} allocations"
    )))
}

// An arena of which every second page of a chunk has been written, and is mapped.
fn written_arena(device: &Device, pages: usize) -> Result<(Arena, Mapping), Failure> {
    let arena = device.create("starved", pages as u64)?;
    let map = arena.map_all()?;
    for page in (0..pages).step_by(2) {
        map.touch(page, page as u8);
    }
    Ok((arena, map))
}

fn a_call_whose_memory_is_refused_fails_and_changes_nothing(_: &Options) -> Outcome {
    let _starvation = Starvation::of_the_module(0)?;
    let device = Device::open()?;
    let none = || {
        ensure_eq!(device.list()?.len(), 0, "arenas");
        Ok(())
    };
    let (made, arena) = with_each_refused("CREATE", || device.create("refused", 4096), none)?;
    ensure!(made > 0, "CREATE makes no allocation: nothing was refused");
    drop(arena);

    let (arena, map) = written_arena(&device, 1024)?;
    let id = arena.id();
    let same = || Ok(());
    with_each_refused("OPEN", || device.open_arena(id, 0), same)?;
    with_each_refused("LIST", || device.list(), same)?;
    with_each_refused("INFO", || arena.info(), same)?;
    with_each_refused("STATS", || arena.stats(), same)?;
    with_each_refused("RESERVE", || arena.reserve(700), same)?;
    with_each_refused("mmap", || arena.map(0, 1024), same)?;
    with_each_refused("pread", || arena.pread(0, 4 * PAGE), same)?;

    let epoch = std::cell::Cell::new(arena.info()?.epoch);
    let not_closed = || {
        let info = arena.info()?;
        ensure_eq!(info.epoch, epoch.get(), "the epoch");
        ensure_eq!(info.changed_pages, 512, "changed pages");
        Ok(())
    };
    let closing = || {
        let commit = arena.commit()?;
        if commit.epoch != epoch.get() + 1 || commit.changed_pages != 512 {
            return Err(Errno::EPROTO);
        }
        // Again something to commit, for the next round.
        epoch.set(commit.epoch);
        for page in (0..1024).step_by(2) {
            map.touch(page, epoch.get() as u8);
        }
        Ok(())
    };
    with_each_refused("COMMIT", closing, not_closed)?;
    arena.commit()?;
    let since = epoch.get();
    let (_, delta) = with_each_refused("DELTA", || arena.delta(since), same)?;
    ensure_eq!(delta.pages().len(), 512, "pages of the delta");
    Ok(())
}

fn a_touch_whose_memory_is_refused_is_made_all_the_same(_: &Options) -> Outcome {
    let _starvation = Starvation::of_the_module(0)?;
    let device = Device::open()?;
    // A page of a chunk that is new, of a far end of the tree, and one with neighbours.
    for (pgoff, write) in [(0, true), (0, false), (1 << 30, true), (700, false)] {
        let mut reached = 0;
        for nth in 1..=MANY {
            let arena = device.create("touched", 1 << 32)?;
            let map = arena.map(pgoff, 2)?;
            let touch = || match write {
                true => map.touch(0, 7),
                false => {
                    map.get(0);
                }
            };
            let ((), outcome) = with_nth_refused(nth, touch)?;
            let commit = arena.commit()?;
            ensure_eq!(
                commit.changed_pages,
                u64::from(write),
                "pages changed by a touch of {pgoff} with allocation {nth} refused"
            );
            ensure_eq!(map.get(0), if write { 7 } else { 0 }, "content");
            ensure_eq!(arena.info()?.resident_pages, 1, "pages resident");
            if outcome == Nth::NotReached {
                reached = nth - 1;
                break;
            }
        }
        diag!("touch of page {pgoff}, write {write}: {reached} allocations");
        ensure!(
            reached > 0,
            "the touch of {pgoff} makes no allocation, or {MANY}"
        );
    }
    Ok(())
}

fn a_copy_into_the_arena_whose_memory_is_refused_fails_and_can_be_made_again(
    _: &Options,
) -> Outcome {
    let _starvation = Starvation::of_the_module(0)?;
    let device = Device::open()?;
    let zero = std::fs::File::open("/dev/zero")?;
    for nth in 1..=MANY {
        let arena = device.create("copied into", 1 << 32)?;
        let map = arena.map(1 << 20, 4)?;
        let copy = || {
            use std::os::fd::AsRawFd;
            let target = std::ptr::with_exposed_provenance_mut(map.at(0));
            // SAFETY: the target is the mapping, as long as it is.
            let read = unsafe { libc::read(zero.as_raw_fd(), target, map.len()) };
            Errno::result(read).map(|read| read as usize)
        };
        let (result, outcome) = with_nth_refused(nth, copy)?;
        match (result, outcome) {
            (Ok(read), Nth::NotReached) => {
                ensure_eq!(read, map.len(), "bytes read");
                ensure_eq!(arena.commit()?.changed_pages, 4, "changed pages");
                diag!("read of 4 pages into the arena: {} allocations", nth - 1);
                ensure!(nth > 1, "the read makes no allocation");
                return Ok(());
            }
            (Ok(_), Nth::Refused) => {}
            (Err(errno), Nth::Refused) if starvation::explains(errno) => {}
            (Err(errno), _) => {
                return Err(Failure::new(format!(
                    "a read with allocation {nth} refused gives {errno}"
                )));
            }
        }
        ensure_eq!(copy()?, map.len(), "bytes read the second time");
        ensure_eq!(
            arena.commit()?.changed_pages,
            4,
            "pages changed by two reads, one with allocation {nth} refused"
        );
    }
    Err(Failure::new(format!("more than {MANY} allocations")))
}

// The epoch may have been closed or not, which is nothing to a cursor.
fn a_snapshot_whose_memory_is_refused_takes_nothing_from_any_cursor(_: &Options) -> Outcome {
    let _starvation = Starvation::of_the_module(0)?;
    let (arena, map) = written_arena(&Device::open()?, 1024)?;
    let mut refused = 0;
    for nth in 1..=MANY {
        for page in (0..1024).step_by(2) {
            map.write(page * PAGE, &number_page(u64::from(nth)));
        }
        let since = arena.info()?.epoch;
        let (result, outcome) = with_nth_refused(nth, || commit_with_snapshot(&arena, since, 0))?;
        match (result, outcome) {
            (Ok((snapshot, _)), _) => {
                // Handed over with each allocation of that refused as well.
                let gather = || snapshot.gather(0, 64, 64, 0);
                let (_, part) = with_each_refused("GATHER", gather, || Ok(()))?;
                ensure_eq!(part.pages, 64, "pages of a part");
                ensure_eq!(snapshot.all()?.len(), 512, "pages of the snapshot");
                for (page, content) in snapshot.all()? {
                    ensure!(
                        content == number_page(u64::from(nth)),
                        "page {page} of the snapshot with allocation {nth} refused"
                    );
                }
            }
            (Err(errno), Nth::Refused) if starvation::explains(errno) => refused += 1,
            (Err(errno), _) => {
                return Err(Failure::new(format!(
                    "a commit with a snapshot, allocation {nth} refused, gives {errno}"
                )));
            }
        }
        arena.commit()?;
        ensure_eq!(
            arena.delta(since)?.pages().len(),
            512,
            "pages since the cursor, allocation {nth} refused"
        );
        ensure_eq!(arena.stats()?.snapshots, 0, "snapshots left");
        if outcome == Nth::NotReached {
            diag!("a commit with a snapshot: {} allocations", nth - 1);
            ensure!(refused > 0, "nothing was refused");
            return Ok(());
        }
    }
    Err(Failure::new(format!("more than {MANY} allocations")))
}

fn a_write_to_a_frozen_page_whose_memory_is_refused_is_made_all_the_same(_: &Options) -> Outcome {
    let _starvation = Starvation::of_the_module(0)?;
    for nth in 1..=MANY {
        let (arena, map) = filled(8)?;
        let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
        let ((), outcome) = with_nth_refused(nth, || map.touch(3, 9))?;
        ensure_eq!(map.get(3 * PAGE), 9, "what was written");
        let expected: Vec<_> = (0..8).map(|page| (page, number_page(page))).collect();
        ensure_eq!(
            snapshot.all()?,
            expected,
            "the snapshot, allocation {nth} refused"
        );
        ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
        if outcome == Nth::NotReached {
            diag!("a write to a frozen page: {} allocations", nth - 1);
            ensure!(nth > 1, "the write makes no allocation");
            return Ok(());
        }
    }
    Err(Failure::new(format!("more than {MANY} allocations")))
}

fn random_operations_leave_all_right_while_memory_is_refused(options: &Options) -> Outcome {
    const PERCENT: u32 = 10;
    let starvation = Starvation::of_the_module(PERCENT)?;
    diag!(
        "seed {} ops {}; {} (the kernel takes its chances anew each time)",
        options.seed,
        options.ops,
        starvation.describe()
    );
    let shapes = [
        (20, Geometry::whole("64 pages", 64)),
        (30, Geometry::whole("2048 pages", 2048)),
        (
            50,
            Geometry::sparse(
                "far apart",
                1 << 32,
                &[
                    (0, 20),
                    (512 * 512 - 4, 8),
                    (1 << 27, 10),
                    ((1 << 32) - 20, 20),
                ],
            ),
        ),
    ];
    let mut refusals = 0;
    for (percent, geometry) in shapes {
        let config = Config {
            seed: options.seed,
            ops: (options.ops * percent).div_ceil(100),
            geometry: geometry.clone(),
        };
        let kernel = Kernel::new(geometry, &source(config.seed), None)?;
        let mut starved = Starved::new(kernel, Hungry::new()?);
        let summary = run(&mut starved, &config).map_err(|finding| *finding)?;
        refusals += starved.refusals();
        diag!(
            "{}: {} operations, {} writes, {} commits, {} deltas, {} tried again",
            config.geometry.name,
            summary.ops,
            summary.writes,
            summary.commits,
            summary.deltas,
            starved.refusals()
        );
        starved.into_inner().finish()?;
    }
    ensure!(refusals > 0, "nothing was refused");
    Ok(())
}
