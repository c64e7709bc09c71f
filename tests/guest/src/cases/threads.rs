// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writers that never stop while another thread commits.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::arena::Arena;
use crate::cpus;
use crate::device::Device;
use crate::device::PAGE;
use crate::diag;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::oracle::threads::LANES;
use crate::oracle::threads::Seen;
use crate::oracle::threads::Tracked;
use crate::oracle::threads::Watcher;
use crate::process::Peer;
use crate::rng::Rng;
use crate::runner::Test;
use crate::scratch::DirectFile;
use crate::tests;
use crate::watched::Watched;
use crate::writer::LANE_BYTES;
use crate::writer::Style;
use crate::writer::write_until;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    90 => a_writer_that_never_leaves_its_processor_loses_nothing,
    90 => a_write_by_the_kernel_that_a_commit_overtakes_is_not_lost,
    90 => a_page_that_is_unmapped_while_a_commit_looks_at_it_is_not_lost,
    90 => writers_of_every_kind_lose_nothing,
    90 => writers_in_other_processes_lose_nothing,
    90 => reads_from_disk_lose_nothing,
    two_commits_at_once_get_two_epochs,
    a_delta_taken_while_others_commit_is_in_order,
    mapping_and_unmapping_while_others_commit_is_safe,
];

const ENOUGH_TOLD: usize = 200;

/// Watches that many commits, and until something was told however the machine schedules;
/// then stops the writers. When all of these have ended before, for want of memory, say, nothing
/// more will be told.
fn watch(
    watched: &Watched,
    commits: usize,
    ended: impl Fn() -> bool,
    stop: impl FnOnce(),
) -> Result<WatchEnd<'_>, Failure> {
    let mut watcher = Watcher::new(watched);
    let mut outcome = Ok(());
    while outcome.is_ok()
        && (watcher.seen().commits < commits || watcher.seen().told < ENOUGH_TOLD && !ended())
    {
        outcome = watcher.step();
    }
    stop();
    outcome.map_err(|text| Failure::new(text))?;
    Ok(WatchEnd {
        watcher,
        pages: watched.pages(),
    })
}

struct WatchEnd<'a> {
    watcher: Watcher<'a, Watched>,
    pages: usize,
}

impl WatchEnd<'_> {
    /// When all writers have ended.
    fn finish(self) -> Result<Seen, Failure> {
        let seen = self.watcher.finish().map_err(|text| Failure::new(text))?;
        diag!(
            "{} commits, {} pages told, {} compared",
            seen.commits,
            seen.told,
            seen.compared
        );
        // Very few pages may all be written between any two commits.
        let all = seen.told == seen.commits * self.pages;
        ensure!(
            seen.told > 0 && (seen.compared > 0 || all),
            "nothing was tried: {seen:?}"
        );
        Ok(seen)
    }
}

