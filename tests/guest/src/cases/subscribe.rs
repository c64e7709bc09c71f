// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_SUBSCRIBE: snapshots of commits that the program makes.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::snapshot::filled;
use super::snapshot::number_page;
use crate::abi;
use crate::arena::Arena;
use crate::consumers::events;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::process::with_peer;
use crate::rng::Rng;
use crate::runner::Test;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    there_is_nothing_before_the_commit,
    the_commit_makes_the_snapshot,
    a_subscriber_sees_the_commit_and_not_what_is_written_later,
    a_commit_with_a_snapshot_serves_subscribers_too,
    subscribers_have_cursors_of_their_own,
    a_subscription_is_for_one_commit,
    a_subscription_that_is_closed_leaves_nothing,
    a_cursor_after_the_last_commit_is_refused,
    a_read_only_descriptor_subscribes_to_nothing,
    sixty_four_subscriptions_and_snapshots_are_the_limit,
    a_subscriber_never_makes_a_writer_wait,
    what_was_handed_over_before_a_snapshot_yields_is_right,
    a_snapshot_beside_one_that_yields_keeps_its_pages,
    a_subscriber_is_woken_by_the_commit,
    a_subscriber_that_is_killed_holds_nobody_up,
    120 => a_replica_that_follows_by_subscriptions_is_right,
];

fn there_is_nothing_before_the_commit(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    let snapshot = arena.subscribe(0, 0)?;
    let not_yet = Some(Errno::EAGAIN);
    ensure_eq!(snapshot.info().err(), not_yet, "SNAPSHOT");
    ensure_eq!(snapshot.gather(0, 8, 8, 0).err(), not_yet, "GATHER");
    ensure_eq!(snapshot.thaw(0, 8).err(), not_yet, "THAW");
    ensure_eq!(events(&snapshot, 0)?, PollFlags::empty(), "poll");
    Ok(())
}

fn the_commit_makes_the_snapshot(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let snapshot = arena.subscribe(1, 0)?;
    map.write(3 * PAGE, &number_page(33));
    ensure_eq!(arena.commit()?.epoch, 2, "the commit");
    ensure_eq!(events(&snapshot, 0)?, PollFlags::POLLIN, "poll");
    let info = snapshot.info()?;
    ensure_eq!(
        (info.epoch, info.since, info.pages, info.arena_id),
        (2, 1, 1, arena.id()),
        "epoch, since, pages and arena"
    );
    ensure_eq!(snapshot.all()?, vec![(3, number_page(33))], "its pages");
    Ok(())
}

fn a_subscriber_sees_the_commit_and_not_what_is_written_later(_: &Options) -> Outcome {
    let (arena, map) = filled(64)?;
    let snapshot = arena.subscribe(0, 0)?;
    arena.commit()?;
    for page in 0..64 {
        map.write(page * PAGE, &number_page(1000 + page as u64));
    }
    arena.commit()?;
    let expected: Vec<_> = (0..64).map(|page| (page, number_page(page))).collect();
    ensure_eq!(snapshot.all()?, expected, "pages as of the commit");
    ensure_eq!(snapshot.info()?.copied_pages, 64, "copied pages");
    Ok(())
}

fn a_commit_with_a_snapshot_serves_subscribers_too(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let subscribed = arena.subscribe(0, 0)?;
    map.write(0, &number_page(50));
    let (own, commit) = commit_with_snapshot(&arena, 1, 0)?;
    map.write(0, &number_page(51));
    ensure_eq!(own.all()?, vec![(0, number_page(50))], "the program's own");
    let all = subscribed.all()?;
    ensure_eq!(all.len(), 8, "pages of the subscriber");
    ensure_eq!(all[0], (0, number_page(50)), "its first page");
    ensure_eq!(subscribed.info()?.epoch, commit.epoch, "its epoch");
    drop(own);
    ensure_eq!(subscribed.all()?, all, "after the other one is closed");
    Ok(())
}

fn subscribers_have_cursors_of_their_own(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    for page in 0..4 {
        map.touch(page, 1);
        arena.commit()?;
    }
    let all: Vec<_> = (0..=5)
        .map(|since| arena.subscribe(since, 0))
        .collect::<Result<_, _>>()?;
    arena.commit()?;
    for (since, snapshot) in all.iter().enumerate() {
        let expected: Vec<u64> = match since {
            0 => (0..8).collect(),
            since => (since as u64 - 1..4).collect(),
        };
        ensure_eq!(snapshot.held()?, expected, "pages since {since}");
    }
    Ok(())
}

fn a_subscription_is_for_one_commit(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let snapshot = arena.subscribe(1, 0)?;
    arena.commit()?;
    map.touch(1, 1);
    arena.commit()?;
    ensure_eq!(snapshot.info()?.epoch, 2, "its epoch");
    ensure_eq!(arena.stats()?.snapshots_made, 1, "snapshots made");
    Ok(())
}

