// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writers that never stop, for the oracle of threads.
//!
//! A writer owns one lane of every page and stores growing numbers there, in
//! its own way.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::arena::Arena;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::oracle::threads::LANES;
use crate::pipe::pipe;
use crate::rng::Rng;
use crate::scratch::DirectFile;
use crate::write_protect::Cleared;
use crate::write_protect::WriteProtector;
use crate::write_protect::clear;

/// Bytes of a lane: what the smallest O_DIRECT read fills.
pub const LANE_BYTES: usize = PAGE / LANES;

/// How a writer stores.
#[derive(Clone, Copy)]
pub enum Style<'a> {
    /// Through a mapping that others use, too.
    Shared(&'a Mapping),
    /// Through a mapping of its own.
    Own,
    /// The same, and all words of the lane from the front.
    Fills,
    /// Through a mapping of its own that somebody write-protects all the time.
    WriteProtected(&'a WriteProtector),
    /// Through a mapping of its own, with all soft-dirty bits cleared now and then.
    ClearsSoftDirty,
    /// Through a mapping of its own that is unmapped and made again all the time.
    Remaps,
    /// Through a mapping of its own that it makes read-only and writable again.
    Protects,
    /// Through a mapping of its own to which it gives MADV_DONTNEED.
    DropsEntries,
    /// Through a mapping of its own that it moves.
    Moves,
    /// process_vm_writev into a mapping of its own.
    VmWrite,
    /// write(2) to the process's own file of memory in /proc, into a mapping of its
    /// own. The kernel tells of the write when it is done, and so does the writer.
    ProcMem(&'a AtomicU64),
    /// read(2) from a pipe into a mapping of its own.
    ReadsPipe,
    /// O_DIRECT reads into a mapping of its own. Block *n* of the file is filled
    /// with *n*.
    ReadsDisk(&'a DirectFile, u64),
}

/// Stores in `lane` of the arena's pages until `stop` says so.
///
/// Returns the last number stored in each page. The first number is `after` + 1.
pub fn write_until(
    arena: &Arena,
    style: Style<'_>,
    lane: usize,
    seed: u64,
    after: u64,
    stop: impl Fn() -> bool,
) -> Result<Vec<u64>, Failure> {
    let pages = arena.len_pages() as usize;
    let mut rng = Rng::new(seed);
    let mut last = vec![0_u64; pages];
    let mut own = match style {
        Style::Shared(_) => None,
        _ => Some(arena.map_all()?),
    };
    if let (Style::WriteProtected(protector), Some(map)) = (style, &own) {
        // Some kernels refuse areas of this kind; then there is nothing to disturb.
        let _ = protector.register(map.address(), map.len());
    }
    let pipe = pipe()?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let mut number = after;
    while !stop() {
        let page = rng.below(pages);
        // Now and then the same page many times in a row: while it is open, closed and opened.
        let times = if rng.chance(1, 8) {
            rng.between(1, 200)
        } else {
            1
        };
        for _ in 0..times {
            number += 1;
            let map = match (style, &own) {
                (Style::Shared(map), _) => map,
                (_, Some(map)) => map,
                (_, None) => return Err(Failure::new("no mapping")),
            };
            let at = page * PAGE + lane * LANE_BYTES;
            match style {
                Style::VmWrite => vm_write(map.at(at), number)?,
                Style::ProcMem(done) => {
                    memory.write_all_at(&number.to_ne_bytes(), map.at(at) as u64)?;
                    done.store(number, Ordering::Release);
                }
                Style::ReadsPipe => {
                    (&pipe.1).write_all(&number.to_ne_bytes())?;
                    read_exactly(&pipe.0, map.at(at), 8)?;
                }
                Style::ReadsDisk(file, blocks) => {
                    if number >= blocks {
                        // All numbers are used up, and none may come again.
                        return Ok(last);
                    }
                    read_block(file, number, map.at(at))?;
                }
                Style::Fills => {
                    for word in 0..LANE_BYTES / 8 {
                        store(map.at(at + word * 8), number);
                    }
                }
                _ => store(map.at(at), number),
            }
            last[page] = number;
        }
        if let Some(map) = &mut own {
            disturb(arena, style, map, &mut rng)?;
        }
    }
    Ok(last)
}

// What the style does to its mapping between stores.
fn disturb(arena: &Arena, style: Style<'_>, map: &mut Mapping, rng: &mut Rng) -> Outcome {
    let pages = arena.len_pages() as usize;
    let first = rng.below(pages);
    let some = rng.between(1, pages - first);
    match style {
        Style::WriteProtected(protector) if rng.chance(1, 2) => {
            let protected = rng.chance(2, 3);
            let _ = protector.protect(map.at(first * PAGE), some * PAGE, protected);
        }
        Style::ClearsSoftDirty if rng.chance(1, 8) => clear(Cleared::SoftDirty)?,
        Style::Remaps if rng.chance(1, 4) => *map = arena.map_all()?,
        Style::Protects if rng.chance(1, 2) => {
            map.protect(first, some, libc::PROT_READ)?;
            map.protect(0, pages, libc::PROT_READ | libc::PROT_WRITE)?;
        }
        Style::DropsEntries if rng.chance(1, 2) => map.advise(first, some, libc::MADV_DONTNEED)?,
        Style::Moves if rng.chance(1, 4) => map.move_elsewhere()?,
        _ => {}
    }
    Ok(())
}

fn store(address: usize, number: u64) {
    let target = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: aligned, and inside a mapping that lives as long as the writer uses it.
    unsafe { AtomicU64::from_ptr(target) }.store(number, Ordering::Relaxed);
}

fn vm_write(address: usize, number: u64) -> Outcome {
    let local = libc::iovec {
        iov_base: (&raw const number).cast_mut().cast(),
        iov_len: 8,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(address),
        iov_len: 8,
    };
    // SAFETY: the target is inside a mapping that lives as long as the writer uses it.
    let written = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    crate::ensure_eq!(Errno::result(written)?, 8, "bytes written");
    Ok(())
}

fn read_exactly(file: &impl AsRawFd, address: usize, len: usize) -> Outcome {
    let target = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the target is inside a mapping that lives as long as the writer uses it.
    let read = unsafe { libc::read(file.as_raw_fd(), target, len) };
    crate::ensure_eq!(Errno::result(read)?, len as isize, "bytes read");
    Ok(())
}

fn read_block(file: &DirectFile, block: u64, address: usize) -> Outcome {
    let target = std::ptr::with_exposed_provenance_mut(address);
    let offset = block as i64 * LANE_BYTES as i64;
    // SAFETY: the target is inside a mapping that lives as long as the writer uses it.
    let read = unsafe { libc::pread(file.as_fd().as_raw_fd(), target, LANE_BYTES, offset) };
    crate::ensure_eq!(Errno::result(read)?, LANE_BYTES as isize, "bytes read");
    Ok(())
}
