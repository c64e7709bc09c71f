// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_KEEP and CKPT_IOC_TAKEOVER: an arena that goes on with another program.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::Id;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::waitid;

use crate::abi;
use crate::arena::Arena;
use crate::credentials::CAP_CHECKPOINT_RESTORE;
use crate::credentials::CAP_IPC_LOCK;
use crate::credentials::SOMEBODY;
use crate::credentials::SOMEBODY_ELSE;
use crate::credentials::become_user;
use crate::credentials::become_user_with;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::Peer;
use crate::process::in_child;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    who_takes_an_arena_over_is_named,
    the_content_and_the_epochs_go_on,
    an_arena_with_a_program_is_not_taken_over,
    a_program_that_was_not_waited_for_is_there,
    who_is_named_already_may_say_so_again,
    of_many_who_want_it_one_gets_it,
    only_those_who_may_open_it_take_it_over,
    a_private_arena_is_taken_over_by_its_user,
    a_read_only_descriptor_takes_over_and_keeps_nothing,
    the_new_programs_limit_counts,
    a_lower_limit_leaves_what_is_charged,
    a_new_program_with_ipc_lock_is_not_limited,
    another_user_brings_no_limit,
    charges_are_given_back_to_the_user_who_made_it,
    an_arena_is_kept_as_long_as_the_descriptor_is_open,
    every_descriptor_keeps_by_itself,
    who_keeps_an_arena_that_he_made_is_not_its_program,
];

const PAGES: u64 = 200;
const LIMIT: u64 = 64;

fn set_limit(pages: u64) -> Result<(), Errno> {
    let bytes = pages * PAGE as u64;
    setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)
}

/// A process of that user with a limit of [`LIMIT`] pages, that makes an arena; and the arena.
fn maker(uid: u32, flags: u32) -> Result<(Peer, Arena), Failure> {
    let device = Device::open()?;
    let peer = Peer::start(|link| {
        set_limit(LIMIT)?;
        become_user(uid)?;
        let mut create = create_request("outlives", PAGES);
        create.flags = flags;
        let arena = device.create_with(&mut create)?;
        arena.map_all()?.touch(1, 41);
        arena.commit()?;
        link.send(&arena.id().to_ne_bytes(), &[arena.as_fd()])?;
        // Until it is killed.
        link.receive().map(drop)
    })?;
    let mut message = peer.link.receive()?;
    let id = message.number()?;
    let fd = message.fds.pop().ok_or_else(|| Failure::new("no arena"))?;
    Ok((peer, Arena::new(fd, id, PAGES * PAGE as u64)))
}

/// An arena of that user, whose program is gone.
fn orphan(uid: u32, flags: u32) -> Result<Arena, Failure> {
    let (peer, arena) = maker(uid, flags)?;
    peer.kill()?;
    Ok(arena)
}

fn who_takes_an_arena_over_is_named(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = orphan(0, 0)?;
    ensure_eq!(arena.info()?.pid, 0, "pid before");
    let peer = Peer::start(|link| {
        arena.take_over()?;
        link.send_number(0)?;
        link.receive().map(drop)
    })?;
    peer.link.receive_number()?;
    let pid = peer.pid().as_raw();
    ensure_eq!(arena.info()?.pid, pid, "pid of INFO");
    ensure_eq!(device.list()?[0].pid, pid, "pid of LIST");
    peer.kill()?;
    ensure_eq!(arena.info()?.pid, 0, "pid when that one is gone, too");
    arena.take_over()?;
    ensure_eq!(
        arena.info()?.pid as u32,
        std::process::id(),
        "pid of the third"
    );
    Ok(())
}

fn the_content_and_the_epochs_go_on(_: &Options) -> Outcome {
    let arena = orphan(0, 0)?;
    arena.take_over()?;
    let map = arena.map_all()?;
    ensure_eq!(map.get(PAGE), 41, "what the first had written");
    map.touch(2, 42);
    ensure_eq!(arena.commit()?.epoch, 2, "the next epoch");
    ensure_eq!(arena.delta(1)?.pages(), vec![2], "what changed");
    Ok(())
}

fn an_arena_with_a_program_is_not_taken_over(_: &Options) -> Outcome {
    let (peer, arena) = maker(0, 0)?;
    ensure_eq!(arena.take_over(), Err(Errno::EBUSY), "while it is there");
    ensure_eq!(arena.info()?.pid, peer.pid().as_raw(), "pid");
    peer.kill()?;
    arena.take_over()?;
    let other = in_child(|| {
        ensure_eq!(arena.take_over(), Err(Errno::EBUSY), "by a child of it");
        Ok(())
    });
    ensure_eq!(arena.info()?.pid as u32, std::process::id(), "pid after");
    other
}