fn a_subscription_that_is_closed_leaves_nothing(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    drop(arena.subscribe(0, 0)?);
    map.touch(1, 1);
    arena.commit()?;
    let stats = arena.stats()?;
    ensure_eq!(
        (stats.snapshots_made, stats.frozen_pages),
        (0, 0),
        "snapshots and frozen pages"
    );
    Ok(())
}

fn a_cursor_after_the_last_commit_is_refused(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    ensure_eq!(arena.subscribe(2, 0).err(), Some(Errno::ERANGE), "since 2");
    arena.subscribe(1, 0)?;
    Ok(())
}

fn a_read_only_descriptor_subscribes_to_nothing(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    let reader = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    ensure_eq!(reader.subscribe(0, 0).err(), Some(Errno::EBADF), "it");
    Ok(())
}

fn sixty_four_subscriptions_and_snapshots_are_the_limit(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    let most = abi::CKPT_SNAPSHOTS_MAX as usize;
    let mut own = Vec::new();
    for _ in 0..most / 2 {
        own.push(commit_with_snapshot(&arena, 0, 0)?.0);
    }
    let mut waiting = Vec::new();
    for _ in 0..most / 2 {
        waiting.push(arena.subscribe(0, 0)?);
    }
    ensure_eq!(arena.subscribe(0, 0).err(), Some(Errno::EBUSY), "one more");
    // One that came later took the place of one that waited.
    own.push(commit_with_snapshot(&arena, 0, 0)?.0);
    let failed = waiting
        .iter()
        .filter(|one| one.info().err() == Some(Errno::EBUSY));
    ensure_eq!(failed.count(), 1, "subscriptions without a snapshot");
    let told = waiting
        .iter()
        .filter(|one| events(one, 0).is_ok_and(|events| events == PollFlags::POLLERR));
    ensure_eq!(told.count(), 1, "subscriptions that poll as failed");
    drop(waiting);
    arena.subscribe(0, 0)?;
    Ok(())
}

fn a_subscriber_never_makes_a_writer_wait(_: &Options) -> Outcome {
    let (arena, map) = filled(64)?;
    let snapshot = arena.subscribe(0, 3)?;
    arena.commit()?;
    for page in 0..64 {
        map.write(page * PAGE, &number_page(2000 + page as u64));
    }
    let ended = Some(Errno::ESTALE);
    ensure_eq!(snapshot.info().err(), ended, "SNAPSHOT");
    ensure_eq!(snapshot.gather(0, 8, 8, 0).err(), ended, "GATHER");
    ensure_eq!(snapshot.thaw(0, 8).err(), ended, "THAW");
    ensure_eq!(events(&snapshot, 0)?, PollFlags::POLLERR, "poll");
    ensure_eq!(arena.stats()?.copy_waits, 0, "waits of writers");
    // All that was written is in the next delta, and the cursor that was had is good.
    ensure_eq!(arena.commit()?.changed_pages, 64, "changed pages");
    let again = arena.subscribe(1, 0)?;
    arena.commit()?;
    ensure_eq!(again.all()?.len(), 64, "pages of the next subscription");
    Ok(())
}

fn what_was_handed_over_before_a_snapshot_yields_is_right(_: &Options) -> Outcome {
    let (arena, map) = filled(64)?;
    let snapshot = arena.subscribe(0, 3)?;
    arena.commit()?;
    let part = snapshot.gather(0, 64, 40, 0)?;
    for (page, content) in part.pages_with_content() {
        ensure_eq!(content, &number_page(page)[..], "page {page}");
    }
    for page in 0..64 {
        map.touch(page, 9);
    }
    ensure_eq!(
        snapshot.gather(40, 64, 40, 0).err(),
        Some(Errno::ESTALE),
        "the rest"
    );
    Ok(())
}

fn a_snapshot_beside_one_that_yields_keeps_its_pages(_: &Options) -> Outcome {
    let (arena, map) = filled(64)?;
    let small = arena.subscribe(0, 3)?;
    let (whole, _) = commit_with_snapshot(&arena, 0, 0)?;
    for page in (0..64).rev() {
        map.write(page * PAGE, &number_page(3000 + page as u64));
    }
    ensure_eq!(small.info().err(), Some(Errno::ESTALE), "the small one");
    let expected: Vec<_> = (0..64).map(|page| (page, number_page(page))).collect();
    ensure_eq!(whole.all()?, expected, "the whole one");
    drop(small);
    ensure_eq!(whole.all()?, expected, "after the small one is closed");
    Ok(())
}

