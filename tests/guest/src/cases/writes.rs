// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every way in which a page can be written is noted.
//!
//! Each claim is tried in three states of the page: never touched, read only so
//! far, and written in an epoch that is closed.

use std::fs::File;
use std::io::IoSlice;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use nix::sys::ptrace;
use nix::sys::uio::RemoteIoVec;
use nix::sys::uio::process_vm_writev;
use nix::sys::wait::waitpid;

use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::pipe::pipe;
use crate::process::End;
use crate::process::Peer;
use crate::process::end_of;
use crate::runner::Test;
use crate::scratch::DirectFile;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_write_before_munmap_is_in_the_next_delta,
    a_write_before_dontneed_is_in_the_next_delta,
    a_write_before_an_mprotect_is_in_the_next_delta,
    a_write_after_a_round_trip_of_mprotect_is_in_the_next_delta,
    a_write_before_an_mremap_is_in_the_next_delta,
    a_write_after_an_mremap_is_in_the_next_delta,
    a_write_of_a_process_that_ends_is_in_the_next_delta,
    a_write_of_a_process_that_is_killed_is_in_the_next_delta,
    a_read_from_a_file_into_the_arena_is_in_the_next_delta,
    a_read_from_a_pipe_into_the_arena_is_in_the_next_delta,
    a_direct_read_into_the_arena_is_in_the_next_delta,
    a_process_vm_writev_is_in_the_next_delta,
    a_poke_of_a_debugger_is_in_the_next_delta,
    a_write_through_proc_mem_is_in_the_next_delta,
    a_write_to_a_locked_page_is_in_the_next_delta,
    a_store_across_two_pages_is_in_the_next_delta_twice,
];

/// Pages of an arena of these claims.
pub const PAGES: u64 = 1024;
/// The pages written; the last of a chunk and its neighbour are among them.
pub const TARGETS: [u64; 4] = [3, 511, 512, 1000];

/// A page's past, before the write that is tried.
#[derive(Clone, Copy, Debug)]
enum Past {
    NeverTouched,
    Read,
    Written,
    WrittenAndRead,
}

/// Tries `write` on arenas whose pages have every kind of past.
///
/// `write` gets the arena, a mapping of all of it, and the value to write to
/// the first byte of each page of [`TARGETS`], and returns the mapping if it
/// still has it.
fn each_past(write: impl Fn(&Arena, Mapping, u8) -> Result<Option<Mapping>, Failure>) -> Outcome {
    for past in [
        Past::NeverTouched,
        Past::Read,
        Past::Written,
        Past::WrittenAndRead,
    ] {
        try_past(past, &write).map_err(|failure| failure.within(format!("{past:?}")))?;
    }
    Ok(())
}

fn try_past(
    past: Past,
    write: &impl Fn(&Arena, Mapping, u8) -> Result<Option<Mapping>, Failure>,
) -> Outcome {
    let arena = Device::open()?.create("writes", PAGES)?;
    let map = arena.map_all()?;
    for page in TARGETS.map(|page| page as usize) {
        if matches!(past, Past::Written | Past::WrittenAndRead) {
            map.touch(page, 1);
        }
    }
    arena.commit()?;
    for page in TARGETS.map(|page| page as usize) {
        if matches!(past, Past::Read | Past::WrittenAndRead) {
            map.get(page * PAGE);
        }
    }
    let mut kept = Some(map);
    for value in [100_u8, 101] {
        let map = match kept.take() {
            Some(map) => map,
            None => arena.map_all()?,
        };
        let before = arena.info()?.epoch;
        kept = write(&arena, map, value)?;
        let commit = arena.commit()?;
        let delta = arena.delta(before)?;
        ensure_eq!(
            delta.pages(),
            TARGETS.to_vec(),
            "delta after the write of {value}"
        );
        ensure_eq!(commit.changed_pages, TARGETS.len() as u64, "changed pages");
        for page in TARGETS {
            let byte = arena.pread(page * PAGE as u64, 1)?;
            ensure_eq!(byte, vec![value], "first byte of page {page}");
        }
        // What is left of the mapping must not report it once more.
        if value == 101 {
            kept = None;
        }
        ensure_eq!(
            arena.commit()?.changed_pages,
            0,
            "changed pages of an idle epoch"
        );
    }
    drop(kept);
    ensure_eq!(
        arena.commit()?.changed_pages,
        0,
        "changed pages after munmap"
    );
    Ok(())
}

/// Stores a value to the first byte of each page of [`TARGETS`].
pub fn store(map: &Mapping, value: u8) {
    for page in TARGETS {
        map.touch(page as usize, value);
    }
}

