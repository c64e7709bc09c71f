// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may open and see an arena, and as whom and what its maker is shown.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::unistd::Uid;
use nix::unistd::getpid;

use crate::abi;
use crate::credentials::CAP_CHECKPOINT_RESTORE;
use crate::credentials::CAP_IPC_LOCK;
use crate::credentials::SOMEBODY;
use crate::credentials::SOMEBODY_ELSE;
use crate::credentials::become_user;
use crate::credentials::become_user_with;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::Link;
use crate::process::Peer;
use crate::process::in_child;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    the_same_user_may_open_and_sees_it_listed,
    another_user_may_not_open_and_does_not_see_it,
    root_may_open_anybodys,
    checkpoint_restore_is_the_capability_that_counts,
    a_private_arena_is_for_its_descriptors_only,
    the_effective_uid_counts,
    a_descriptor_that_was_handed_over_needs_no_permission,
    a_capability_in_a_user_namespace_below_does_not_count,
    a_capability_above_the_creators_user_namespace_counts,
    the_uid_is_shown_as_the_callers_user_namespace_sees_it,
    the_pid_is_shown_as_the_callers_pid_namespace_sees_it,
];

/// A process of that user which makes an arena and keeps it until it is asked to end.
fn maker(device: &Device, uid: u32, flags: u32) -> Result<(Peer, u64), Failure> {
    let peer = Peer::start(|link| {
        become_user(uid)?;
        let mut create = create_request("theirs", 4);
        create.flags = flags;
        let arena = device.create_with(&mut create)?;
        arena.map_all()?.touch(1, 1);
        link.send(&arena.id().to_ne_bytes(), &[arena.as_fd()])?;
        let _ = link.receive();
        Ok(())
    })?;
    let id = peer.link.receive_number()?;
    Ok((peer, id))
}

/// Tries OPEN and LIST after `become_somebody`, in a child.
fn try_as(
    device: &Device,
    id: u64,
    become_somebody: impl FnOnce() -> Result<(), Errno>,
    expected: Result<(), Errno>,
) -> Outcome {
    in_child(|| {
        become_somebody()?;
        for flags in [0, abi::CKPT_OPEN_RDONLY] {
            let opened = device.open_arena(id, flags);
            let result = opened.as_ref().map(drop).map_err(|errno| *errno);
            ensure_eq!(result, expected, "OPEN with flags {flags}");
            if let (Ok(arena), 0) = (opened, flags) {
                arena.map_all()?.touch(2, 1);
            }
        }
        let listed = device.list()?.iter().any(|entry| entry.id == id);
        ensure_eq!(listed, expected.is_ok(), "in the list");
        Ok(())
    })
}

fn the_same_user_may_open_and_sees_it_listed(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, 0)?;
    try_as(&device, id, || become_user(SOMEBODY), Ok(()))?;
    peer.finish()
}

fn another_user_may_not_open_and_does_not_see_it(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, 0)?;
    try_as(
        &device,
        id,
        || become_user(SOMEBODY_ELSE),
        Err(Errno::EACCES),
    )?;
    // Nor is root's for anybody.
    let roots = device.create("root's", 1)?;
    try_as(
        &device,
        roots.id(),
        || become_user(SOMEBODY),
        Err(Errno::EACCES),
    )?;
    // An arena that is not there is not there for anybody.
    in_child(|| {
        become_user(SOMEBODY_ELSE)?;
        let result = device.open_arena(roots.id() + 1000, 0);
        ensure_eq!(
            result.err(),
            Some(Errno::ENOENT),
            "an id that was never given"
        );
        Ok(())
    })?;
    peer.finish()
}

fn root_may_open_anybodys(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, 0)?;
    try_as(&device, id, || Ok(()), Ok(()))?;
    peer.finish()
}

fn checkpoint_restore_is_the_capability_that_counts(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, 0)?;
    let with = |capability| move || become_user_with(SOMEBODY_ELSE, capability);
    try_as(&device, id, with(CAP_CHECKPOINT_RESTORE), Ok(()))?;
    try_as(&device, id, with(CAP_IPC_LOCK), Err(Errno::EACCES))?;
    // Uid 0 without capabilities is an ordinary user.
    let powerless_root = || crate::credentials::set_capabilities(0);
    try_as(&device, id, powerless_root, Err(Errno::EACCES))?;
    peer.finish()
}

fn a_private_arena_is_for_its_descriptors_only(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, abi::CKPT_CREATE_PRIVATE)?;
    try_as(&device, id, || become_user(SOMEBODY), Err(Errno::EACCES))?;
    try_as(
        &device,
        id,
        || become_user(SOMEBODY_ELSE),
        Err(Errno::EACCES),
    )?;
    try_as(&device, id, || Ok(()), Ok(()))?;
    let capable = || become_user_with(SOMEBODY, CAP_CHECKPOINT_RESTORE);
    try_as(&device, id, capable, Ok(()))?;
    peer.finish()
}

fn the_effective_uid_counts(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (peer, id) = maker(&device, SOMEBODY, 0)?;
    let root = Uid::from_raw(0);
    let effective = |real: u32, effective: u32| {
        move || {
            nix::unistd::setresuid(Uid::from_raw(real), Uid::from_raw(effective), root)?;
            crate::credentials::set_capabilities(0)
        }
    };
    try_as(&device, id, effective(SOMEBODY_ELSE, SOMEBODY), Ok(()))?;
    try_as(
        &device,
        id,
        effective(SOMEBODY, SOMEBODY_ELSE),
        Err(Errno::EACCES),
    )?;
    peer.finish()
}

