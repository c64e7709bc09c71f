// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots in flight while writers never stop.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

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
use crate::oracle::threads::Tracked;
use crate::oracle::views::Consumer;
use crate::oracle::views::Frozen;
use crate::oracle::views::Viewed;
use crate::process::Peer;
use crate::rng::Rng;
use crate::runner::Test;
use crate::scratch::DirectFile;
use crate::snapshot::need_snapshots;
use crate::tests;
use crate::watched::Watched;
use crate::write_protect::WriteProtector;
use crate::write_protect::compact_memory;
use crate::writer::LANE_BYTES;
use crate::writer::Style;
use crate::writer::write_until;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    180 => snapshots_of_a_writer_that_never_leaves_its_processor_show_their_commit,
    90 => snapshots_among_writers_with_mappings_of_their_own_show_their_commits,
    90 => snapshots_among_writers_of_every_kind_show_their_commits,
    90 => snapshots_among_writes_by_the_kernel_lack_nothing,
    90 => snapshots_while_memory_is_compacted_show_their_commits,
    90 => processes_that_die_lose_nothing_and_hold_nobody_up,
];

/// Pages in snapshots that a test wants to have seen.
const ENOUGH_PAGES: usize = 100;

/// Lets writers and consumers run in threads; each writer has a lane.
fn consume(
    watched: &Watched,
    styles: &[Style<'_>],
    consumers: usize,
    snapshots: usize,
    seed: u64,
) -> Result<Viewed, Failure> {
    let stop = AtomicBool::new(false);
    let left = AtomicUsize::new(consumers);
    let writing = AtomicUsize::new(styles.len());
    let processors = cpus::available()?;
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (lane, style) in styles.iter().copied().enumerate() {
            let (stop, writing, arena) = (&stop, &writing, &watched.arena);
            // The first processor is for the consumers, as long as there is another.
            let others = processors
                .get(1..)
                .filter(|rest| !rest.is_empty())
                .unwrap_or(&processors);
            let cpu = others[lane % others.len()];
            writers.push(scope.spawn(move || {
                cpus::pin_to(cpu)?;
                let seed = seed + lane as u64;
                let last =
                    write_until(arena, style, lane, seed, 0, || stop.load(Ordering::Relaxed));
                writing.fetch_sub(1, Ordering::Relaxed);
                last
            }));
        }
        let consumers: Vec<_> = (0..consumers as u64)
            .map(|number| {
                let (stop, left, writing) = (&stop, &left, &writing);
                let cpu = processors[0];
                scope.spawn(move || {
                    cpus::pin_to(cpu)?;
                    let mut consumer = Consumer::new(watched, seed ^ (number << 32));
                    let mut outcome = Ok(());
                    while outcome.is_ok()
                        && !stop.load(Ordering::Relaxed)
                        && (consumer.viewed().snapshots < snapshots
                            // Without writers there will be no more.
                            || consumer.viewed().pages < ENOUGH_PAGES
                                && writing.load(Ordering::Relaxed) > 0)
                    {
                        outcome = consumer.step();
                    }
                    // Who is ready waits for the others; who has found something does not.
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 || outcome.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    outcome
                        .map(|()| consumer)
                        .map_err(|text| Failure::new(text))
                })
            })
            .collect();
        let mut last = Vec::new();
        for writer in writers {
            last.push(writer.join().map_err(|_| Failure::new("a writer panicked")));
        }
        let mut all = Viewed::default();
        for consumer in consumers {
            let consumer = consumer
                .join()
                .map_err(|_| Failure::new("a consumer panicked"))??;
            let viewed = consumer.finish().map_err(|text| Failure::new(text))?;
            all.snapshots += viewed.snapshots;
            all.pages += viewed.pages;
            all.twice += viewed.twice;
            all.given_up += viewed.given_up;
        }
        for (lane, last) in last.into_iter().enumerate() {
            for (page, number) in last??.iter().enumerate() {
                ensure_eq!(
                    watched.lanes(page)[lane],
                    *number,
                    "lane {lane} of page {page}"
                );
            }
        }
        let stats = watched.arena.stats()?;
        diag!(
            "{} snapshots, {} pages out of them, {} twice, {} given up, {} copied aside, {} waits",
            all.snapshots,
            all.pages,
            all.twice,
            all.given_up,
            stats.copied_pages,
            stats.copy_waits
        );
        ensure_eq!(stats.snapshots, 0, "snapshots open afterwards");
        Ok(all)
    })
}

// As many writers as there are processors besides the consumer's: they are never switched, and
// nothing but the commit flushes what their processors remember about the page tables.
fn snapshots_of_a_writer_that_never_leaves_its_processor_show_their_commit(
    options: &Options,
) -> Outcome {
    need_snapshots()?;
    diag!("seed {}", options.seed);
    for (pages, snapshots) in [(1, 2000), (8, 2000), (600, 40)] {
        let watched = Watched::new(pages, true)?;
        let map = watched.arena.map_all()?;
        let mut styles = vec![Style::Fills];
        let others = cpus::available()?.len().saturating_sub(2);
        styles.extend(std::iter::repeat_n(
            Style::Shared(&map),
            others.min(LANES - 1),
        ));
        consume(&watched, &styles, 1, snapshots, options.seed)?;
    }
    Ok(())
}

