// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control page, and CKPT_IOC_REQUEST.

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::abi;
use crate::arena::Arena;
use crate::consumers::Control;
use crate::consumers::events;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::process::in_child;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    the_control_page_tells_the_last_commit,
    a_request_is_pending_until_the_next_commit,
    requests_before_a_commit_are_one,
    a_read_only_descriptor_sees_the_control_page_and_requests_nothing,
    the_control_page_can_be_read_and_nothing_else,
    the_control_page_is_its_own_and_of_one_page,
    the_control_page_is_there_again_after_it_was_dropped,
    the_control_page_is_not_inherited,
    the_control_page_beside_the_arena_disturbs_no_commit,
    a_poller_is_woken_by_a_request,
    a_request_is_answered_across_processes,
    no_request_is_lost_among_commits,
];

fn arena() -> Result<Arena, Failure> {
    Ok(Device::open()?.create("control", 16)?)
}

fn the_control_page_tells_the_last_commit(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut create = create_request("past", 16);
    create.epoch = 41;
    let arena = device.create_with(&mut create)?;
    let control = Control::map(&arena)?;
    let said = control.read();
    ensure_eq!(said.epoch, 41, "the epoch that the arena began with");
    ensure_eq!(
        (said.pending, said.reserved, said.durable, said.replicated),
        (0, 0, 0, 0),
        "the rest of it"
    );
    for epoch in 42..50 {
        arena.commit()?;
        ensure_eq!(control.read().epoch, epoch, "after a commit");
    }
    Ok(())
}

fn a_request_is_pending_until_the_next_commit(_: &Options) -> Outcome {
    let arena = arena()?;
    let control = Control::map(&arena)?;
    ensure_eq!(events(&arena, 0)?, PollFlags::empty(), "before");
    for epoch in 0..3 {
        ensure_eq!(arena.request()?, epoch, "the last commit");
        ensure_eq!(control.read().pending, 1, "pending");
        ensure_eq!(
            events(&arena, 0)?,
            PollFlags::POLLPRI,
            "while it is pending"
        );
        arena.commit()?;
        ensure_eq!(control.read().pending, 0, "pending after the commit");
        ensure_eq!(events(&arena, 0)?, PollFlags::empty(), "after the commit");
    }
    Ok(())
}

fn requests_before_a_commit_are_one(_: &Options) -> Outcome {
    let arena = arena()?;
    let control = Control::map(&arena)?;
    for _ in 0..5 {
        ensure_eq!(arena.request()?, 0, "the last commit");
    }
    arena.commit()?;
    ensure_eq!(control.read().pending, 0, "pending after the commit");
    Ok(())
}

fn a_read_only_descriptor_sees_the_control_page_and_requests_nothing(_: &Options) -> Outcome {
    let arena = arena()?;
    let reader = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    let control = Control::map(&reader)?;
    ensure_eq!(reader.request(), Err(Errno::EBADF), "a request");
    ensure_eq!(control.read().pending, 0, "pending");
    arena.request()?;
    ensure_eq!(control.read().pending, 1, "pending by another's request");
    Ok(())
}

fn the_control_page_can_be_read_and_nothing_else(_: &Options) -> Outcome {
    let arena = arena()?;
    let pgoff = abi::CKPT_CONTROL_OFFSET / PAGE as u64;
    let map = |protection, flags| Mapping::new(&arena, pgoff, 1, protection, flags).err();
    let both = libc::PROT_READ | libc::PROT_WRITE;
    ensure_eq!(map(both, libc::MAP_SHARED), Some(Errno::EACCES), "writable");
    ensure_eq!(
        map(libc::PROT_READ, libc::MAP_PRIVATE),
        Some(Errno::EINVAL),
        "private"
    );
    ensure_eq!(
        map(both, libc::MAP_PRIVATE),
        Some(Errno::EINVAL),
        "private and writable"
    );
    let control = Control::map(&arena)?;
    ensure_eq!(
        control.mapping().protect(0, 1, both),
        Err(Errno::EACCES),
        "mprotect"
    );
    Ok(())
}

fn the_control_page_is_its_own_and_of_one_page(_: &Options) -> Outcome {
    let arena = arena()?;
    let pgoff = abi::CKPT_CONTROL_OFFSET / PAGE as u64;
    let map = |at, pages| Mapping::new(&arena, at, pages, libc::PROT_READ, libc::MAP_SHARED).err();
    ensure_eq!(map(pgoff, 2), Some(Errno::EINVAL), "two pages");
    ensure_eq!(map(pgoff + 1, 1), Some(Errno::ENXIO), "the page behind it");
    ensure_eq!(map(pgoff - 1, 1), Some(Errno::ENXIO), "the page before it");
    ensure_eq!(
        map(pgoff - 1, 2),
        Some(Errno::ENXIO),
        "from the page before it"
    );
    ensure_eq!(
        arena.pread(abi::CKPT_CONTROL_OFFSET, 16)?,
        Vec::<u8>::new(),
        "pread at its offset"
    );
    Ok(())
}