/// Lets writers run in threads while this one commits; each has a lane.
fn torture(watched: &Watched, styles: &[Style<'_>], commits: usize, seed: u64) -> Outcome {
    let stop = AtomicBool::new(false);
    let processors = cpus::available()?;
    cpus::pin_to(processors[0])?;
    let last: Result<Vec<Vec<u64>>, Failure> = std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (lane, style) in styles.iter().copied().enumerate() {
            let (stop, arena) = (&stop, &watched.arena);
            // The first processor is the watcher's, as long as there is another.
            let others = processors
                .get(1..)
                .filter(|rest| !rest.is_empty())
                .unwrap_or(&processors);
            let cpu = others[lane % others.len()];
            writers.push(scope.spawn(move || {
                cpus::pin_to(cpu)?;
                let seed = seed + lane as u64;
                write_until(arena, style, lane, seed, 0, || stop.load(Ordering::Relaxed))
            }));
        }
        let ended = || writers.iter().all(|writer| writer.is_finished());
        let end = watch(watched, commits, ended, || {
            stop.store(true, Ordering::Relaxed);
        });
        let last = writers
            .into_iter()
            .map(|writer| {
                writer
                    .join()
                    .map_err(|_| Failure::new("a writer panicked"))?
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        end?.finish()?;
        Ok(last)
    });
    for (lane, last) in last?.iter().enumerate() {
        for (page, number) in last.iter().enumerate() {
            ensure_eq!(
                watched.lanes(page)[lane],
                *number,
                "lane {lane} of page {page}"
            );
        }
    }
    Ok(())
}

// No system call, no switch, no interrupt of the writer's own: nothing but the commit flushes what
// its processor remembers about the page tables.
fn a_writer_that_never_leaves_its_processor_loses_nothing(options: &Options) -> Outcome {
    for (pages, commits) in [(1, 20_000), (8, 20_000), (600, 1000)] {
        let watched = Watched::new(pages, true)?;
        let map = watched.arena.map_all()?;
        torture(&watched, &[Style::Shared(&map)], commits, options.seed)?;
    }
    Ok(())
}

// The kernel finds the page, and stores later: when a commit came in between, it is the note after
// the store that counts.
fn a_write_by_the_kernel_that_a_commit_overtakes_is_not_lost(options: &Options) -> Outcome {
    let watched = Watched::new(2, false)?;
    watched.done[0].store(0, Ordering::Relaxed);
    torture(
        &watched,
        &[Style::ProcMem(&watched.done[0])],
        5000,
        options.seed,
    )?;
    let watched = Watched::new(2, false)?;
    torture(&watched, &[Style::VmWrite], 5000, options.seed)
}

// The entry that a commit is about to look at goes, and with it what the processor wrote into it.
fn a_page_that_is_unmapped_while_a_commit_looks_at_it_is_not_lost(options: &Options) -> Outcome {
    diag!("seed {}", options.seed);
    let processors = cpus::available()?;
    for elsewhere in [false, true] {
        let arena = Device::open()?.create("dropped", 1)?;
        let map = arena.map_all()?;
        // Mapped in another process as well, it is tracked in another way.
        let other = match elsewhere {
            true => Some(Peer::start(|link| {
                let _map = arena.map_all()?;
                link.send_number(0)?;
                link.receive().map(drop)
            })?),
            false => None,
        };
        if let Some(other) = &other {
            other.link.receive_number()?;
        }
        let (stored, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let outcome = std::thread::scope(|scope| {
            cpus::pin_to(processors[0])?;
            let writer = scope.spawn(|| {
                cpus::pin_to(processors[1 % processors.len()])?;
                let mut rng = Rng::new(options.seed);
                for number in 1.. {
                    map.store_word(0, number);
                    stored.store(number, Ordering::Release);
                    for _ in 0..rng.below(1500) {
                        std::hint::spin_loop();
                    }
                    if rng.chance(1, 3) {
                        map.advise(0, 1, libc::MADV_DONTNEED)?;
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok::<_, Failure>(())
            });
            let outcome = commit_after_stores(&arena, &stored, 10_000, processors.len() == 1);
            stop.store(true, Ordering::Relaxed);
            writer
                .join()
                .map_err(|_| Failure::new("the writer panicked"))??;
            outcome
        });
        if let Some(other) = other {
            other.kill()?;
        }
        outcome?;
    }
    Ok(())
}

/// Commits whenever page 0 was stored to. Each of these commits has to tell of it. When
/// `alone`, the one processor is the writer's, too.
fn commit_after_stores(arena: &Arena, stored: &AtomicU64, commits: usize, alone: bool) -> Outcome {
    for _ in 0..commits {
        let last = stored.load(Ordering::Acquire);
        while stored.load(Ordering::Acquire) == last {
            match alone {
                true => std::thread::yield_now(),
                false => std::hint::spin_loop(),
            }
        }
        let commit = arena.commit()?;
        ensure!(
            arena.delta(commit.epoch - 1)?.has(0),
            "UNFORGIVABLE: the page was stored to before commit {} and is clean since {}",
            commit.epoch,
            commit.epoch - 1
        );
    }
    Ok(())
}

fn writers_of_every_kind_lose_nothing(options: &Options) -> Outcome {
    diag!("seed {}", options.seed);
    for (pages, commits) in [(2, 500), (40, 400), (700, 200)] {
        let watched = Watched::new(pages, true)?;
        let map = watched.arena.map_all()?;
        watched.done[1].store(0, Ordering::Relaxed);
        let styles = [
            Style::Shared(&map),
            Style::ProcMem(&watched.done[1]),
            Style::Remaps,
            Style::Protects,
            Style::DropsEntries,
            Style::Moves,
            Style::VmWrite,
            Style::ReadsPipe,
        ];
        torture(&watched, &styles, commits, options.seed)?;
    }
    Ok(())
}

fn writers_in_other_processes_lose_nothing(options: &Options) -> Outcome {
    let watched = Watched::new(64, true)?;
    // A page that all processes share says when to stop.
    let control = Device::open()?.create("control", 1)?;
    let flag = control.map_all()?;
    let mut peers = Vec::new();
    for lane in 0..4 {
        let seed = options.seed + lane as u64;
        let style = if lane % 2 == 0 {
            Style::Own
        } else {
            Style::Remaps
        };
        peers.push(Peer::start(|link| {
            let flag = control.map_all()?;
            let last = write_until(&watched.arena, style, lane, seed, 0, || flag.get(0) != 0)?;
            for number in last {
                link.send_number(number)?;
            }
            Ok(())
        })?);
    }
    let ended = || peers.iter().all(Peer::has_ended);
    let end = watch(&watched, 600, ended, || flag.set(0, 1));
    for (lane, peer) in peers.into_iter().enumerate() {
        for page in 0..watched.pages() {
            let number = peer.link.receive_number()?;
            ensure_eq!(
                watched.lanes(page)[lane],
                number,
                "lane {lane} of page {page}"
            );
        }
        peer.finish()?;
    }
    end?.finish()?;
    Ok(())
}

fn reads_from_disk_lose_nothing(options: &Options) -> Outcome {
    const BLOCKS: u64 = 16 * 1024;
    let content: Vec<u8> = (0..BLOCKS)
        .flat_map(|block| block.to_ne_bytes().repeat(LANE_BYTES / 8))
        .collect();
    let file = DirectFile::create(&options.scratch, "torture", &content)?;
    let watched = Watched::new(16, false)?;
    let map = watched.arena.map_all()?;
    let styles = [
        Style::ReadsDisk(&file, BLOCKS),
        Style::ReadsDisk(&file, BLOCKS),
        Style::Own,
        Style::Shared(&map),
    ];
    torture(&watched, &styles, 800, options.seed)
}

fn two_commits_at_once_get_two_epochs(_: &Options) -> Outcome {
    const THREADS: usize = 4;
    const EACH: usize = 2000;
    let arena = Device::open()?.create("at once", 64)?;
    let map = arena.map_all()?;
    let stamped = AtomicU64::new(0);
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let committers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (arena, map, stamped) = (&arena, &map, &stamped);
                scope.spawn(move || {
                    let mut epochs = Vec::new();
                    for turn in 0..EACH {
                        // A page of each thread's own, so that every store is one page to stamp.
                        map.set(number * PAGE + 9, turn as u8);
                        let commit = arena.commit()?;
                        ensure!(
                            epochs.last().is_none_or(|last| *last < commit.epoch),
                            "epoch {} after {epochs:?}",
                            commit.epoch
                        );
                        stamped.fetch_add(commit.changed_pages, Ordering::Relaxed);
                        epochs.push(commit.epoch);
                    }
                    Ok(epochs)
                })
            })
            .collect();
        let mut all = Vec::new();
        for committer in committers {
            all.extend(
                committer
                    .join()
                    .map_err(|_| Failure::new("a committer panicked"))??,
            );
        }
        Ok::<_, Failure>(all)
    })?;
    epochs.sort_unstable();
    let expected: Vec<u64> = (1..=(THREADS * EACH) as u64).collect();
    ensure!(epochs == expected, "epochs are not 1 to {}", THREADS * EACH);
    // Each store happened before its own thread's commit was called. One that another commit
    // overtook on its way may have been told by both.
    let stamped = stamped.into_inner();
    ensure!(
        stamped >= (THREADS * EACH) as u64,
        "{stamped} pages stamped"
    );
    ensure_eq!(arena.info()?.epoch, (THREADS * EACH) as u64, "epoch");
    Ok(())
}