// A page that one of them has written lately may be writable for the other as well, and the other
// way round, when a commit has to freeze it for both.
fn snapshots_among_writers_with_mappings_of_their_own_show_their_commits(
    options: &Options,
) -> Outcome {
    need_snapshots()?;
    diag!("seed {}", options.seed);
    for (pages, consumers, snapshots) in [(400, 1, 100), (1200, 2, 50)] {
        let watched = Watched::new(pages, true)?;
        let styles = [Style::Fills, Style::Own];
        consume(&watched, &styles, consumers, snapshots, options.seed)?;
    }
    Ok(())
}

fn snapshots_among_writers_of_every_kind_show_their_commits(options: &Options) -> Outcome {
    need_snapshots()?;
    diag!("seed {}", options.seed);
    let protector = WriteProtector::new()?;
    for (pages, snapshots) in [(2, 200), (40, 150), (700, 60)] {
        let watched = Watched::new(pages, true)?;
        let styles = [
            Style::Fills,
            Style::Remaps,
            Style::Protects,
            Style::DropsEntries,
            Style::Moves,
            Style::ReadsPipe,
            Style::WriteProtected(&protector),
            Style::ClearsSoftDirty,
        ];
        consume(&watched, &styles, 3, snapshots, options.seed)?;
    }
    Ok(())
}

fn snapshots_among_writes_by_the_kernel_lack_nothing(options: &Options) -> Outcome {
    const BLOCKS: u64 = 16 * 1024;
    need_snapshots()?;
    diag!("seed {}", options.seed);
    let content: Vec<u8> = (0..BLOCKS)
        .flat_map(|block| block.to_ne_bytes().repeat(LANE_BYTES / 8))
        .collect();
    let file = DirectFile::create(&options.scratch, "views", &content)?;
    for (pages, snapshots) in [(3, 200), (60, 100)] {
        let watched = Watched::new(pages, false)?;
        watched.done[0].store(0, Ordering::Relaxed);
        let styles = [
            Style::ProcMem(&watched.done[0]),
            Style::VmWrite,
            Style::ReadsDisk(&file, BLOCKS),
            Style::Fills,
        ];
        consume(&watched, &styles, 2, snapshots, options.seed)?;
    }
    Ok(())
}

fn snapshots_while_memory_is_compacted_show_their_commits(options: &Options) -> Outcome {
    need_snapshots()?;
    diag!("seed {}", options.seed);
    let watched = Watched::new(1200, true)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let compactor = scope.spawn(|| {
            let mut times = 0;
            while !done.load(Ordering::Relaxed) {
                compact_memory()?;
                times += 1;
            }
            Ok::<_, Failure>(times)
        });
        let styles = [Style::Fills, Style::Own, Style::Remaps];
        let outcome = consume(&watched, &styles, 2, 60, options.seed);
        done.store(true, Ordering::Relaxed);
        let times = compactor
            .join()
            .map_err(|_| Failure::new("the compactor panicked"))??;
        diag!("memory was compacted {times} times");
        ensure!(times > 0, "memory was never compacted");
        outcome.map(drop)
    })
}

// Writers and consumers are processes, killed in the middle of whatever they do. A consumer that
// holds a snapshot with hardly any reserve stops all writers, until it is killed.
fn processes_that_die_lose_nothing_and_hold_nobody_up(options: &Options) -> Outcome {
    const WRITERS: usize = 3;
    need_snapshots()?;
    diag!("seed {}", options.seed);
    let mut rng = Rng::new(options.seed);
    let watched = Watched::new(48, true)?;
    // A page that all processes share says when to stop.
    let control = Device::open()?.create("control", 1)?;
    let flag = control.map_all()?;
    let write = |lane: usize, seed: u64| {
        let after = watched.newest(lane);
        Peer::start(|_link| {
            let flag = control.map_all()?;
            let style = [Style::Fills, Style::Own, Style::Remaps][lane];
            write_until(&watched.arena, style, lane, seed, after, || {
                flag.get(0) != 0
            })
            .map(drop)
        })
    };
    let mut writers = Vec::new();
    for lane in 0..WRITERS {
        writers.push(write(lane, rng.next())?);
    }
    let mut consumer = Consumer::new(&watched, options.seed);
    let mut killed = 0;
    for round in 0..60 {
        let holder = Peer::start(|link| {
            let (epoch, snapshot) = watched
                .commit_with_snapshot(0, true)
                .map_err(|text| Failure::new(text))?;
            watched
                .gather(&snapshot, 0, 2, round % 2 == 0)
                .map_err(|text| Failure::new(text))?;
            link.send_number(epoch)?;
            link.receive()?;
            Ok(())
        })?;
        holder.link.receive_number()?;
        // Others can commit and look meanwhile, whether writers wait or not.
        for _ in 0..rng.between(1, 4) {
            consumer.step().map_err(|text| Failure::new(text))?;
        }
        if rng.chance(1, 2) {
            let lane = rng.below(WRITERS);
            writers.remove(lane).kill()?;
            killed += 1;
            writers.insert(lane, write(lane, rng.next())?);
        }
        let before: Vec<u64> = (0..WRITERS).map(|lane| watched.newest(lane)).collect();
        holder.kill()?;
        // Whoever waited goes on, and everybody comes past something new.
        while (0..WRITERS).any(|lane| watched.newest(lane) == before[lane]) {
            std::thread::yield_now();
        }
    }
    flag.set(0, 1);
    for writer in writers {
        writer.finish()?;
    }
    let viewed = consumer.finish().map_err(|text| Failure::new(text))?;
    diag!("{viewed:?}, {killed} writers killed");
    ensure_eq!(watched.arena.stats()?.snapshots, 0, "snapshots afterwards");
    ensure!(
        watched.arena.stats()?.copied_pages * PAGE as u64 > 0,
        "nothing was ever copied aside"
    );
    Ok(())
}
