// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_CREATE.

use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::abi;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::device::name_field;
use crate::device::name_of;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    sizes_that_are_no_multiple_of_a_page_or_out_of_range_are_refused,
    a_name_has_1_to_63_printable_characters,
    what_follows_the_end_of_a_name_does_not_matter,
    names_need_not_be_unique,
    an_id_is_never_used_again,
    the_descriptor_is_close_on_exec_readable_and_writable,
    the_first_commit_follows_the_given_epoch,
    an_epoch_above_its_limit_is_refused,
    epochs_end_at_their_limit_and_not_before,
    a_refused_create_leaves_nothing,
];

fn sizes_that_are_no_multiple_of_a_page_or_out_of_range_are_refused(_: &Options) -> Outcome {
    let device = Device::open()?;
    let page = PAGE as u64;
    let max = abi::CKPT_ARENA_MAX_BYTES;
    let wrong = [
        0,
        1,
        page - 1,
        page + 1,
        3 * page / 2,
        max - 1,
        max + 1,
        max + page,
        2 * max,
        1 << 63,
        u64::MAX,
        u64::MAX - page + 1,
    ];
    for len_bytes in wrong {
        let mut create = create_request("size", 1);
        create.len_bytes = len_bytes;
        ensure_eq!(
            device.create_with(&mut create).err(),
            Some(Errno::EINVAL),
            "len_bytes {len_bytes:#x}"
        );
    }
    for len_pages in [1, 2, 511, 512, 513, max / page - 1, max / page] {
        let arena = device.create("size", len_pages)?;
        ensure_eq!(arena.info()?.len_bytes, len_pages * page, "len_bytes");
    }
    Ok(())
}

fn a_name_has_1_to_63_printable_characters(_: &Options) -> Outcome {
    let device = Device::open()?;
    let attempt = |field: [u8; 64]| {
        let mut create = create_request("x", 1);
        create.name = field;
        device.create_with(&mut create)
    };
    let longest = [b'n'; 63];
    let printable: Vec<u8> = (b' '..=b'~').collect();
    for good in [
        b"a".as_slice(),
        &longest,
        &printable[..48],
        &printable[48..],
    ] {
        let info = attempt(name_field(good))?.info()?;
        ensure_eq!(name_of(&info.name).as_bytes(), good, "name");
        ensure!(info.name.contains(&0), "no NUL in the name that came back");
    }
    ensure_eq!(attempt([0; 64]).err(), Some(Errno::EINVAL), "empty name");
    ensure_eq!(
        attempt([b'n'; 64]).err(),
        Some(Errno::EINVAL),
        "name without NUL"
    );
    for byte in (1..b' ').chain(0x7f..=0xff) {
        for name in [&[byte][..], &[b'a', byte], &[byte, b'a']] {
            ensure_eq!(
                attempt(name_field(name)).err(),
                Some(Errno::EINVAL),
                "name {name:x?}"
            );
        }
    }
    Ok(())
}

fn what_follows_the_end_of_a_name_does_not_matter(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut create = create_request("tail", 1);
    create.name[5..].fill(0xff);
    let info = device.create_with(&mut create)?.info()?;
    ensure_eq!(name_of(&info.name), "tail", "name");
    Ok(())
}

fn names_need_not_be_unique(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (one, other) = (device.create("twin", 1)?, device.create("twin", 1)?);
    ensure!(one.id() != other.id(), "both have id {}", one.id());
    Ok(())
}

fn an_id_is_never_used_again(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut seen = Vec::new();
    for _ in 0..60 {
        let arena = device.create("id", 1)?;
        ensure!(
            !seen.contains(&arena.id()),
            "id {} again after {seen:?}",
            arena.id()
        );
        ensure_eq!(arena.info()?.id, arena.id(), "id of INFO");
        seen.push(arena.id());
    }
    Ok(())
}

