// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pages that are pinned while an epoch is closed.

use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::errno::Errno;

use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::scratch::DirectFile;
use crate::slow_disk::SlowRead;
use crate::tests;
use crate::userfault::StoppingPage;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_page_pinned_at_a_commit_is_told_by_it_and_by_the_next,
    what_lands_in_a_page_after_the_commit_that_found_it_pinned_is_in_the_next_delta,
    a_pinned_page_that_is_unmapped_meanwhile_is_not_lost,
    an_arena_may_be_freed_while_a_page_of_it_is_pinned,
    a_disk_read_under_way_at_a_commit_is_not_lost,
    a_page_pinned_for_long_is_refused_or_told_by_every_commit,
];

const PINNED: u64 = 3;

/// process_vm_writev to the first bytes of page [`PINNED`], which has pinned
/// the page and stopped there.
struct StoppedWrite {
    source: StoppingPage,
    writer: JoinHandle<Result<(), Errno>>,
}

impl StoppedWrite {
    fn start(map: &Mapping) -> Result<Self, Failure> {
        let source = StoppingPage::new()?;
        let (from, to) = (source.address(), map.at(PINNED as usize * PAGE));
        let writer = std::thread::spawn(move || {
            let local = libc::iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(from),
                iov_len: 8,
            };
            let remote = libc::iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(to),
                iov_len: 8,
            };
            // SAFETY: the target is a part of the arena's mapping, which nobody takes for
            // anything else when it is unmapped meanwhile: the kernel holds the page itself.
            let written =
                unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
            Errno::result(written).map(drop)
        });
        source.wait_for_reader()?;
        Ok(Self { source, writer })
    }

    /// Lets the write land and drop its pin.
    fn finish(self, byte: u8) -> Outcome {
        self.source.fill(&[byte; PAGE])?;
        match self.writer.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::new("the writer panicked")),
        }
    }
}

/// An arena with some committed pages, [`PINNED`] among them; its epoch is 1.
fn arena_with_a_past() -> Result<(Arena, Mapping), Failure> {
    let arena = Device::open()?.create("pinned", 16)?;
    let map = arena.map_all()?;
    for page in 0..8 {
        map.touch(page, 1);
    }
    arena.commit()?;
    Ok((arena, map))
}

fn a_page_pinned_at_a_commit_is_told_by_it_and_by_the_next(_: &Options) -> Outcome {
    let (arena, map) = arena_with_a_past()?;
    let write = StoppedWrite::start(&map)?;
    for epoch in 1..=4 {
        arena.commit()?;
        ensure_eq!(
            arena.delta(epoch)?.pages(),
            vec![PINNED],
            "pinned at commit {}",
            epoch + 1
        );
    }
    write.finish(9)?;
    arena.commit()?;
    ensure_eq!(
        arena.delta(5)?.pages(),
        vec![PINNED],
        "pinned at the commit before"
    );
    ensure_eq!(
        arena.commit()?.changed_pages,
        0,
        "changed pages when all is over"
    );
    Ok(())
}

fn what_lands_in_a_page_after_the_commit_that_found_it_pinned_is_in_the_next_delta(
    _: &Options,
) -> Outcome {
    let (arena, map) = arena_with_a_past()?;
    let write = StoppedWrite::start(&map)?;
    arena.commit()?;
    ensure_eq!(
        arena.pread(PINNED * PAGE as u64, 1)?,
        vec![1],
        "content before it lands"
    );
    write.finish(9)?;
    ensure_eq!(
        arena.pread(PINNED * PAGE as u64, 1)?,
        vec![9],
        "content when it has landed"
    );
    arena.commit()?;
    ensure_eq!(arena.delta(2)?.pages(), vec![PINNED], "delta");
    ensure_eq!(
        arena.commit()?.changed_pages,
        0,
        "changed pages when all is over"
    );
    Ok(())
}

fn a_pinned_page_that_is_unmapped_meanwhile_is_not_lost(_: &Options) -> Outcome {
    let (arena, map) = arena_with_a_past()?;
    let write = StoppedWrite::start(&map)?;
    map.unmap()?;
    arena.commit()?;
    ensure_eq!(arena.delta(1)?.pages(), vec![PINNED], "delta while pinned");
    write.finish(9)?;
    arena.commit()?;
    ensure_eq!(
        arena.delta(2)?.pages(),
        vec![PINNED],
        "delta when it has landed"
    );
    ensure_eq!(arena.map_all()?.get(PINNED as usize * PAGE), 9, "content");
    Ok(())
}

fn an_arena_may_be_freed_while_a_page_of_it_is_pinned(_: &Options) -> Outcome {
    for _ in 0..20 {
        let (arena, map) = arena_with_a_past()?;
        let write = StoppedWrite::start(&map)?;
        drop(map);
        drop(arena);
        ensure_eq!(
            Device::open()?.list()?.len(),
            0,
            "arenas while the page is pinned"
        );
        write.finish(9)?;
    }
    Ok(())
}

// An asynchronous O_DIRECT read from a disk that is held back: it is under way, with its pins, from
// io_submit until the disk is let go.
fn a_disk_read_under_way_at_a_commit_is_not_lost(options: &Options) -> Outcome {
    let file = DirectFile::create(&options.scratch, "slow", &[0x5a; 4 * PAGE])?;
    let (arena, map) = arena_with_a_past()?;
    let mut read = SlowRead::start(&file, map.at(PINNED as usize * PAGE), PAGE)?;
    for epoch in 1..=3 {
        arena.commit()?;
        read.ensure_under_way()?;
        ensure_eq!(
            arena.delta(epoch)?.pages(),
            vec![PINNED],
            "delta of epoch {}",
            epoch + 1
        );
    }
    ensure_eq!(
        arena.pread(PINNED * PAGE as u64, 1)?,
        vec![1],
        "content before it lands"
    );
    read.finish()?;
    ensure_eq!(
        arena.pread(PINNED * PAGE as u64, 1)?,
        vec![0x5a],
        "content when it has landed"
    );
    arena.commit()?;
    ensure_eq!(
        arena.delta(4)?.pages(),
        vec![PINNED],
        "delta when it has landed"
    );
    // The block layer drops the pins when it gets round to it; then it is quiet.
    while arena.commit()?.changed_pages != 0 {
        std::thread::yield_now();
    }
    Ok(())
}

// Buffers registered with io_uring stay pinned, and are written without any fault.
fn a_page_pinned_for_long_is_refused_or_told_by_every_commit(_: &Options) -> Outcome {
    const REGISTER_BUFFERS: u32 = 0;
    // struct io_uring_params of linux/io_uring.h: all zero asks for nothing special.
    let mut parameters = [0_u64; 15];
    // SAFETY: the structure is as long as the kernel's, and ours to be written to.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let ring = Errno::result(ring).map_err(|errno| Failure::skip(format!("io_uring: {errno}")))?;
    // SAFETY: the descriptor is new and ours.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as i32) };
    let (arena, map) = arena_with_a_past()?;
    let buffer = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(map.at(PINNED as usize * PAGE)),
        iov_len: PAGE,
    };
    // SAFETY: the buffer is a page of the mapping; nothing is ever read into it.
    let registered = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_BUFFERS,
            &raw const buffer,
            1,
        )
    });
    match registered {
        Err(errno) => ensure_eq!(errno, Errno::EFAULT, "registering a buffer"),
        Ok(_) => {
            for epoch in 1..=3 {
                arena.commit()?;
                ensure_eq!(arena.delta(epoch)?.pages(), vec![PINNED], "delta");
            }
        }
    }
    Ok(())
}
