// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls without sense: nothing may crash, hang or be left behind.

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::diag;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::ioctl::ARENA_COMMANDS;
use crate::ioctl::Bytes;
use crate::ioctl::DEVICE_COMMANDS;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::rng::Rng;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    any_argument_of_any_command_is_answered_or_refused,
    any_mapping_call_is_answered_or_refused,
];

// Numbers at which something may break.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    511,
    512,
    513,
    4095,
    4096,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 44) - 4096,
    1 << 44,
    (1 << 52) - 1,
    1 << 52,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

/// A number at which something may break, or any.
pub fn number(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.next(),
        1 => rng.next() >> rng.below(64),
        _ => *rng.pick(EDGES),
    }
}

/// An argument of about the right shape, filled with edges, and here and there
/// with what makes sense.
pub fn argument(rng: &mut Rng, size: usize, useful: &[u64]) -> Bytes {
    let len = (size + 64).next_multiple_of(8);
    let mut bytes = Bytes::zeroed(len);
    for offset in (0..len).step_by(4) {
        let value = match rng.below(3) {
            0 => 0,
            1 => *rng.pick(useful),
            _ => number(rng),
        };
        if offset % 8 == 0 && rng.chance(1, 2) {
            bytes.put_u32(offset, value as u32);
            bytes.put_u32(offset + 4, (value >> 32) as u32);
        } else {
            bytes.put_u32(offset, value as u32);
        }
    }
    bytes
}

/// A wait of any length is valid: here it is a short one.
pub fn keep_short(command: &ioctl::Command, bytes: &mut Bytes) {
    if command.number == abi::CKPT_IOC_WAIT {
        let offset = std::mem::offset_of!(abi::ckpt_wait, timeout_ns);
        let timeout = bytes.get_u32(offset) % 2000;
        bytes.put_u32(offset, timeout);
        bytes.put_u32(offset + 4, 0);
    }
}

fn any_argument_of_any_command_is_answered_or_refused(options: &Options) -> Outcome {
    diag!("seed {}", options.seed);
    let mut rng = Rng::new(options.seed);
    let device = Device::open()?;
    let arena = device.create("fuzzed", 4096)?;
    let map = arena.map_all()?;
    let own = Mapping::anonymous(64 * PAGE)?;
    let mut done = 0;
    for _ in 0..40_000 {
        let commands = if rng.chance(1, 2) {
            DEVICE_COMMANDS
        } else {
            ARENA_COMMANDS
        };
        let command = rng.pick(commands);
        let size = if rng.chance(7, 8) {
            command.size
        } else {
            rng.below(300)
        };
        let useful = [
            arena.id(),
            own.address() as u64,
            own.at(63 * PAGE + 4000) as u64,
            map.at(rng.below(4000) * PAGE) as u64,
            size_of::<abi::ckpt_info>() as u64,
            PAGE as u64,
            0x61,
        ];
        let mut bytes = argument(&mut rng, size.max(command.size), &useful);
        if rng.chance(9, 10) {
            bytes.put_u32(0, size as u32);
        }
        if rng.chance(3, 4) {
            if let Some(offset) = command.flags_offset {
                bytes.put_u32(offset, rng.below(2) as u32);
            }
            if let Some(offset) = command.reserved_offset {
                bytes.put_u32(offset, 0);
            }
        }
        keep_short(command, &mut bytes);
        // Sometimes the argument lies in the arena itself, or nowhere.
        let number = ioctl::with_size(command.number, size);
        let address = match rng.below(8) {
            // What lies in the arena might be a wait without end.
            _ if command.number == abi::CKPT_IOC_WAIT => bytes.address(),
            0 => map.at(rng.below(4000) * PAGE + rng.below(PAGE)),
            1 => number_as_address(&mut rng),
            _ => bytes.address(),
        };
        let result = if rng.chance(1, 2) == (commands.len() == DEVICE_COMMANDS.len()) {
            ioctl::call_at(&device, number, address)
        } else {
            ioctl::call_at(&arena, number, address)
        };
        done += usize::from(result.is_ok());
        close_what_came(command.number, size, result, address);
        if rng.chance(1, 16) {
            map.touch(rng.below(4096), 1);
        }
    }
    diag!("{done} calls were carried out");
    ensure_usable(&device, &arena, &map)
}

fn number_as_address(rng: &mut Rng) -> usize {
    // The tests' own memory is at neither end of the address space.
    match rng.below(3) {
        0 => rng.below(1 << 16),
        1 => usize::MAX - rng.below(1 << 20),
        _ => 1 << 47,
    }
}