fn a_descriptor_that_was_handed_over_needs_no_permission(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut create = create_request("handed over", 4);
    create.flags = abi::CKPT_CREATE_PRIVATE;
    let arena = device.create_with(&mut create)?;
    in_child(|| {
        become_user(SOMEBODY)?;
        arena.map_all()?.touch(3, 5);
        ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
        ensure_eq!(arena.delta(0)?.pages(), vec![3], "delta");
        ensure_eq!(arena.pread(3 * PAGE as u64, 1)?, vec![5], "content");
        ensure_eq!(arena.info()?.uid, 0, "uid");
        Ok(())
    })
}

/// Makes this process root of a new user namespace in which only it exists.
fn enter_user_namespace(peer: &Link) -> Outcome {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| match errno {
        Errno::EPERM | Errno::EINVAL | Errno::ENOSPC => {
            Failure::skip(format!("no user namespaces: {errno}"))
        }
        other => Failure::from(other),
    })?;
    // The parent writes the map, which is for the capable only.
    peer.send_number(1)?;
    peer.receive_number()?;
    Ok(())
}

/// Serves [`enter_user_namespace`]: maps uid 0 of the peer's namespace to `uid`.
fn map_user(peer: &Peer, uid: u32) -> Outcome {
    peer.link.receive_number()?;
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", peer.pid()), format!("0 {uid} 1"))?;
    }
    peer.link.send_number(1)?;
    Ok(())
}

fn a_capability_in_a_user_namespace_below_does_not_count(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (owner, id) = maker(&device, SOMEBODY, 0)?;
    with_peer(
        |link| {
            become_user(SOMEBODY_ELSE)?;
            enter_user_namespace(&link)?;
            // All capabilities, but in a namespace of its own.
            ensure_eq!(Uid::effective().as_raw(), 0, "uid in the namespace");
            ensure_eq!(device.open_arena(id, 0).err(), Some(Errno::EACCES), "OPEN");
            ensure_eq!(device.list()?.len(), 0, "arenas listed");
            Ok(())
        },
        |peer| map_user(peer, SOMEBODY_ELSE),
    )?;
    owner.finish()
}

fn a_capability_above_the_creators_user_namespace_counts(_: &Options) -> Outcome {
    let device = Device::open()?;
    with_peer(
        |link| {
            become_user(SOMEBODY)?;
            enter_user_namespace(&link)?;
            let arena = device.create("inside", 4)?;
            ensure_eq!(arena.info()?.uid, 0, "uid inside");
            link.send_number(arena.id())?;
            let _ = link.receive();
            Ok(())
        },
        |peer| {
            map_user(peer, SOMEBODY)?;
            let id = peer.link.receive_number()?;
            ensure_eq!(
                device.open_arena(id, 0)?.info()?.uid,
                SOMEBODY,
                "uid outside"
            );
            let capable = || become_user_with(SOMEBODY_ELSE, CAP_CHECKPOINT_RESTORE);
            try_as(&device, id, capable, Ok(()))?;
            try_as(&device, id, || become_user(SOMEBODY), Ok(()))?;
            try_as(
                &device,
                id,
                || become_user(SOMEBODY_ELSE),
                Err(Errno::EACCES),
            )
        },
    )
}

fn the_uid_is_shown_as_the_callers_user_namespace_sees_it(_: &Options) -> Outcome {
    let device = Device::open()?;
    let roots = device.create("root's", 1)?;
    let (owner, id) = maker(&device, SOMEBODY, 0)?;
    let theirs = device.open_arena(id, 0)?;
    ensure_eq!(theirs.info()?.uid, SOMEBODY, "uid outside");
    with_peer(
        |link| {
            become_user(SOMEBODY)?;
            enter_user_namespace(&link)?;
            ensure_eq!(theirs.info()?.uid, 0, "uid of one who is mapped");
            // Who is not in the namespace is shown as the kernel shows strangers.
            let stranger: u32 = std::fs::read_to_string("/proc/sys/kernel/overflowuid")?
                .trim()
                .parse()?;
            ensure_eq!(roots.info()?.uid, stranger, "uid of one who is not mapped");
            let own = device.list()?;
            ensure_eq!(
                own.iter().map(|entry| entry.uid).collect::<Vec<_>>(),
                vec![0],
                "uids listed"
            );
            Ok(())
        },
        |peer| map_user(peer, SOMEBODY),
    )?;
    owner.finish()
}

fn the_pid_is_shown_as_the_callers_pid_namespace_sees_it(_: &Options) -> Outcome {
    let device = Device::open()?;
    let outer = device.create("outer", 1)?;
    ensure_eq!(outer.info()?.pid, getpid().as_raw(), "pid of one's own");
    with_peer(
        |link| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            // The first child is process 1 of the new namespace.
            in_child(|| {
                ensure_eq!(getpid().as_raw(), 1, "pid inside");
                let inner = device.create("inner", 1)?;
                ensure_eq!(inner.info()?.pid, 1, "pid of one's own, inside");
                ensure_eq!(outer.info()?.pid, 0, "pid of one outside, inside");
                link.send(&inner.id().to_ne_bytes(), &[inner.as_fd()])?;
                link.receive().map(drop)
            })
        },
        |peer| {
            let message = peer.link.receive()?;
            let id = message.number()?;
            let children = std::fs::read_to_string(format!(
                "/proc/{pid}/task/{pid}/children",
                pid = peer.pid()
            ))?;
            let inner_pid: i32 = children.trim().parse()?;
            ensure_eq!(
                device.open_arena(id, 0)?.info()?.pid,
                inner_pid,
                "pid of one inside, outside"
            );
            let listed: Vec<_> = device.list()?.iter().map(|entry| entry.pid).collect();
            ensure_eq!(listed, vec![getpid().as_raw(), inner_pid], "pids listed");
            peer.link.send_number(1)?;
            Ok(())
        },
    )
}