fn a_program_that_was_not_waited_for_is_there(_: &Options) -> Outcome {
    let (peer, arena) = maker(0, 0)?;
    kill(peer.pid(), Signal::SIGKILL)?;
    waitid(
        Id::Pid(peer.pid()),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
    )?;
    ensure_eq!(arena.take_over(), Err(Errno::EBUSY), "before it was");
    peer.kill()?;
    arena.take_over()?;
    Ok(())
}

fn who_is_named_already_may_say_so_again(_: &Options) -> Outcome {
    let arena = Device::open()?.create("one's own", 4)?;
    for _ in 0..3 {
        arena.take_over()?;
        ensure_eq!(arena.info()?.pid as u32, std::process::id(), "pid");
    }
    Ok(())
}

fn of_many_who_want_it_one_gets_it(_: &Options) -> Outcome {
    for round in 0..30 {
        let arena = orphan(0, 0)?;
        let rivals = (0..4).map(|_| {
            Peer::start(|link| {
                link.receive()?;
                let got = match arena.take_over() {
                    Ok(()) => 1,
                    Err(Errno::EBUSY) => 0,
                    Err(errno) => return Err(errno.into()),
                };
                link.send_number(got)?;
                // Whoever has it is there until all have tried.
                link.receive().map(drop)
            })
        });
        let rivals: Vec<Peer> = rivals.collect::<Result<_, _>>()?;
        for rival in &rivals {
            rival.link.send_number(0)?;
        }
        let mut winners = Vec::new();
        for rival in &rivals {
            if rival.link.receive_number()? == 1 {
                winners.push(rival.pid().as_raw());
            }
        }
        ensure_eq!(
            vec![arena.info()?.pid],
            winners,
            "who has it in round {round}"
        );
        for rival in rivals {
            rival.kill()?;
        }
    }
    Ok(())
}

/// Tries to take over an arena of [`SOMEBODY`]'s as somebody, in a child.
fn try_as(
    arena: &Arena,
    become_somebody: impl FnOnce() -> Result<(), Errno>,
    expected: Result<(), Errno>,
) -> Outcome {
    in_child(|| {
        become_somebody()?;
        ensure_eq!(arena.take_over(), expected, "TAKEOVER");
        Ok(())
    })
}

fn only_those_who_may_open_it_take_it_over(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, 0)?;
    let refused = Err(Errno::EACCES);
    let with = |capability| move || become_user_with(SOMEBODY_ELSE, capability);
    try_as(&arena, || become_user(SOMEBODY_ELSE), refused)?;
    try_as(&arena, with(CAP_IPC_LOCK), refused)?;
    let powerless_root = || crate::credentials::set_capabilities(0);
    try_as(&arena, powerless_root, refused)?;
    try_as(&arena, || become_user(SOMEBODY), Ok(()))?;
    try_as(&arena, with(CAP_CHECKPOINT_RESTORE), Ok(()))?;
    try_as(&arena, || Ok(()), Ok(()))?;
    // Who has taken it is no more than its program.
    ensure_eq!(arena.info()?.uid, SOMEBODY, "uid");
    Ok(())
}

fn a_private_arena_is_taken_over_by_its_user(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, abi::CKPT_CREATE_PRIVATE)?;
    try_as(&arena, || become_user(SOMEBODY_ELSE), Err(Errno::EACCES))?;
    try_as(&arena, || become_user(SOMEBODY), Ok(()))
}

fn a_read_only_descriptor_takes_over_and_keeps_nothing(_: &Options) -> Outcome {
    let arena = orphan(0, 0)?;
    let reader = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    ensure_eq!(reader.take_over(), Err(Errno::EBADF), "TAKEOVER");
    ensure_eq!(reader.keep(), Err(Errno::EBADF), "KEEP");
    let info = arena.info()?;
    ensure_eq!((info.pid, info.flags), (0, 0), "pid and flags");
    Ok(())
}

fn the_new_programs_limit_counts(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, 0)?;
    in_child(|| {
        set_limit(2 * LIMIT)?;
        become_user(SOMEBODY)?;
        let beyond = LIMIT + 1;
        ensure_eq!(arena.reserve(beyond), Err(Errno::ENOMEM), "before");
        arena.take_over()?;
        ensure_eq!(arena.reserve(2 * LIMIT)?, 2 * LIMIT, "charged");
        ensure_eq!(
            arena.reserve(2 * LIMIT + 1),
            Err(Errno::ENOMEM),
            "beyond the new limit"
        );
        // The limit is what it was when that was said.
        set_limit(LIMIT)?;
        ensure_eq!(arena.reserve(2 * LIMIT)?, 2 * LIMIT, "later");
        Ok(())
    })
}