fn a_subscriber_is_woken_by_the_commit(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    with_peer(
        |link| {
            let snapshot = arena.subscribe(0, 0)?;
            link.send_number(0)?;
            ensure_eq!(events(&snapshot, 30_000)?, PollFlags::POLLIN, "poll");
            Ok(())
        },
        |peer| {
            peer.link.receive_number()?;
            arena.commit()?;
            Ok(())
        },
    )
}

fn a_subscriber_that_is_killed_holds_nobody_up(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    for _ in 0..20 {
        let peer = crate::process::Peer::start(|link| {
            let snapshot = arena.subscribe(0, 1)?;
            link.send_number(0)?;
            link.receive()?;
            drop(snapshot);
            Ok(())
        })?;
        peer.link.receive_number()?;
        arena.commit()?;
        map.touch(0, 1);
        peer.kill()?;
        map.touch(1, 1);
        ensure_eq!(arena.commit()?.changed_pages, 2, "changed pages");
    }
    ensure_eq!(arena.stats()?.snapshots, 0, "snapshots left");
    Ok(())
}

/// Follows an arena until it is told to stop, and returns how often it had to ask again.
fn follow(
    arena: &Arena,
    reserve: u64,
    replica: &mut [Vec<u8>],
    cursor: &mut u64,
) -> Result<bool, Failure> {
    let snapshot: Snapshot = arena.subscribe(*cursor, reserve)?;
    arena.request()?;
    let ready = events(&snapshot, 30_000)?;
    if ready.contains(PollFlags::POLLERR) {
        return Ok(false);
    }
    ensure_eq!(ready, PollFlags::POLLIN, "poll");
    let (info, all) = match snapshot.info().and_then(|info| Ok((info, snapshot.all()?))) {
        Ok(both) => both,
        Err(Errno::ESTALE) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    for (page, content) in all {
        replica[page as usize] = content;
    }
    *cursor = info.epoch;
    arena.acknowledge(info.epoch, abi::CKPT_LEVEL_DURABLE)?;
    Ok(true)
}

// The program writes at random and commits when it is asked; a page says by which commit it was
// last written, so that a replica can be compared with what that commit was.
fn a_replica_that_follows_by_subscriptions_is_right(options: &Options) -> Outcome {
    const PAGES: usize = 300;
    crate::diag!("seed {}", options.seed);
    let (arena, map) = filled(PAGES as u64)?;
    with_peer(
        |_link| {
            let other = Device::open()?.open_arena(arena.id(), 0)?;
            let mut replica = vec![vec![0; PAGE]; PAGES];
            let (mut cursor, mut again, mut rounds) = (0, 0, 0);
            while rounds < 150 {
                // Of some the writer takes the end.
                let reserve = if (rounds + again) % 3 == 0 { 40 } else { 0 };
                if !follow(&other, reserve, &mut replica, &mut cursor)? {
                    again += 1;
                    ensure!(again < 1000, "no snapshot can be taken to its end");
                    continue;
                }
                rounds += 1;
                // Each page has its last number, and the numbers of one commit add up.
                let number =
                    |page: &Vec<u8>| u64::from_ne_bytes(page[..8].try_into().unwrap_or_default());
                for (page, content) in replica.iter().enumerate() {
                    ensure!(
                        *content == number_page(number(content)),
                        "page {page} is torn at epoch {cursor}"
                    );
                }
                let sum = replica[1..]
                    .iter()
                    .fold(0_u64, |sum, page| sum.wrapping_add(number(page)));
                if cursor > 1 {
                    ensure_eq!(number(&replica[0]), sum, "the sum at epoch {cursor}");
                }
            }
            crate::diag!("{rounds} deltas, {again} times again");
            Ok(())
        },
        |peer| {
            write_and_commit(options.seed, &arena, &map, || {
                Ok(!events(&peer.link, 0)?.is_empty())
            })
        },
    )
}

fn write_and_commit(
    seed: u64,
    arena: &Arena,
    map: &Mapping,
    ended: impl Fn() -> Result<bool, Failure>,
) -> Outcome {
    let control = crate::consumers::Control::map(arena)?;
    let mut rng = Rng::new(seed);
    let mut numbers: Vec<u64> = (0..map.len() as u64 / PAGE as u64).collect();
    while !ended()? {
        // Nothing of this is at a safe point before the sum is right.
        for _ in 0..rng.between(1, 60) {
            let page = rng.between(1, numbers.len() - 1);
            numbers[page] = rng.next();
            map.write(page * PAGE, &number_page(numbers[page]));
        }
        let sum = numbers[1..]
            .iter()
            .fold(0_u64, |sum, one| sum.wrapping_add(*one));
        map.write(0, &number_page(sum));
        if control.read().pending != 0 || rng.chance(1, 8) {
            arena.commit()?;
        }
    }
    Ok(())
}