fn the_descriptor_is_close_on_exec_readable_and_writable(_: &Options) -> Outcome {
    let arena = Device::open()?.create("flags", 1)?;
    let fd = std::os::fd::AsFd::as_fd(&arena).as_raw_fd();
    // SAFETY: asks for two flag words of a descriptor.
    let (descriptor, file) = unsafe {
        (
            libc::fcntl(fd, libc::F_GETFD),
            libc::fcntl(fd, libc::F_GETFL),
        )
    };
    ensure_eq!(descriptor, libc::FD_CLOEXEC, "descriptor flags");
    ensure_eq!(file & libc::O_ACCMODE, libc::O_RDWR, "access mode");
    Ok(())
}

fn the_first_commit_follows_the_given_epoch(_: &Options) -> Outcome {
    let device = Device::open()?;
    for epoch in [0, 1, 41, 1 << 32, (1 << 63) - 2] {
        let mut create = create_request("epoch", 1);
        create.epoch = epoch;
        let arena = device.create_with(&mut create)?;
        ensure_eq!(arena.info()?.epoch, epoch, "epoch before any commit");
        ensure_eq!(
            arena.info()?.committed_ns,
            0,
            "committed_ns before any commit"
        );
        arena.map_all()?.touch(0, 1);
        ensure_eq!(arena.commit()?.epoch, epoch + 1, "first commit");
        ensure_eq!(arena.info()?.epoch, epoch + 1, "epoch after it");
        let delta = arena.delta(epoch)?;
        ensure_eq!(delta.epoch, epoch + 1, "epoch of the delta");
        ensure_eq!(delta.ranges, vec![(0, 1)], "delta since {epoch}");
        ensure_eq!(arena.delta(0)?.ranges, vec![(0, 1)], "delta since 0");
        ensure_eq!(
            arena.delta(epoch + 1)?.ranges,
            vec![],
            "delta since the last"
        );
    }
    Ok(())
}

fn an_epoch_above_its_limit_is_refused(_: &Options) -> Outcome {
    let device = Device::open()?;
    for epoch in [1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX] {
        let mut create = create_request("epoch", 1);
        create.epoch = epoch;
        ensure_eq!(
            device.create_with(&mut create).err(),
            Some(Errno::EINVAL),
            "epoch {epoch:#x}"
        );
    }
    Ok(())
}

// The header gives 2^63 - 1 as the largest epoch that CREATE takes, and EOVERFLOW for a commit
// when no epoch is left; with nothing in between said, the last epoch of all is that one.
fn epochs_end_at_their_limit_and_not_before(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut create = create_request("last", 4);
    create.epoch = (1 << 63) - 2;
    let arena = device.create_with(&mut create)?;
    let map = arena.map_all()?;
    map.touch(0, 1);
    ensure_eq!(arena.commit()?.epoch, (1 << 63) - 1, "the last epoch");
    map.touch(1, 1);
    ensure_eq!(
        arena.commit().err(),
        Some(Errno::EOVERFLOW),
        "a commit beyond it"
    );
    let info = arena.info()?;
    ensure_eq!(info.epoch, (1 << 63) - 1, "epoch after the refused commit");
    ensure_eq!(info.changed_pages, 1, "pages still to be committed");
    ensure_eq!(arena.delta((1 << 63) - 2)?.ranges, vec![(0, 1)], "delta");
    map.touch(2, 7);
    ensure_eq!((map.get(0), map.get(2 * PAGE)), (1, 7), "content");

    create.epoch = (1 << 63) - 1;
    let full = device.create_with(&mut create)?;
    ensure_eq!(
        full.commit().err(),
        Some(Errno::EOVERFLOW),
        "a commit of an arena made at the last epoch"
    );
    Ok(())
}

fn a_refused_create_leaves_nothing(_: &Options) -> Outcome {
    let device = Device::open()?;
    let fds = open_descriptors()?;
    for _ in 0..20 {
        let mut create = create_request("refused", 1);
        create.reserved = 1;
        ensure_eq!(
            device.create_with(&mut create).err(),
            Some(Errno::EINVAL),
            "reserved"
        );
    }
    ensure_eq!(device.list()?.len(), 0, "arenas");
    ensure_eq!(open_descriptors()?, fds, "open descriptors");
    Ok(())
}

fn open_descriptors() -> Result<usize, std::io::Error> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