fn a_write_before_munmap_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, map, value| {
        store(&map, value);
        map.unmap()?;
        Ok(None)
    })
}

fn a_write_before_dontneed_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, map, value| {
        store(&map, value);
        map.advise(0, PAGES as usize, libc::MADV_DONTNEED)?;
        for page in TARGETS {
            ensure_eq!(
                map.get(page as usize * PAGE),
                value,
                "byte after MADV_DONTNEED"
            );
        }
        Ok(Some(map))
    })
}

fn a_write_before_an_mprotect_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, map, value| {
        map.protect(0, PAGES as usize, libc::PROT_READ | libc::PROT_WRITE)?;
        store(&map, value);
        map.protect(0, PAGES as usize, libc::PROT_READ)?;
        Ok(Some(map))
    })
}

// mprotect makes dirty entries writable again, without a fault: a tracker that leaves them dirty
// misses the next write.
fn a_write_after_a_round_trip_of_mprotect_is_in_the_next_delta(_: &Options) -> Outcome {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    each_past(|arena, map, value| {
        for protection in [libc::PROT_READ, read_write, libc::PROT_NONE, read_write] {
            map.protect(0, PAGES as usize, protection)?;
        }
        store(&map, value);
        for protection in [libc::PROT_READ, read_write] {
            map.protect(0, PAGES as usize, protection)?;
        }
        ensure_eq!(
            arena.info()?.changed_pages,
            TARGETS.len() as u64,
            "changed pages"
        );
        Ok(Some(map))
    })?;
    // The same with the round trip across the commit.
    let arena = Device::open()?.create("round trip", PAGES)?;
    let map = arena.map_all()?;
    for epoch in 0..4 {
        store(&map, epoch as u8);
        map.protect(0, PAGES as usize, libc::PROT_READ)?;
        arena.commit()?;
        map.protect(0, PAGES as usize, read_write)?;
        ensure_eq!(arena.delta(2 * epoch)?.pages(), TARGETS.to_vec(), "delta");
        store(&map, 50);
        arena.commit()?;
        ensure_eq!(
            arena.delta(2 * epoch + 1)?.pages(),
            TARGETS.to_vec(),
            "delta across a commit"
        );
    }
    Ok(())
}

fn a_write_before_an_mremap_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, mut map, value| {
        store(&map, value);
        map.move_elsewhere()?;
        Ok(Some(map))
    })
}

fn a_write_after_an_mremap_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, mut map, value| {
        // Once with other bytes, so that entries are moved that are open already.
        store(&map, 3);
        map.move_elsewhere()?;
        store(&map, value);
        Ok(Some(map))
    })
}

fn a_write_of_a_process_that_ends_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|arena, map, value| {
        let end = end_of(|| {
            if let Ok(map) = arena.map_all() {
                store(&map, value);
                // Ends without munmap.
                std::mem::forget(map);
            }
        })?;
        ensure_eq!(end, End::Exited(0), "the process");
        Ok(Some(map))
    })
}

fn a_write_of_a_process_that_is_killed_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|arena, map, value| {
        let peer = Peer::start(|link| {
            let map = arena.map_all()?;
            store(&map, value);
            link.send_number(1)?;
            link.receive().map(drop)
        })?;
        peer.link.receive_number()?;
        peer.kill()?;
        Ok(Some(map))
    })
}

/// read(2) of one byte to the start of each target page.
fn read_into(map: &Mapping, file: &impl AsRawFd) -> Outcome {
    for page in TARGETS {
        let target = std::ptr::with_exposed_provenance_mut(map.at(page as usize * PAGE));
        // SAFETY: the target is a part of the mapping.
        let read = unsafe { libc::read(file.as_raw_fd(), target, 1) };
        ensure_eq!(Errno::result(read)?, 1, "bytes read");
    }
    Ok(())
}

fn a_read_from_a_file_into_the_arena_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, map, value| {
        let file = File::from(memfd_create("file", MFdFlags::MFD_CLOEXEC)?);
        file.write_all_at(&[value; 16], 0)?;
        read_into(&map, &file)?;
        Ok(Some(map))
    })
}

fn a_read_from_a_pipe_into_the_arena_is_in_the_next_delta(_: &Options) -> Outcome {
    let (reader, writer) = pipe()?;
    each_past(|_, map, value| {
        (&writer).write_all(&[value; TARGETS.len()])?;
        read_into(&map, &reader)?;
        Ok(Some(map))
    })
}