// A descriptor that CREATE or OPEN returned is in the argument, wherever that is.
// An open snapshot would make the next store wait for a consumer that there is not.
fn close_what_came(number: u32, size: usize, result: Result<(), Errno>, address: usize) {
    let offset = match number {
        abi::CKPT_IOC_CREATE => std::mem::offset_of!(abi::ckpt_create, fd),
        abi::CKPT_IOC_OPEN => std::mem::offset_of!(abi::ckpt_open, fd),
        abi::CKPT_IOC_COMMIT => std::mem::offset_of!(abi::ckpt_commit, snapshot_fd),
        abi::CKPT_IOC_SUBSCRIBE => std::mem::offset_of!(abi::ckpt_subscribe, snapshot_fd),
        _ => return,
    };
    if result.is_err() || size < offset + 4 {
        return;
    }
    let place = std::ptr::with_exposed_provenance::<i32>(address + offset);
    // SAFETY: the kernel wrote a whole argument there just now, so it is mapped.
    let fd = unsafe { place.read_unaligned() };
    if fd < 0 {
        // A commit without a snapshot.
        return;
    }
    // SAFETY: a successful call returns a new descriptor, which is ours.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Whatever was done to it: the arena still counts right.
fn ensure_usable(device: &Device, arena: &Arena, map: &Mapping) -> Outcome {
    ensure_eq!(device.list()?.len(), 1, "arenas left");
    let epoch = arena.commit()?.epoch;
    map.touch(77, 5);
    map.touch(4000, 6);
    let commit = arena.commit()?;
    ensure_eq!(
        (commit.epoch, commit.changed_pages),
        (epoch + 1, 2),
        "a commit afterwards"
    );
    ensure_eq!(arena.delta(epoch)?.pages(), vec![77, 4000], "its delta");
    ensure_eq!(arena.pread(77 * PAGE as u64, 1)?, vec![5], "content");
    Ok(())
}

fn any_mapping_call_is_answered_or_refused(options: &Options) -> Outcome {
    diag!("seed {}", options.seed);
    let mut rng = Rng::new(options.seed);
    let device = Device::open()?;
    let arena = device.create("fuzzed", 4096)?;
    let keeper = arena.map_all()?;
    let mut maps: Vec<Mapping> = Vec::new();
    for _ in 0..15_000 {
        match rng.below(6) {
            0 | 1 => {
                let pgoff = if rng.chance(3, 4) {
                    rng.below(4096) as u64
                } else {
                    number(&mut rng) >> 12
                };
                let pages = if rng.chance(3, 4) {
                    1 + rng.below(600) as u64
                } else {
                    number(&mut rng) >> 20
                };
                let protection = rng.below(8) as i32;
                let flags = *rng.pick(&[
                    libc::MAP_SHARED,
                    libc::MAP_SHARED,
                    libc::MAP_PRIVATE,
                    libc::MAP_SHARED_VALIDATE,
                    libc::MAP_SHARED | libc::MAP_POPULATE,
                    libc::MAP_SHARED | libc::MAP_LOCKED,
                    libc::MAP_SHARED | libc::MAP_NORESERVE,
                    libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
                ]);
                // As much as the machine can hold, when it is populated.
                let pages = pages.min(1 << 36);
                if let Ok(map) = Mapping::new(&arena, pgoff, pages, protection, flags) {
                    ensure!(
                        flags & libc::MAP_PRIVATE == 0 || flags & libc::MAP_SHARED != 0,
                        "a private mapping was made"
                    );
                    ensure!(
                        pgoff + pages <= 4096,
                        "a mapping of {pages} pages from {pgoff} was made"
                    );
                    maps.push(map);
                }
            }
            2 if !maps.is_empty() => {
                let index = rng.below(maps.len());
                drop(maps.swap_remove(index));
            }
            3 if !maps.is_empty() => {
                let map = rng.pick(&maps);
                let page = rng.below(map.len() / PAGE);
                let pages = rng.between(1, map.len() / PAGE - page);
                let _ = map.protect(page, pages, rng.below(4) as i32);
            }
            4 if !maps.is_empty() => {
                let map = rng.pick(&maps);
                let page = rng.below(map.len() / PAGE);
                let pages = rng.between(1, map.len() / PAGE - page);
                // Every advice there is, and some that there is not.
                let _ = map.advise(page, pages, rng.below(30) as i32);
            }
            _ if !maps.is_empty() => {
                let index = rng.below(maps.len());
                maps[index].move_elsewhere()?;
            }
            _ => {}
        }
        if maps.len() > 40 {
            maps.clear();
        }
        if rng.chance(1, 20) {
            keeper.touch(rng.below(4096), 9);
        }
        if rng.chance(1, 50) {
            let epoch = arena.info()?.epoch;
            arena.commit()?;
            arena.delta(epoch)?;
        }
    }
    drop(maps);
    if arena.info()?.resident_pages > 4096 {
        return Err(Failure::new("more pages are resident than the arena has"));
    }
    ensure_usable(&device, &arena, &keeper)
}
