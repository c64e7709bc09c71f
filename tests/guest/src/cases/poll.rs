// SPDX-License-Identifier: Apache-2.0 OR MIT
//! poll() and epoll on an arena's descriptor.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::create_request;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_new_descriptor_has_nothing_to_tell,
    a_commit_elsewhere_is_told_until_it_was_heard_of,
    each_call_that_names_the_epoch_tells_it,
    calls_that_do_not_name_the_epoch_do_not_tell_it,
    a_commit_of_ones_own_is_known,
    each_descriptor_has_its_own_news,
    a_waiting_poller_is_woken_by_a_commit,
    epoll_tells_of_every_commit_on_the_edge,
    the_last_of_many_commits_is_never_missed,
];

fn readable(fd: BorrowedFd<'_>) -> Result<bool, Failure> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    ensure_eq!(
        events - PollFlags::POLLIN,
        PollFlags::empty(),
        "other events"
    );
    Ok(events.contains(PollFlags::POLLIN))
}

/// An arena and a second descriptor of it.
fn two_descriptors() -> Result<(Arena, Arena), Failure> {
    let device = Device::open()?;
    let arena = device.create("poll", 8)?;
    let watcher = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    Ok((arena, watcher))
}

fn a_new_descriptor_has_nothing_to_tell(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut create = create_request("past", 1);
    create.epoch = 5;
    let arena = device.create_with(&mut create)?;
    ensure_eq!(readable(arena.as_fd())?, false, "after CREATE with a past");
    arena.commit()?;
    // OPEN told of all commits before it. The library asks INFO at once, so the raw call is made.
    let mut open = abi::ckpt_open {
        size: size_of::<abi::ckpt_open>() as u32,
        id: arena.id(),
        ..abi::ckpt_open::ZERO
    };
    crate::ioctl::call(&device, abi::CKPT_IOC_OPEN, &mut open)?;
    // SAFETY: the call succeeded, so the descriptor is open; it stays so until the process ends.
    let opened = unsafe { BorrowedFd::borrow_raw(open.fd) };
    ensure_eq!(readable(opened)?, false, "after OPEN");
    arena.commit()?;
    ensure_eq!(readable(opened)?, true, "after a commit");
    Ok(())
}

fn a_commit_elsewhere_is_told_until_it_was_heard_of(_: &Options) -> Outcome {
    let (arena, watcher) = two_descriptors()?;
    for _ in 0..3 {
        ensure_eq!(readable(watcher.as_fd())?, false, "before a commit");
        arena.commit()?;
        arena.commit()?;
        for _ in 0..3 {
            ensure_eq!(readable(watcher.as_fd())?, true, "until it was heard of");
        }
        watcher.info()?;
    }
    Ok(())
}

fn each_call_that_names_the_epoch_tells_it(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("poll", 8)?;
    let other = device.open_arena(arena.id(), 0)?;
    for name in ["INFO", "DELTA", "COMMIT"] {
        arena.commit()?;
        ensure_eq!(readable(other.as_fd())?, true, "before {name}");
        match name {
            "INFO" => other.info().map(drop)?,
            "DELTA" => other.delta(0).map(drop)?,
            _ => other.commit().map(drop)?,
        }
        ensure_eq!(readable(other.as_fd())?, false, "after {name}");
    }
    Ok(())
}

fn calls_that_do_not_name_the_epoch_do_not_tell_it(_: &Options) -> Outcome {
    let (arena, watcher) = two_descriptors()?;
    arena.commit()?;
    watcher.stats()?;
    ensure_eq!(readable(watcher.as_fd())?, true, "after STATS");
    watcher.pread(0, 10)?;
    ensure_eq!(readable(watcher.as_fd())?, true, "after pread");
    Device::open()?.list()?;
    ensure_eq!(readable(watcher.as_fd())?, true, "after LIST");
    arena.info()?;
    ensure_eq!(
        readable(watcher.as_fd())?,
        true,
        "after INFO on another descriptor"
    );
    Ok(())
}