fn a_direct_read_into_the_arena_is_in_the_next_delta(options: &Options) -> Outcome {
    let content: Vec<u8> = (0..256).flat_map(|value| [value as u8; PAGE]).collect();
    let file = DirectFile::create(&options.scratch, "direct", &content)?;
    // The kernel may drop the pins of a finished read a moment after read(2) returned; until then
    // a page is told once more, as every page that is pinned at a commit. So what may be told
    // again is not looked at here.
    let arena = Device::open()?.create("direct", PAGES)?;
    let map = arena.map_all()?;
    for (epoch, value) in (1..=6_u64).zip(100_u8..) {
        for page in TARGETS {
            let target = std::ptr::with_exposed_provenance_mut(map.at(page as usize * PAGE));
            let offset = i64::from(value) * PAGE as i64;
            let fd = std::os::fd::AsFd::as_fd(&file).as_raw_fd();
            // SAFETY: the target is a page of the mapping.
            let read = unsafe { libc::pread(fd, target, PAGE, offset) };
            ensure_eq!(Errno::result(read)?, PAGE as isize, "bytes read");
        }
        arena.commit()?;
        let delta = arena.delta(epoch - 1)?;
        for page in TARGETS {
            ensure!(
                delta.has(page),
                "page {page} is not in the delta of epoch {epoch}"
            );
            ensure_eq!(
                arena.pread((page + 1) * PAGE as u64 - 1, 1)?,
                vec![value],
                "last byte"
            );
        }
    }
    Ok(())
}

fn a_process_vm_writev_is_in_the_next_delta(_: &Options) -> Outcome {
    let me = nix::unistd::getpid();
    each_past(|_, map, value| {
        let address = map.address();
        crate::process::in_child(|| {
            for page in TARGETS {
                let remote = RemoteIoVec {
                    base: address + page as usize * PAGE,
                    len: 1,
                };
                let written = process_vm_writev(me, &[IoSlice::new(&[value])], &[remote])?;
                ensure_eq!(written, 1, "bytes written");
            }
            Ok(())
        })?;
        Ok(Some(map))
    })
}

/// A process that maps the arena and waits; its address comes first.
fn mapped_peer(arena: &Arena) -> Result<(Peer, usize), Failure> {
    let peer = Peer::start(|link| {
        let map = arena.map_all()?;
        link.send_number(map.address() as u64)?;
        link.receive().map(drop)
    })?;
    let address = peer.link.receive_number()? as usize;
    Ok((peer, address))
}

fn a_poke_of_a_debugger_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|arena, map, value| {
        let (peer, address) = mapped_peer(arena)?;
        ptrace::attach(peer.pid())?;
        waitpid(peer.pid(), None)?;
        for page in TARGETS {
            let at = std::ptr::with_exposed_provenance_mut(address + page as usize * PAGE);
            ptrace::write(peer.pid(), at, i64::from(value))?;
        }
        ptrace::detach(peer.pid(), None)?;
        peer.kill()?;
        Ok(Some(map))
    })
}

fn a_write_through_proc_mem_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|arena, map, value| {
        let (peer, address) = mapped_peer(arena)?;
        let memory = File::options()
            .write(true)
            .open(format!("/proc/{}/mem", peer.pid()))?;
        for page in TARGETS {
            memory.write_all_at(&[value], (address + page as usize * PAGE) as u64)?;
        }
        peer.kill()?;
        Ok(Some(map))
    })
}

fn a_write_to_a_locked_page_is_in_the_next_delta(_: &Options) -> Outcome {
    each_past(|_, map, value| {
        let address = std::ptr::with_exposed_provenance(map.address());
        // SAFETY: locks pages of this mapping, or is refused.
        let locked = Errno::result(unsafe { libc::mlock(address, map.len()) });
        if locked.is_ok() {
            // SAFETY: undoes the lock.
            Errno::result(unsafe { libc::munlock(address, map.len()) })?;
        }
        store(&map, value);
        Ok(Some(map))
    })
}

fn a_store_across_two_pages_is_in_the_next_delta_twice(_: &Options) -> Outcome {
    let arena = Device::open()?.create("straddled", PAGES)?;
    let map = arena.map_all()?;
    for (epoch, page) in [0_usize, 510, 511, 1022].into_iter().enumerate() {
        for len in [2, 4, 8] {
            map.store((page + 1) * PAGE - len / 2, &vec![0x77; len]);
        }
        arena.commit()?;
        let expected = vec![page as u64, page as u64 + 1];
        ensure_eq!(arena.delta(epoch as u64)?.pages(), expected, "delta");
    }
    Ok(())
}
