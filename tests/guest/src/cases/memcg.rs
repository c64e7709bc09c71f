// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory control groups.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use crate::arena::Arena;
use crate::cgroup::Cgroup;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::End;
use crate::process::Peer;
use crate::process::wait_end;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    touched_pages_are_charged_to_the_group_and_given_back,
    a_reservation_does_not_take_from_the_group,
    a_full_group_kills_the_one_who_touches_and_nothing_leaks,
    an_arena_survives_the_death_of_one_whose_group_was_full,
];

const MIB: u64 = 1 << 20;
// What a test process itself may need, with its page tables and the kernel's batches of charges.
const OWN_NEED: u64 = 8 * MIB;
const PAGES: u64 = 64 * MIB / PAGE as u64;

fn touched_pages_are_charged_to_the_group_and_given_back(_: &Options) -> Outcome {
    let cgroup = Cgroup::create("charged", &["memory"])?;
    with_peer(
        |link| {
            cgroup.enter()?;
            let device = Device::open()?;
            let before = cgroup.number("memory.current")?;
            let arena = device.create("charged", PAGES)?;
            let map = arena.map_all()?;
            for page in 0..PAGES as usize {
                map.touch(page, 1);
            }
            let grown = cgroup.number("memory.current")? - before;
            ensure!(
                (60 * MIB..64 * MIB + OWN_NEED).contains(&grown),
                "{grown} bytes charged for 64 MiB of pages"
            );
            drop(map);
            arena.commit()?;
            let mapped = cgroup.number("memory.current")? - before;
            ensure!(
                mapped > 60 * MIB,
                "{mapped} bytes charged when the arena is not mapped"
            );
            drop(arena);
            link.send_number(before)?;
            let _ = link.receive();
            Ok(())
        },
        |peer| {
            let before = peer.link.receive_number()?;
            cgroup.wait_until_below("memory.current", before + OWN_NEED)
        },
    )
}

fn a_reservation_does_not_take_from_the_group(_: &Options) -> Outcome {
    let cgroup = Cgroup::create("reserved", &["memory"])?;
    cgroup.set("memory.max", &(16 * MIB).to_string())?;
    crate::process::in_child(|| {
        cgroup.enter()?;
        let arena = Device::open()?.create("reserved", PAGES)?;
        let before = cgroup.number("memory.current")?;
        ensure_eq!(arena.reserve(PAGES)?, PAGES, "pages charged");
        let grown = cgroup.number("memory.current")?.saturating_sub(before);
        ensure!(
            grown < MIB,
            "{grown} bytes of the group taken by a reservation"
        );
        Ok(())
    })
}

/// A process in a group of 32 MiB that touches 64 MiB of an arena, and how it ended.
///
/// When `keep` is set the arena comes back; the process sends it before it starts.
fn touch_too_much(cgroup: &Cgroup, keep: bool) -> Result<(End, Option<Arena>), Failure> {
    cgroup.set("memory.max", &(32 * MIB).to_string())?;
    let peer = Peer::start(|link| {
        cgroup.enter()?;
        let arena = Device::open()?.create("too much", PAGES)?;
        if keep {
            link.send(&arena.id().to_ne_bytes(), &[arena.as_fd()])?;
        }
        let map = arena.map_all()?;
        for page in 0..PAGES as usize {
            map.touch(page, page as u8);
        }
        Err(Failure::new("64 MiB were touched in a group of 32"))
    })?;
    let arena = match keep {
        true => Some(Device::open()?.open_arena(peer.link.receive_number()?, 0)?),
        false => None,
    };
    Ok((wait_end(peer.pid())?, arena))
}

fn a_full_group_kills_the_one_who_touches_and_nothing_leaks(_: &Options) -> Outcome {
    let cgroup = Cgroup::create("full", &["memory"])?;
    for round in 1..=3 {
        let (end, _) = touch_too_much(&cgroup, false)?;
        ensure_eq!(
            end,
            End::Killed(Signal::SIGKILL),
            "the process, in round {round}"
        );
        let kills = cgroup.counter("memory.events", "oom_kill")?;
        ensure_eq!(kills, round, "kills for want of memory");
        cgroup.wait_until_below("memory.current", OWN_NEED)?;
    }
    Ok(())
}

fn an_arena_survives_the_death_of_one_whose_group_was_full(_: &Options) -> Outcome {
    let cgroup = Cgroup::create("survives", &["memory"])?;
    let (end, arena) = touch_too_much(&cgroup, true)?;
    ensure_eq!(end, End::Killed(Signal::SIGKILL), "the process");
    let arena = arena.ok_or_else(|| Failure::new("no arena came"))?;
    let resident = arena.info()?.resident_pages;
    ensure!(
        (MIB / PAGE as u64..PAGES).contains(&resident),
        "{resident} pages are resident"
    );
    let commit = arena.commit()?;
    // All that the dead one could touch, and at most one that it was about to.
    ensure!(
        (resident - 1..=resident).contains(&commit.changed_pages),
        "{} of {resident} pages committed",
        commit.changed_pages
    );
    for page in arena
        .delta(0)?
        .pages()
        .into_iter()
        .take(commit.changed_pages as usize - 1)
    {
        let byte = arena.pread(page * PAGE as u64, 1)?;
        ensure_eq!(byte, vec![page as u8], "content of page {page}");
    }
    // One outside the group is not bound by its limit.
    let map = arena.map_all()?;
    for page in 0..PAGES as usize {
        map.touch(page, 1);
    }
    ensure_eq!(arena.commit()?.changed_pages, PAGES, "changed pages");
    Ok(())
}
