// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One arena in several processes.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::End;
use crate::process::Link;
use crate::process::Message;
use crate::process::Peer;
use crate::process::in_child;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_descriptor_sent_to_another_process_is_the_same_arena,
    an_arena_opened_by_id_in_another_process_is_the_same_arena,
    each_process_sees_what_the_other_stored_at_once,
    a_commit_of_one_process_covers_the_writes_of_all,
    an_arena_outlives_the_process_that_made_it,
    an_orphan_takes_new_pages_and_commits,
    an_arena_in_a_message_under_way_stays,
    a_descriptor_is_not_there_after_exec,
    a_child_may_map_an_inherited_descriptor_itself,
    a_process_killed_in_the_middle_of_commits_leaves_a_usable_arena,
];

/// The arena that a message brings.
fn received(mut message: Message) -> Result<Arena, Failure> {
    let fd = message
        .fds
        .pop()
        .ok_or_else(|| Failure::new("no descriptor in the message"))?;
    let unsized_arena = Arena::new(fd, 0, 0);
    let info = unsized_arena.info()?;
    Ok(Arena::new(unsized_arena.into_fd(), info.id, info.len_bytes))
}

fn a_descriptor_sent_to_another_process_is_the_same_arena(_: &Options) -> Outcome {
    // Forked before there is an arena, so that nothing comes by inheritance.
    with_peer(
        |link| {
            let arena = received(link.receive()?)?;
            let map = arena.map_all()?;
            ensure_eq!(map.get(5 * PAGE), 55, "what the sender stored");
            map.touch(6, 66);
            arena.commit()?;
            link.send_number(arena.id())?;
            Ok(())
        },
        |peer| {
            let arena = Device::open()?.create("sent", 16)?;
            let map = arena.map_all()?;
            map.touch(5, 55);
            peer.link.send(b"arena", &[arena.as_fd()])?;
            ensure_eq!(peer.link.receive_number()?, arena.id(), "id");
            ensure_eq!(map.get(6 * PAGE), 66, "what the receiver stored");
            ensure_eq!(arena.delta(0)?.pages(), vec![5, 6], "delta");
            Ok(())
        },
    )
}

fn an_arena_opened_by_id_in_another_process_is_the_same_arena(_: &Options) -> Outcome {
    with_peer(
        |link| {
            let arena = Device::open()?.open_arena(link.receive_number()?, 0)?;
            arena.map_all()?.touch(6, 66);
            link.send_number(arena.commit()?.epoch)?;
            Ok(())
        },
        |peer| {
            let arena = Device::open()?.create("found", 16)?;
            peer.link.send_number(arena.id())?;
            ensure_eq!(peer.link.receive_number()?, 1, "epoch");
            ensure_eq!(arena.pread(6 * PAGE as u64, 1)?, vec![66], "content");
            ensure_eq!(arena.delta(0)?.pages(), vec![6], "delta");
            Ok(())
        },
    )
}

fn each_process_sees_what_the_other_stored_at_once(_: &Options) -> Outcome {
    let arena = Device::open()?.create("ping", 4)?;
    let ours = arena.map_all()?;
    with_peer(
        |link| {
            let map = arena.map_all()?;
            for round in 0..100_u8 {
                link.receive_number()?;
                ensure_eq!(map.get(PAGE), round, "what the other stored");
                map.touch(2, round);
                link.send_number(1)?;
            }
            Ok(())
        },
        |peer| {
            for round in 0..100_u8 {
                ours.touch(1, round);
                peer.link.send_number(1)?;
                peer.link.receive_number()?;
                ensure_eq!(ours.get(2 * PAGE), round, "what the other stored");
                let commit = arena.commit()?;
                ensure_eq!(commit.changed_pages, 2, "pages changed in round {round}");
            }
            Ok(())
        },
    )
}

fn a_commit_of_one_process_covers_the_writes_of_all(_: &Options) -> Outcome {
    const PROCESSES: u64 = 6;
    let arena = Device::open()?.create("all", 1024)?;
    let serve = |link: Link, number: u64| -> Outcome {
        let map = arena.map_all()?;
        while let Ok(message) = link.receive() {
            let round = message.number()?;
            map.touch((number * 100 + round) as usize, 1);
            link.send_number(0)?;
        }
        Ok(())
    };
    let peers: Vec<_> = (0..PROCESSES)
        .map(|number| Peer::start(|link| serve(link, number)))
        .collect::<Result<_, _>>()?;
    for round in 0..20 {
        for peer in &peers {
            peer.link.send_number(round)?;
            peer.link.receive_number()?;
        }
        arena.commit()?;
        let expected: Vec<_> = (0..PROCESSES).map(|number| number * 100 + round).collect();
        ensure_eq!(
            arena.delta(round)?.pages(),
            expected,
            "delta of round {round}"
        );
    }
    peers.into_iter().try_for_each(Peer::finish)
}

