// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_OPEN, apart from who may: that is in `access`.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::abi;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    another_descriptor_of_the_same_arena_sees_the_same_pages,
    an_unknown_id_is_enoent,
    an_arena_that_nobody_holds_any_more_is_enoent,
    an_arena_that_is_only_mapped_can_still_be_found_or_is_enoent,
    the_new_descriptor_is_close_on_exec,
    a_read_only_descriptor_asks_and_reads,
    a_read_only_descriptor_cannot_map_commit_or_reserve,
    a_read_only_descriptor_does_not_become_writable_through_proc,
    nothing_changes_the_size_of_an_arena,
];

fn another_descriptor_of_the_same_arena_sees_the_same_pages(_: &Options) -> Outcome {
    let device = Device::open()?;
    let first = device.create("shared", 8)?;
    let second = device.open_arena(first.id(), 0)?;
    first.map_all()?.touch(5, 42);
    ensure_eq!(
        second.map_all()?.get(5 * PAGE),
        42,
        "byte through the other"
    );
    ensure_eq!(second.info()?.id, first.id(), "id");
    ensure_eq!(second.commit()?.epoch, 1, "commit through the second");
    ensure_eq!(first.delta(0)?.pages(), vec![5], "delta through the first");
    drop(first);
    ensure_eq!(
        second.map_all()?.get(5 * PAGE),
        42,
        "byte when the first is closed"
    );
    Ok(())
}

fn an_unknown_id_is_enoent(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("known", 1)?;
    for id in [
        0,
        arena.id() + 1,
        arena.id() + 1000,
        1 << 32,
        u64::MAX >> 1,
        u64::MAX,
    ] {
        let result = device.open_arena(id, 0);
        ensure_eq!(result.err(), Some(Errno::ENOENT), "id {id:#x}");
    }
    Ok(())
}

fn an_arena_that_nobody_holds_any_more_is_enoent(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("gone", 1)?;
    let id = arena.id();
    let second = device.open_arena(id, abi::CKPT_OPEN_RDONLY)?;
    drop(arena);
    drop(device.open_arena(id, 0)?);
    drop(second);
    ensure_eq!(
        device.open_arena(id, 0).err(),
        Some(Errno::ENOENT),
        "after the last close"
    );
    Ok(())
}

// "None that is still open anywhere": a mapping keeps the arena, and whether it counts as open is
// left to the module. What it must not do is hand out another arena or a dead one.
fn an_arena_that_is_only_mapped_can_still_be_found_or_is_enoent(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("mapped", 4)?;
    let id = arena.id();
    let map = arena.map_all()?;
    map.touch(1, 77);
    drop(arena);
    ensure_eq!(map.get(PAGE), 77, "content behind the mapping");
    map.touch(2, 78);
    match device.open_arena(id, 0) {
        Ok(again) => {
            ensure_eq!(
                again.commit()?.changed_pages,
                2,
                "pages written while only mapped"
            );
            ensure_eq!(again.pread(2 * PAGE as u64, 1)?, vec![78], "content");
        }
        Err(errno) => ensure_eq!(errno, Errno::ENOENT, "OPEN of an arena that is only mapped"),
    }
    drop(map);
    ensure_eq!(
        device.open_arena(id, 0).err(),
        Some(Errno::ENOENT),
        "after the last mapping"
    );
    Ok(())
}

fn the_new_descriptor_is_close_on_exec(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("flags", 1)?;
    for flags in [0, abi::CKPT_OPEN_RDONLY] {
        let opened = device.open_arena(arena.id(), flags)?;
        let fd = opened.as_fd().as_raw_fd();
        // SAFETY: asks for a flag word of a descriptor.
        let descriptor = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        ensure_eq!(
            descriptor,
            libc::FD_CLOEXEC,
            "descriptor flags, open flags {flags}"
        );
    }
    Ok(())
}

fn a_read_only_descriptor_asks_and_reads(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("watched", 8)?;
    let watcher = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    arena.map_all()?.touch(2, 9);
    arena.commit()?;
    ensure_eq!(watcher.info()?.epoch, 1, "INFO");
    ensure_eq!(watcher.delta(0)?.pages(), vec![2], "DELTA");
    ensure_eq!(watcher.stats()?.commits, 1, "STATS");
    ensure_eq!(watcher.pread(2 * PAGE as u64, 1)?, vec![9], "pread");
    Ok(())
}

fn a_read_only_descriptor_cannot_map_commit_or_reserve(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("watched", 8)?;
    let watcher = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    for protection in [
        libc::PROT_READ,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_NONE,
    ] {
        let map = Mapping::new(&watcher, 0, 8, protection, libc::MAP_SHARED);
        ensure_eq!(
            map.err(),
            Some(Errno::EACCES),
            "mmap with protection {protection}"
        );
    }
    let private = Mapping::new(&watcher, 0, 8, libc::PROT_READ, libc::MAP_PRIVATE);
    ensure!(private.is_err(), "a private mapping was made");
    ensure_eq!(watcher.commit().err(), Some(Errno::EBADF), "COMMIT");
    ensure_eq!(watcher.reserve(1).err(), Some(Errno::EBADF), "RESERVE");
    ensure_eq!(arena.info()?.epoch, 0, "epoch afterwards");
    Ok(())
}

fn a_read_only_descriptor_does_not_become_writable_through_proc(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("watched", 8)?;
    let watcher = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    let path = format!("/proc/self/fd/{}", watcher.as_fd().as_raw_fd());
    if let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) {
        let map = Mapping::new(
            &file,
            0,
            8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        );
        ensure!(map.is_err(), "opening {path} again gave a writable mapping");
    }
    Ok(())
}

fn nothing_changes_the_size_of_an_arena(_: &Options) -> Outcome {
    let arena = Device::open()?.create("fixed", 8)?;
    arena.map_all()?.touch(7, 3);
    let fd = arena.as_fd().as_raw_fd();
    for len in [0, PAGE as i64, 1 << 20] {
        // SAFETY: changes a file's size, or not.
        let result = Errno::result(unsafe { libc::ftruncate(fd, len) });
        ensure!(result.is_err(), "ftruncate to {len} was done");
    }
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    for mode in [
        0,
        hole,
        libc::FALLOC_FL_ZERO_RANGE,
        libc::FALLOC_FL_COLLAPSE_RANGE,
    ] {
        // SAFETY: changes a file's pages, or not.
        let result = Errno::result(unsafe { libc::fallocate(fd, mode, 0, 8 * PAGE as i64) });
        ensure!(result.is_err(), "fallocate with mode {mode} was done");
    }
    ensure_eq!(arena.info()?.len_bytes, 8 * PAGE as u64, "size");
    ensure_eq!(arena.pread(7 * PAGE as u64, 1)?, vec![3], "content");
    Ok(())
}