fn a_commit_of_ones_own_is_known(_: &Options) -> Outcome {
    let (arena, _) = two_descriptors()?;
    for _ in 0..3 {
        arena.commit()?;
        ensure_eq!(
            readable(arena.as_fd())?,
            false,
            "after COMMIT on the same descriptor"
        );
    }
    Ok(())
}

fn each_descriptor_has_its_own_news(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("poll", 8)?;
    let one = device.open_arena(arena.id(), 0)?;
    let other = device.open_arena(arena.id(), 0)?;
    arena.commit()?;
    one.info()?;
    ensure_eq!(readable(one.as_fd())?, false, "the one that was told");
    ensure_eq!(readable(other.as_fd())?, true, "the one that was not");
    // A duplicate is the same descriptor as far as the news goes.
    let duplicate = other.as_fd().try_clone_to_owned()?;
    ensure_eq!(readable(duplicate.as_fd())?, true, "its duplicate");
    other.info()?;
    ensure_eq!(
        readable(duplicate.as_fd())?,
        false,
        "its duplicate when it was told"
    );
    Ok(())
}

fn a_waiting_poller_is_woken_by_a_commit(_: &Options) -> Outcome {
    let (arena, watcher) = two_descriptors()?;
    with_peer(
        |link| {
            for _ in 0..200 {
                // Tells that it is about to wait; the commit may come before or after it does.
                link.send_number(1)?;
                let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut fds, PollTimeout::from(20_000_u16))?;
                ensure_eq!(ready, 1, "descriptors ready within 20 s");
                watcher.info()?;
            }
            Ok(())
        },
        |peer| {
            for round in 0..200 {
                peer.link.receive_number()?;
                if round % 2 == 0 {
                    wait_until_asleep(peer.pid().as_raw())?;
                }
                arena.commit()?;
            }
            Ok(())
        },
    )
}

// A process that waits in poll() is asleep, and this one does nothing else that sleeps.
fn wait_until_asleep(pid: i32) -> Outcome {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        if stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('S'))
        {
            return Ok(());
        }
        std::thread::yield_now();
    }
}

fn epoll_tells_of_every_commit_on_the_edge(_: &Options) -> Outcome {
    let (arena, watcher) = two_descriptors()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll.add(&watcher, EpollEvent::new(flags, 7))?;
    let mut events = [EpollEvent::empty(); 4];
    ensure_eq!(
        epoll.wait(&mut events, EpollTimeout::ZERO)?,
        0,
        "events before a commit"
    );
    for _ in 0..5 {
        arena.commit()?;
        ensure_eq!(
            epoll.wait(&mut events, EpollTimeout::ZERO)?,
            1,
            "events after a commit"
        );
        ensure_eq!(events[0].data(), 7, "which");
        ensure_eq!(
            epoll.wait(&mut events, EpollTimeout::ZERO)?,
            0,
            "events without another"
        );
    }
    Ok(())
}

// However poll and the calls that tell interleave with commits of another process: once the
// watcher has been told everything, it knows the last one.
fn the_last_of_many_commits_is_never_missed(_: &Options) -> Outcome {
    const COMMITS: u64 = 20_000;
    let (arena, watcher) = two_descriptors()?;
    with_peer(
        |link| {
            let raw = watcher.as_fd().as_raw_fd();
            let mut told = 0;
            while told < COMMITS {
                let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut fds, PollTimeout::from(20_000_u16))?;
                ensure_eq!(ready, 1, "descriptor {raw} ready within 20 s, told {told}");
                told = watcher.info()?.epoch;
            }
            ensure_eq!(readable(watcher.as_fd())?, false, "when all is told");
            link.send_number(told)?;
            Ok(())
        },
        |peer| {
            for _ in 0..COMMITS {
                arena.commit()?;
            }
            ensure_eq!(peer.link.receive_number()?, COMMITS, "told");
            Ok(())
        },
    )
}