fn an_arena_outlives_the_process_that_made_it(_: &Options) -> Outcome {
    let peer = Peer::start(|link| {
        let arena = Device::open()?.create("left", 2000)?;
        let map = arena.map_all()?;
        for page in 0..50 {
            map.touch(page * 40, page as u8 + 1);
        }
        arena.commit()?;
        map.touch(1, 99);
        link.send(b"arena", &[arena.as_fd()])?;
        link.receive().map(drop)
    })?;
    let message = peer.link.receive()?;
    ensure_eq!(peer.kill()?, End::Killed(Signal::SIGKILL), "the maker");
    let arena = received(message)?;
    ensure_eq!(arena.info()?.epoch, 1, "epoch");
    ensure_eq!(arena.info()?.changed_pages, 1, "pages changed since");
    let map = arena.map_all()?;
    for page in 0..50 {
        ensure_eq!(
            map.get(page * 40 * PAGE),
            page as u8 + 1,
            "byte of page {}",
            page * 40
        );
    }
    ensure_eq!(arena.commit()?.epoch, 2, "next epoch");
    ensure_eq!(arena.delta(1)?.pages(), vec![1], "delta");
    let again = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    ensure_eq!(
        again.info()?.epoch,
        2,
        "epoch of a descriptor opened afterwards"
    );
    Ok(())
}

fn an_orphan_takes_new_pages_and_commits(_: &Options) -> Outcome {
    let peer = Peer::start(|link| {
        let arena = Device::open()?.create("orphan", 100)?;
        link.send(b"arena", &[arena.as_fd()])?;
        link.receive().map(drop)
    })?;
    let message = peer.link.receive()?;
    peer.kill()?;
    let arena = received(message)?;
    ensure_eq!(
        arena.reserve(100)?,
        100,
        "pages charged to the account of one who is gone"
    );
    let map = arena.map_all()?;
    for page in 0..100 {
        map.touch(page, 1);
    }
    ensure_eq!(arena.commit()?.changed_pages, 100, "changed pages");
    Ok(())
}

fn an_arena_in_a_message_under_way_stays(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (one, other) = Link::pair()?;
    let arena = device.create("under way", 4)?;
    let id = arena.id();
    arena.map_all()?.touch(1, 11);
    one.send(b"arena", &[arena.as_fd()])?;
    drop(arena);
    ensure_eq!(
        device.open_arena(id, 0)?.info()?.resident_pages,
        1,
        "resident pages"
    );
    let arena = received(other.receive()?)?;
    ensure_eq!(arena.pread(PAGE as u64, 1)?, vec![11], "content");
    Ok(())
}

fn a_descriptor_is_not_there_after_exec(_: &Options) -> Outcome {
    let arena = Device::open()?.create("exec", 4)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&arena.as_fd());
    let status = std::process::Command::new("test")
        .args(["-e", &format!("/proc/self/fd/{fd}")])
        .status()?;
    ensure_eq!(
        status.code(),
        Some(1),
        "test -e of the descriptor after exec"
    );
    Ok(())
}

fn a_child_may_map_an_inherited_descriptor_itself(_: &Options) -> Outcome {
    let arena = Device::open()?.create("inherited", 16)?;
    let map = arena.map_all()?;
    map.touch(3, 33);
    arena.commit()?;
    in_child(|| {
        let map = arena.map_all()?;
        ensure_eq!(map.get(3 * PAGE), 33, "byte in the child");
        map.touch(4, 44);
        Ok(())
    })?;
    ensure_eq!(map.get(4 * PAGE), 44, "byte that the child stored");
    arena.commit()?;
    ensure_eq!(arena.delta(1)?.pages(), vec![4], "delta");
    Ok(())
}

fn a_process_killed_in_the_middle_of_commits_leaves_a_usable_arena(_: &Options) -> Outcome {
    let arena = Device::open()?.create("murder", 512)?;
    let map = arena.map_all()?;
    let mut seen = 0;
    for round in 0..30_u8 {
        let peer = Peer::start(|link| {
            let map = arena.map_all()?;
            link.send_number(1)?;
            for turn in 0_u64.. {
                for page in 0..512 {
                    map.store(page * PAGE + 8, &turn.to_ne_bytes());
                }
                arena.commit()?;
                arena.delta(0)?;
            }
            Ok(())
        })?;
        peer.link.receive_number()?;
        // Somewhere in its work: when it has made some more commits.
        let target = seen + u64::from(round % 4);
        while arena.info()?.epoch < target {
            if peer.has_ended() {
                peer.finish()?;
                return Err(Failure::new("the other ended by itself"));
            }
            std::thread::yield_now();
        }
        peer.kill()?;
        arena.commit()?;
        map.touch(7, round);
        let commit = arena.commit()?;
        ensure_eq!(
            commit.changed_pages,
            1,
            "changed pages when the other is gone"
        );
        ensure!(commit.epoch > seen, "epoch {} after {seen}", commit.epoch);
        seen = commit.epoch;
        ensure_eq!(arena.delta(seen - 1)?.pages(), vec![7], "delta");
    }
    Ok(())
}