fn a_delta_taken_while_others_commit_is_in_order(_: &Options) -> Outcome {
    let arena = Device::open()?.create("order", 2048)?;
    let map = arena.map_all()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| {
            let mut turn = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                for page in 0..40 {
                    map.touch((turn * 13 + page * 51) % 2048, turn as u8);
                }
                arena.commit()?;
                turn += 1;
            }
            Ok::<_, Failure>(())
        });
        let outcome = (|| -> Outcome {
            let mut since = 0;
            for _ in 0..400 {
                let delta = arena.delta_in_steps(since, 7)?;
                let mut end = None;
                for (first, pages) in &delta.ranges {
                    ensure!(*pages > 0 && first + pages <= 2048, "range {first}+{pages}");
                    ensure!(
                        end.is_none_or(|end| *first >= end),
                        "range {first} before {end:?}"
                    );
                    end = Some(first + pages);
                }
                ensure!(delta.epoch >= since, "epoch {} after {since}", delta.epoch);
                since = delta.epoch;
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        committer
            .join()
            .map_err(|_| Failure::new("the committer panicked"))??;
        outcome
    })
}

// All that the kernel has to keep apart when mappings come and go: nothing here may crash, and in
// the end the content is what was stored.
fn mapping_and_unmapping_while_others_commit_is_safe(_: &Options) -> Outcome {
    let arena = Device::open()?.create("come and go", 1200)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..LANES / 2)
            .map(|number| {
                let (arena, stop) = (&arena, &stop);
                scope.spawn(move || {
                    let mut turn = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        turn += 1;
                        let first = turn * 7 % 1100;
                        let map = arena.map(first, 100)?;
                        map.store(number * 8, &turn.to_ne_bytes());
                        map.store(99 * PAGE + number * 8, &turn.to_ne_bytes());
                        if turn % 3 == 0 {
                            arena.pread(first * PAGE as u64, 200)?;
                        }
                    }
                    Ok::<_, Failure>(())
                })
            })
            .collect();
        let mut outcome = Ok(());
        for since in 0..1000 {
            outcome = arena.commit().and_then(|_| arena.delta(since)).map(drop);
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker
                .join()
                .map_err(|_| Failure::new("a worker panicked"))??;
        }
        Ok(outcome?)
    })
}
