// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_INFO and the facts in /proc/PID/fdinfo.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::time::ClockId;
use nix::time::clock_gettime;

use crate::abi;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::device::name_of;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::options::Options;
use crate::process::Peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_new_arena_is_described_as_it_was_asked_for,
    the_private_flag_is_told,
    resident_pages_follow_the_first_access,
    changed_pages_follow_writes_and_commits,
    the_times_are_those_of_the_boot_clock,
    the_creator_is_told_and_zero_when_it_is_gone,
    a_thread_that_creates_is_told_as_its_process,
    fdinfo_has_the_facts,
];

fn boot_ns() -> Result<u64, Failure> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn a_new_arena_is_described_as_it_was_asked_for(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("described", 7)?;
    // Outputs, whatever they hold on the way in.
    let mut info = abi::ckpt_info {
        size: size_of::<abi::ckpt_info>() as u32,
        flags: u32::MAX,
        id: u64::MAX,
        pid: -1,
        name: [0xff; 64],
        ..abi::ckpt_info::ZERO
    };
    ioctl::call(&arena, abi::CKPT_IOC_INFO, &mut info)?;
    ensure_eq!(info.size as usize, size_of::<abi::ckpt_info>(), "size");
    ensure_eq!(info.flags, 0, "flags");
    ensure_eq!(info.id, arena.id(), "id");
    ensure_eq!(info.len_bytes, 7 * PAGE as u64, "len_bytes");
    ensure_eq!(info.epoch, 0, "epoch");
    ensure_eq!(
        (info.resident_pages, info.changed_pages),
        (0, 0),
        "resident and changed pages"
    );
    ensure_eq!(info.committed_ns, 0, "committed_ns");
    ensure_eq!(info.uid, 0, "uid");
    ensure_eq!(info.pid as u32, std::process::id(), "pid");
    ensure_eq!(1_usize << info.page_shift, PAGE, "page size");
    ensure_eq!(name_of(&info.name), "described", "name");
    ensure_eq!(
        info.tracker.count_ones(),
        1,
        "trackers in use, {:#x}",
        info.tracker
    );
    let known = device.version()?.trackers;
    ensure!(
        info.tracker & known != 0,
        "tracker {:#x} of {known:#x}",
        info.tracker
    );
    Ok(())
}

fn the_private_flag_is_told(_: &Options) -> Outcome {
    let mut create = create_request("private", 1);
    create.flags = abi::CKPT_CREATE_PRIVATE;
    let arena = Device::open()?.create_with(&mut create)?;
    ensure_eq!(arena.info()?.flags, abi::CKPT_INFO_PRIVATE, "flags");
    Ok(())
}

fn resident_pages_follow_the_first_access(_: &Options) -> Outcome {
    let arena = Device::open()?.create("resident", 2000)?;
    let map = arena.map_all()?;
    ensure_eq!(arena.info()?.resident_pages, 0, "after mapping");
    map.touch(3, 1);
    ensure_eq!(arena.info()?.resident_pages, 1, "after one write");
    map.touch(3, 2);
    map.set(4 * PAGE - 1, 2);
    ensure_eq!(arena.info()?.resident_pages, 1, "after more writes to it");
    ensure_eq!(map.get(1500 * PAGE), 0, "a page never written");
    ensure_eq!(arena.info()?.resident_pages, 2, "after reading another");
    arena.commit()?;
    drop(map);
    ensure_eq!(arena.info()?.resident_pages, 2, "after commit and munmap");
    Ok(())
}

fn changed_pages_follow_writes_and_commits(_: &Options) -> Outcome {
    let arena = Device::open()?.create("changed", 64)?;
    let map = arena.map_all()?;
    ensure_eq!(map.get(9 * PAGE), 0, "a page never written");
    ensure_eq!(arena.info()?.changed_pages, 0, "after a read");
    for round in 0..3 {
        for page in 0..20 {
            map.touch(page, round);
            let (noted, written) = (arena.info()?.changed_pages, page as u64 + 1);
            // A page that was left open is noted by no write but by the commit. The first time
            // none was.
            let least = if round == 0 { written } else { 0 };
            ensure!(
                (least..=written).contains(&noted),
                "{noted} pages noted of {written} written"
            );
        }
        ensure_eq!(arena.commit()?.changed_pages, 20, "committed");
        ensure_eq!(arena.info()?.changed_pages, 0, "after a commit");
        ensure_eq!(map.get(3 * PAGE), round, "content");
        ensure_eq!(
            arena.info()?.changed_pages,
            0,
            "after reading a page written before"
        );
    }
    Ok(())
}

fn the_times_are_those_of_the_boot_clock(_: &Options) -> Outcome {
    let device = Device::open()?;
    let before = boot_ns()?;
    let arena = device.create("times", 1)?;
    let after = boot_ns()?;
    let created = arena.info()?.created_ns;
    ensure!(
        (before..=after).contains(&created),
        "created_ns {created} not in {before}..={after}"
    );
    for _ in 0..3 {
        let before = boot_ns()?;
        arena.commit()?;
        let after = boot_ns()?;
        let info = arena.info()?;
        ensure!(
            (before..=after).contains(&info.committed_ns),
            "committed_ns {} not in {before}..={after}",
            info.committed_ns
        );
        ensure_eq!(info.created_ns, created, "created_ns");
    }
    Ok(())
}

fn the_creator_is_told_and_zero_when_it_is_gone(_: &Options) -> Outcome {
    let device = Device::open()?;
    let peer = Peer::start(|link| {
        let arena = Device::open()?.create("orphan", 4)?;
        link.send(&arena.id().to_ne_bytes(), &[arena.as_fd()])?;
        // Until it is killed.
        link.receive().map(drop)
    })?;
    let id = peer.link.receive_number()?;
    let arena = device.open_arena(id, 0)?;
    ensure_eq!(arena.info()?.pid, peer.pid().as_raw(), "pid while it lives");
    peer.kill()?;
    ensure_eq!(arena.info()?.pid, 0, "pid when it is gone");
    ensure_eq!(device.list()?[0].pid, 0, "pid in the list when it is gone");
    Ok(())
}

fn a_thread_that_creates_is_told_as_its_process(_: &Options) -> Outcome {
    let device = Device::open()?;
    let thread = std::thread::scope(|scope| {
        scope
            .spawn(|| device.create("threaded", 1))
            .join()
            .map_err(|_| Failure::new("panicked"))
    });
    ensure_eq!(thread??.info()?.pid as u32, std::process::id(), "pid");
    Ok(())
}

fn fdinfo_has_the_facts(_: &Options) -> Outcome {
    let mut create = create_request("facts for people", 5000);
    create.epoch = 70;
    let arena = Device::open()?.create_with(&mut create)?;
    let map = arena.map_all()?;
    for page in 0..33 {
        map.touch(page, 1);
    }
    arena.commit()?;
    // New ones: those that were written before may be left open, and are not noted then.
    for page in 33..54 {
        map.touch(page, 1);
    }
    let path = format!("/proc/self/fdinfo/{}", arena.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let has_number = |number: u64| {
        text.split(|c: char| !c.is_ascii_digit())
            .any(|word| word.parse() == Ok(number))
    };
    ensure!(text.contains("facts for people"), "no name in: {text}");
    for (what, number) in [
        ("id", arena.id()),
        ("epoch", 71),
        ("resident pages", 54),
        ("changed pages", 21),
    ] {
        ensure!(has_number(number), "no {what} {number} in: {text}");
    }
    ensure!(
        has_number(5000) || has_number(5000 * PAGE as u64) || has_number(20_000),
        "no size in: {text}"
    );
    Ok(())
}
