// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_COMMIT_QUIET: commits of which nobody is told but who makes them.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::snapshot::filled;
use super::snapshot::number_page;
use crate::abi;
use crate::consumers::Control;
use crate::consumers::events;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::with_peer;
use crate::rng::Rng;
use crate::runner::Test;
use crate::snapshot::commit_with;
use crate::snapshot::snapshot_request;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_quiet_commit_stamps_what_changed,
    nobody_is_told_of_a_quiet_commit,
    a_request_waits_for_a_commit_that_is_not_quiet,
    a_subscriber_gets_the_next_commit_that_is_not_quiet,
    a_quiet_commit_has_a_snapshot_of_its_own_when_asked,
    a_cursor_of_a_quiet_commit_is_a_cursor,
    120 => a_follower_never_sees_a_state_in_between,
];

fn a_quiet_commit_stamps_what_changed(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    map.touch(3, 1);
    let quiet = arena.commit_quietly()?;
    ensure_eq!(
        (quiet.epoch, quiet.changed_pages),
        (2, 1),
        "epoch and pages"
    );
    let delta = arena.delta(1)?;
    ensure_eq!((delta.epoch, delta.pages()), (2, vec![3]), "the delta");
    map.touch(5, 1);
    ensure_eq!(arena.commit()?.epoch, 3, "the next commit");
    ensure_eq!(
        arena.delta(2)?.pages(),
        vec![5],
        "the delta since the quiet one"
    );
    ensure_eq!(arena.delta(1)?.pages(), vec![3, 5], "the delta over both");
    ensure_eq!(arena.stats()?.commits, 3, "commits");
    Ok(())
}

fn nobody_is_told_of_a_quiet_commit(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let other = Device::open()?.open_arena(arena.id(), 0)?;
    let control = Control::map(&other)?;
    let before = other.info()?;
    map.touch(3, 1);
    arena.commit_quietly()?;
    ensure_eq!(events(&other, 0)?, PollFlags::empty(), "poll");
    ensure_eq!(control.read().epoch, 1, "the control page");
    let info = other.info()?;
    ensure_eq!(
        (info.epoch, info.committed_ns),
        (before.epoch, before.committed_ns),
        "epoch and time of INFO"
    );
    let level = abi::CKPT_LEVEL_COMMITTED;
    ensure_eq!(other.wait(2, level, 0), Err(Errno::ETIMEDOUT), "WAIT");
    arena.commit()?;
    ensure_eq!(events(&other, 0)?, PollFlags::POLLIN, "poll after another");
    ensure_eq!(control.read().epoch, 3, "the control page after another");
    ensure_eq!(other.wait(2, level, 0), Ok(3), "WAIT after another");
    ensure_eq!(other.info()?.epoch, 3, "INFO after another");
    Ok(())
}

fn a_request_waits_for_a_commit_that_is_not_quiet(_: &Options) -> Outcome {
    let (arena, _map) = filled(8)?;
    let control = Control::map(&arena)?;
    ensure_eq!(arena.request()?, 1, "the last commit");
    arena.commit_quietly()?;
    ensure_eq!(control.read().pending, 1, "pending");
    ensure_eq!(events(&arena, 0)?, PollFlags::POLLPRI, "poll");
    // A later one means the same answer.
    ensure_eq!(arena.request()?, 1, "the last commit of which is told");
    arena.commit()?;
    ensure_eq!(control.read().pending, 0, "pending after a commit");
    Ok(())
}

fn a_subscriber_gets_the_next_commit_that_is_not_quiet(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let snapshot = arena.subscribe(1, 0)?;
    map.write(3 * PAGE, &number_page(33));
    map.write(5 * PAGE, &number_page(55));
    arena.commit_quietly()?;
    ensure_eq!(events(&snapshot, 0)?, PollFlags::empty(), "poll");
    ensure_eq!(snapshot.info().err(), Some(Errno::EAGAIN), "SNAPSHOT");
    ensure_eq!(arena.stats()?.frozen_pages, 0, "pages frozen");
    map.write(3 * PAGE, &number_page(3));
    arena.commit()?;
    let info = snapshot.info()?;
    ensure_eq!(
        (info.epoch, info.since, info.pages),
        (3, 1, 2),
        "the snapshot"
    );
    let expected = vec![(3, number_page(3)), (5, number_page(55))];
    ensure_eq!(snapshot.all()?, expected, "its pages");
    Ok(())
}

fn a_quiet_commit_has_a_snapshot_of_its_own_when_asked(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    let subscribed = arena.subscribe(0, 0)?;
    map.write(PAGE, &number_page(70));
    let mut commit = snapshot_request(1, 0);
    commit.flags |= abi::CKPT_COMMIT_QUIET;
    let (own, commit) = commit_with(&arena, commit)?;
    ensure_eq!(commit.epoch, 2, "its epoch");
    map.write(PAGE, &number_page(71));
    ensure_eq!(own.all()?, vec![(1, number_page(70))], "its pages");
    ensure_eq!(
        subscribed.info().err(),
        Some(Errno::EAGAIN),
        "the subscriber's"
    );
    Ok(())
}

fn a_cursor_of_a_quiet_commit_is_a_cursor(_: &Options) -> Outcome {
    let (arena, map) = filled(8)?;
    map.touch(1, 1);
    let cursor = arena.commit_quietly()?.epoch;
    let snapshot = arena.subscribe(cursor, 0)?;
    map.touch(2, 1);
    arena.commit()?;
    ensure_eq!(snapshot.held()?, vec![2], "pages since the quiet commit");
    ensure_eq!(
        arena.acknowledge(cursor, abi::CKPT_LEVEL_DURABLE)?,
        cursor,
        "acknowledged"
    );
    Ok(())
}

// Every page has the same number in each commit that is not quiet, and hardly ever in one that is.
fn a_follower_never_sees_a_state_in_between(options: &Options) -> Outcome {
    const PAGES: usize = 60;
    crate::diag!("seed {}", options.seed);
    let (arena, map) = filled(PAGES as u64)?;
    let all_are = |number: u64| {
        for page in 0..PAGES {
            map.write(page * PAGE, &number_page(number));
        }
    };
    all_are(1);
    arena.commit()?;
    with_peer(
        |_link| {
            let other = Device::open()?.open_arena(arena.id(), 0)?;
            let mut replica = vec![Vec::new(); PAGES];
            let (mut cursor, mut rounds) = (0, 0);
            while rounds < 150 {
                let snapshot = other.subscribe(cursor, 0)?;
                ensure_eq!(events(&snapshot, 30_000)?, PollFlags::POLLIN, "poll");
                for (page, content) in snapshot.all()? {
                    replica[page as usize] = content;
                }
                cursor = snapshot.info()?.epoch;
                ensure!(
                    replica.iter().all(|page| *page == replica[0]),
                    "a state in between, at epoch {cursor}"
                );
                rounds += 1;
            }
            Ok(())
        },
        |peer| {
            let mut rng = Rng::new(options.seed);
            while events(&peer.link, 0)?.is_empty() {
                for _ in 0..rng.between(1, 9) {
                    let page = rng.below(PAGES);
                    map.write(page * PAGE, &number_page(rng.next()));
                    arena.commit_quietly()?;
                }
                all_are(rng.next());
                arena.commit()?;
            }
            Ok(())
        },
    )
}