fn a_lower_limit_leaves_what_is_charged(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, 0)?;
    ensure_eq!(arena.reserve(40)?, 40, "charged to the first");
    in_child(|| {
        set_limit(20)?;
        become_user(SOMEBODY)?;
        arena.take_over()?;
        ensure_eq!(arena.reserve(40)?, 40, "charged still");
        ensure_eq!(arena.reserve(41), Err(Errno::ENOMEM), "one page more");
        let map = arena.map_all()?;
        for page in 0..40 {
            map.touch(page, 7);
        }
        ensure_eq!(arena.commit()?.changed_pages, 40, "changed pages");
        ensure_eq!(arena.stats()?.charged_pages, 40, "charged pages");
        Ok(())
    })
}

fn a_new_program_with_ipc_lock_is_not_limited(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, 0)?;
    in_child(|| {
        become_user_with(SOMEBODY, CAP_IPC_LOCK)?;
        arena.take_over()?;
        ensure_eq!(arena.reserve(PAGES)?, PAGES, "charged");
        Ok(())
    })
}

fn another_user_brings_no_limit(_: &Options) -> Outcome {
    let arena = orphan(SOMEBODY, 0)?;
    // Root, that is, who is not limited.
    arena.take_over()?;
    ensure_eq!(arena.reserve(LIMIT)?, LIMIT, "within the creator's limit");
    ensure_eq!(arena.reserve(LIMIT + 1), Err(Errno::ENOMEM), "beyond it");
    Ok(())
}

fn charges_are_given_back_to_the_user_who_made_it(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = orphan(SOMEBODY, 0)?;
    // Of another user, in whose account nothing of this may be found.
    arena.take_over()?;
    arena.reserve(LIMIT)?;
    // As much as the limit has room for beside that which is charged to the user.
    let room = |pages: u64| {
        in_child(|| {
            set_limit(LIMIT)?;
            become_user(SOMEBODY)?;
            let other = device.create("another", LIMIT)?;
            ensure_eq!(
                other.reserve(LIMIT).is_ok(),
                pages == LIMIT,
                "a reservation of all"
            );
            ensure_eq!(other.reserve(pages)?, pages, "a reservation");
            Ok(())
        })
    };
    room(0)?;
    drop(arena);
    room(LIMIT)
}

fn an_arena_is_kept_as_long_as_the_descriptor_is_open(_: &Options) -> Outcome {
    let (peer, arena) = maker(0, 0)?;
    let follower = Device::open()?.open_arena(arena.id(), 0)?;
    let flags = || Ok::<_, Failure>(follower.info()?.flags);
    ensure_eq!(flags()?, 0, "flags before");
    for _ in 0..3 {
        arena.keep()?;
        ensure_eq!(flags()?, abi::CKPT_INFO_KEPT, "flags");
    }
    ensure_eq!(
        Device::open()?.list()?[0].flags,
        abi::CKPT_INFO_KEPT,
        "LIST"
    );
    // It is the one that the program has, too.
    let copy = Arena::new(
        arena.as_fd().try_clone_to_owned()?,
        arena.id(),
        PAGES * PAGE as u64,
    );
    drop(arena);
    ensure_eq!(flags()?, abi::CKPT_INFO_KEPT, "flags with a copy open");
    drop(copy);
    ensure_eq!(
        flags()?,
        abi::CKPT_INFO_KEPT,
        "flags while the program has it"
    );
    peer.kill()?;
    ensure_eq!(flags()?, 0, "flags when nobody has it");
    ensure_eq!(follower.info()?.pid, 0, "pid");
    Ok(())
}

fn every_descriptor_keeps_by_itself(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("kept", 4)?;
    let mut keepers = Vec::new();
    for _ in 0..3 {
        let keeper = device.open_arena(arena.id(), 0)?;
        keeper.keep()?;
        keepers.push(keeper);
    }
    while let Some(keeper) = keepers.pop() {
        ensure!(arena.info()?.flags & abi::CKPT_INFO_KEPT != 0, "kept");
        drop(keeper);
    }
    ensure_eq!(arena.info()?.flags, 0, "flags afterwards");
    Ok(())
}

fn who_keeps_an_arena_that_he_made_is_not_its_program(_: &Options) -> Outcome {
    let arena = Device::open()?.create("for another", PAGES)?;
    ensure_eq!(
        arena.info()?.pid,
        std::process::id() as i32,
        "the program before"
    );
    arena.keep()?;
    ensure_eq!(arena.info()?.pid, 0, "the program of a kept arena");
    // Another takes it over while this process is there.
    in_child(|| Ok(arena.take_over()?))?;
    arena.take_over()?;
    ensure_eq!(
        arena.info()?.pid,
        std::process::id() as i32,
        "the program behind a takeover"
    );
    Ok(())
}