fn the_control_page_is_there_again_after_it_was_dropped(_: &Options) -> Outcome {
    let arena = arena()?;
    let mut control = Control::map(&arena)?;
    arena.commit()?;
    control.mapping().advise(0, 1, libc::MADV_DONTNEED)?;
    ensure_eq!(control.read().epoch, 1, "after MADV_DONTNEED");
    control = Control::map(&arena)?;
    ensure_eq!(control.read().epoch, 1, "mapped again");
    Ok(())
}

fn the_control_page_is_not_inherited(_: &Options) -> Outcome {
    let arena = arena()?;
    let control = Control::map(&arena)?;
    in_child(|| {
        // What a child can map at the place was not there before.
        let place = std::ptr::with_exposed_provenance_mut(control.mapping().address());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: nothing that is mapped is replaced.
        let there = unsafe { libc::mmap(place, PAGE, libc::PROT_READ, flags, -1, 0) };
        ensure_eq!(there, place, "where the child maps something");
        // The parent's object unmaps it; this process has nothing there.
        Ok(())
    })
}

fn the_control_page_beside_the_arena_disturbs_no_commit(_: &Options) -> Outcome {
    let arena = arena()?;
    let control = Control::map(&arena)?;
    let map = arena.map_all()?;
    for round in 0..40 {
        map.touch(round % 16, round as u8);
        let commit = arena.commit()?;
        ensure_eq!(commit.changed_pages, 1, "changed pages in round {round}");
        ensure_eq!(control.read().epoch, commit.epoch, "epoch");
    }
    // Tracking goes on by reading the page tables of the one process that maps the arena.
    ensure!(
        arena.stats()?.direct_harvests > 0,
        "no chunk was harvested directly"
    );
    Ok(())
}

fn a_poller_is_woken_by_a_request(_: &Options) -> Outcome {
    let arena = arena()?;
    with_peer(
        |link| {
            link.send_number(0)?;
            ensure_eq!(
                events(&arena, 30_000)?,
                PollFlags::POLLPRI,
                "what woke the poller"
            );
            Ok(())
        },
        |peer| {
            peer.link.receive_number()?;
            // Whether it waits already or not: it is told.
            arena.request()?;
            Ok(())
        },
    )
}

fn a_request_is_answered_across_processes(_: &Options) -> Outcome {
    let arena = arena()?;
    with_peer(
        |link| {
            let control = Control::map(&arena)?;
            let map = arena.map_all()?;
            link.send_number(0)?;
            for round in 0..50_u8 {
                while control.read().pending == 0 {
                    std::hint::spin_loop();
                }
                map.touch(3, round + 1);
                arena.commit()?;
            }
            Ok(())
        },
        |peer| {
            peer.link.receive_number()?;
            let other = Device::open()?.open_arena(arena.id(), 0)?;
            for round in 0..50_u8 {
                let after = other.request()?;
                let level = abi::CKPT_LEVEL_COMMITTED;
                let epoch = other.wait(after + 1, level, abi::CKPT_WAIT_FOREVER)?;
                ensure!(epoch > after, "epoch {epoch} answers one after {after}");
                ensure_eq!(
                    other.pread(3 * PAGE as u64, 1)?,
                    vec![round + 1],
                    "what was committed"
                );
            }
            Ok(())
        },
    )
}

// A request that a commit takes away unanswered would leave the requester waiting for ever.
fn no_request_is_lost_among_commits(_: &Options) -> Outcome {
    let arena = arena()?;
    with_peer(
        |link| {
            let control = Control::map(&arena)?;
            link.send_number(0)?;
            // Until the requester is gone: commits on its own, and such as are asked for.
            let mut on_its_own = 0;
            while events(&link, 0)?.is_empty() {
                if control.read().pending != 0 || on_its_own % 3 == 0 {
                    arena.commit()?;
                }
                on_its_own += 1;
            }
            Ok(())
        },
        |peer| {
            peer.link.receive_number()?;
            for _ in 0..3_000 {
                let after = arena.request()?;
                let level = abi::CKPT_LEVEL_COMMITTED;
                arena.wait(after + 1, level, 20_000_000_000)?;
            }
            Ok(())
        },
    )
}
