// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules that hold for the argument of every command.

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::arena::commit_request;
use crate::arena::delta_request;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::device::list_request;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::ioctl::ARENA_COMMANDS;
use crate::ioctl::Bytes;
use crate::ioctl::Command;
use crate::ioctl::DEVICE_COMMANDS;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_valid_argument_is_accepted,
    a_size_below_the_first_version_is_refused,
    a_size_above_4096_is_refused,
    a_size_that_differs_from_the_one_in_the_command_is_refused,
    a_larger_argument_with_a_zero_tail_is_accepted_and_the_tail_left_alone,
    a_larger_argument_with_a_tail_that_is_not_zero_is_refused,
    unknown_flags_are_refused,
    a_reserved_field_that_is_not_zero_is_refused,
    an_argument_that_cannot_be_read_is_refused,
    an_argument_that_cannot_be_written_is_refused_and_nothing_is_done,
    unknown_commands_are_not_commands,
    device_and_arena_commands_are_not_each_others,
];

/// Everything that a valid argument of any command points to.
struct Fixture {
    device: Device,
    arena: Arena,
    entries: Vec<abi::ckpt_info>,
    ranges: Vec<abi::ckpt_range>,
}

impl Fixture {
    fn new() -> Result<Self, Failure> {
        let device = Device::open()?;
        Ok(Self {
            arena: device.create("fixture", 16)?,
            device,
            entries: vec![abi::ckpt_info::ZERO; 8],
            ranges: vec![abi::ckpt_range::ZERO; 8],
        })
    }

    fn commands() -> impl Iterator<Item = &'static Command> {
        DEVICE_COMMANDS.iter().chain(ARENA_COMMANDS)
    }

    /// A valid argument, followed by zeros up to `len` bytes, which `size` says.
    fn argument(&mut self, command: &Command, len: usize) -> Bytes {
        let mut bytes = match command.number {
            abi::CKPT_IOC_CREATE => Bytes::extended(&create_request("argument", 1), len),
            abi::CKPT_IOC_OPEN => {
                let open = abi::ckpt_open {
                    id: self.arena.id(),
                    ..abi::ckpt_open::ZERO
                };
                Bytes::extended(&open, len)
            }
            abi::CKPT_IOC_LIST => Bytes::extended(&list_request(&mut self.entries), len),
            abi::CKPT_IOC_DELTA => Bytes::extended(&delta_request(0, &mut self.ranges), len),
            _ => Bytes::zeroed(len),
        };
        bytes.put_u32(0, len as u32);
        bytes
    }

    /// Makes the call and closes a descriptor that came back.
    fn call(&self, command: &Command, number: u32, argument: &mut Bytes) -> Result<(), Errno> {
        if DEVICE_COMMANDS.iter().any(|of| of.name == command.name) {
            ioctl::call_bytes(&self.device, number, argument)?;
        } else {
            ioctl::call_bytes(&self.arena, number, argument)?;
        }
        let fd_offset = match command.number {
            abi::CKPT_IOC_CREATE => std::mem::offset_of!(abi::ckpt_create, fd),
            abi::CKPT_IOC_OPEN => std::mem::offset_of!(abi::ckpt_open, fd),
            _ => return Ok(()),
        };
        let fd = argument.get_u32(fd_offset) as i32;
        // SAFETY: a successful call returns a new descriptor, which is ours.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(())
    }

    /// Nothing but the fixture's arena is there, and it is as it was made.
    fn ensure_untouched(&self, what: &str) -> Outcome {
        let arenas = self.device.list()?;
        ensure_eq!(arenas.len(), 1, "arenas after {what}");
        let info = self.arena.info()?;
        ensure_eq!(
            (info.epoch, info.committed_ns),
            (0, 0),
            "epoch after {what}"
        );
        ensure_eq!(
            self.arena.stats()?.charged_pages,
            0,
            "charged pages after {what}"
        );
        Ok(())
    }

    fn ensure_refused(
        &self,
        command: &Command,
        number: u32,
        argument: &mut Bytes,
        expected: Errno,
        what: &str,
    ) -> Outcome {
        let result = self.call(command, number, argument);
        ensure_eq!(result, Err(expected), "{} with {what}", command.name);
        self.ensure_untouched(&format!("{} with {what}", command.name))
    }
}

// The other tests take one thing away from what this one shows to be right.
fn a_valid_argument_is_accepted(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let mut argument = fixture.argument(command, command.size);
        let result = fixture.call(command, command.number, &mut argument);
        ensure_eq!(result, Ok(()), "{}", command.name);
    }
    Ok(())
}

fn a_size_below_the_first_version_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        for size in [0, 1, 3, 4, 8, command.size - 8, command.size - 1] {
            let mut argument = fixture.argument(command, command.size);
            argument.put_u32(0, size as u32);
            let number = ioctl::with_size(command.number, size);
            let what = format!("size {size}");
            fixture.ensure_refused(command, number, &mut argument, Errno::EINVAL, &what)?;
        }
    }
    Ok(())
}

fn a_size_above_4096_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        for size in [4097, 4104, 8192, 16_383] {
            let mut argument = fixture.argument(command, size);
            let number = ioctl::with_size(command.number, size);
            let what = format!("size {size}");
            fixture.ensure_refused(command, number, &mut argument, Errno::EINVAL, &what)?;
        }
        for size in [u32::MAX, 1 << 31, (1 << 14) + command.size as u32] {
            let mut argument = fixture.argument(command, command.size);
            argument.put_u32(0, size);
            let what = format!("field size {size:#x}");
            fixture.ensure_refused(command, command.number, &mut argument, Errno::EINVAL, &what)?;
        }
    }
    Ok(())
}

fn a_size_that_differs_from_the_one_in_the_command_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let first = command.size;
        for (field, number) in [
            (first, first + 8),
            (first + 8, first),
            (first, 0),
            (0, first),
            (first, 4096),
            (4096, first),
            (first + 8, first + 16),
        ] {
            let mut argument = fixture.argument(command, 4096);
            argument.put_u32(0, field as u32);
            let what = format!("size {field} and {number} in the command");
            let number = ioctl::with_size(command.number, number);
            fixture.ensure_refused(command, number, &mut argument, Errno::EINVAL, &what)?;
        }
    }
    Ok(())
}

fn a_larger_argument_with_a_zero_tail_is_accepted_and_the_tail_left_alone(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let first = command.size;
        for size in [first + 1, first + 4, first + 8, first + 1000, 4095, 4096] {
            let mut argument = fixture.argument(command, size + 64);
            argument.put_u32(0, size as u32);
            // Beyond what is passed: not to be looked at, and not to be written.
            for offset in size..size + 64 {
                argument.put_u8(offset, 0xa5);
            }
            let number = ioctl::with_size(command.number, size);
            let result = fixture.call(command, number, &mut argument);
            ensure_eq!(result, Ok(()), "{} with size {size}", command.name);
            let bytes = argument.as_slice();
            ensure!(
                bytes[first..size].iter().all(|byte| *byte == 0),
                "{} with size {size} wrote to the tail",
                command.name
            );
            ensure!(
                bytes[size..size + 64].iter().all(|byte| *byte == 0xa5),
                "{} with size {size} wrote behind the argument",
                command.name
            );
        }
    }
    Ok(())
}

fn a_larger_argument_with_a_tail_that_is_not_zero_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let first = command.size;
        for size in [first + 1, first + 8, first + 1000, 4096] {
            for offset in [first, (first + size) / 2, size - 1] {
                let mut argument = fixture.argument(command, size);
                argument.put_u8(offset, 1);
                let number = ioctl::with_size(command.number, size);
                let what = format!("size {size} and byte {offset} not zero");
                fixture.ensure_refused(command, number, &mut argument, Errno::E2BIG, &what)?;
            }
        }
    }
    Ok(())
}

fn unknown_flags_are_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let Some(offset) = command.flags_offset else {
            continue;
        };
        let known = match command.number {
            abi::CKPT_IOC_CREATE => abi::CKPT_CREATE_PRIVATE,
            abi::CKPT_IOC_OPEN => abi::CKPT_OPEN_RDONLY,
            _ => 0,
        };
        for bit in (0..32).filter(|bit| known & (1 << bit) == 0) {
            let mut argument = fixture.argument(command, command.size);
            argument.put_u32(offset, known | (1 << bit));
            let what = format!("flag {:#x}", 1_u32 << bit);
            fixture.ensure_refused(command, command.number, &mut argument, Errno::EINVAL, &what)?;
        }
    }
    Ok(())
}

fn a_reserved_field_that_is_not_zero_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        let Some(offset) = command.reserved_offset else {
            continue;
        };
        for value in [1, 1 << 31, u32::MAX] {
            let mut argument = fixture.argument(command, command.size);
            argument.put_u32(offset, value);
            let what = format!("reserved {value:#x}");
            fixture.ensure_refused(command, command.number, &mut argument, Errno::EINVAL, &what)?;
        }
    }
    Ok(())
}

fn an_argument_that_cannot_be_read_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    let pages = Mapping::anonymous(2 * PAGE)?;
    pages.protect(1, 1, libc::PROT_NONE)?;
    let unmapped = pages.at(PAGE);
    for command in Fixture::commands() {
        // The last one begins in memory that can be read, and its size is there, too.
        let split = unmapped - command.size + 8;
        let valid = fixture.argument(command, command.size);
        pages.write(
            split - pages.address(),
            &valid.as_slice()[..command.size - 8],
        );
        for address in [
            0,
            1,
            PAGE - 8,
            unmapped,
            1 << 47,
            !0xfff,
            usize::MAX - 7,
            split,
        ] {
            let device_side = DEVICE_COMMANDS.iter().any(|of| of.name == command.name);
            let result = if device_side {
                ioctl::call_at(&fixture.device, command.number, address)
            } else {
                ioctl::call_at(&fixture.arena, command.number, address)
            };
            ensure_eq!(
                result,
                Err(Errno::EFAULT),
                "{} at {address:#x}",
                command.name
            );
            fixture.ensure_untouched(&format!("{} at {address:#x}", command.name))?;
        }
    }
    Ok(())
}

fn an_argument_that_cannot_be_written_is_refused_and_nothing_is_done(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    fixture.arena.map_all()?.touch(3, 1);
    let descriptors = || Ok::<_, Failure>(std::fs::read_dir("/proc/self/fd")?.count());
    let before = descriptors()?;
    for command in Fixture::commands() {
        let page = Mapping::anonymous(PAGE)?;
        let mut valid = fixture.argument(command, command.size);
        if command.number == abi::CKPT_IOC_RESERVE {
            valid.put_u32(std::mem::offset_of!(abi::ckpt_reserve, pages), 9);
        }
        page.write(0, &valid.as_slice()[..command.size]);
        page.protect(0, 1, libc::PROT_READ)?;
        let device_side = DEVICE_COMMANDS.iter().any(|of| of.name == command.name);
        let result = if device_side {
            ioctl::call_at(&fixture.device, command.number, page.address())
        } else {
            ioctl::call_at(&fixture.arena, command.number, page.address())
        };
        let name = command.name;
        ensure_eq!(result, Err(Errno::EFAULT), "{name} in read-only memory");
        ensure_eq!(descriptors()?, before, "open descriptors after {name}");
        ensure_eq!(fixture.device.list()?.len(), 1, "arenas after {name}");
        let info = fixture.arena.info()?;
        ensure_eq!(
            (info.epoch, info.changed_pages),
            (0, 1),
            "epoch and changed pages after {name}"
        );
        ensure_eq!(
            fixture.arena.stats()?.charged_pages,
            1,
            "charged pages after {name}"
        );
    }
    Ok(())
}

fn unknown_commands_are_not_commands(_: &Options) -> Outcome {
    let fixture = Fixture::new()?;
    let known: Vec<u8> = Fixture::commands()
        .map(|command| command.number as u8)
        .collect();
    let mut buffer = Bytes::zeroed(4096);
    for number in (0..=u8::MAX).filter(|number| !known.contains(number)) {
        for size in [0, 8, 16, 40, 104, 144, 4096, 16_383] {
            buffer.put_u32(0, size as u32);
            let command = ioctl::iowr(number, size);
            for result in [
                ioctl::call_bytes(&fixture.device, command, &mut buffer),
                ioctl::call_bytes(&fixture.arena, command, &mut buffer),
                ioctl::call_at(&fixture.device, command, 0),
                ioctl::call_at(&fixture.arena, command, 0),
            ] {
                ensure_eq!(result, Err(Errno::ENOTTY), "command {command:#x}");
            }
        }
    }
    for command in Fixture::commands() {
        // The same numbers of other drivers, and of this one with another direction.
        for number in [
            command.number ^ 0x100,
            command.number ^ 0x8000,
            command.number & !(3 << 30),
            command.number & !(1 << 30),
            command.number & !(2 << 30),
        ] {
            buffer.put_u32(0, command.size as u32);
            for result in [
                ioctl::call_bytes(&fixture.device, number, &mut buffer),
                ioctl::call_bytes(&fixture.arena, number, &mut buffer),
            ] {
                ensure_eq!(result, Err(Errno::ENOTTY), "command {number:#x}");
            }
        }
    }
    fixture.ensure_untouched("unknown commands")
}

fn device_and_arena_commands_are_not_each_others(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in Fixture::commands() {
        for size in [command.size, command.size - 1, command.size + 8, 0] {
            let mut argument = fixture.argument(command, command.size + 8);
            argument.put_u32(0, size as u32);
            let number = ioctl::with_size(command.number, size);
            let device_side = DEVICE_COMMANDS.iter().any(|of| of.name == command.name);
            let result = if device_side {
                ioctl::call_bytes(&fixture.arena, number, &mut argument)
            } else {
                ioctl::call_bytes(&fixture.device, number, &mut argument)
            };
            ensure_eq!(
                result,
                Err(Errno::ENOTTY),
                "{} of size {size} on the other kind of descriptor",
                command.name
            );
        }
    }
    // A COMMIT that is valid in all but the descriptor.
    let result = ioctl::call(&fixture.device, abi::CKPT_IOC_COMMIT, &mut commit_request());
    ensure_eq!(result, Err(Errno::ENOTTY), "COMMIT on the device");
    fixture.ensure_untouched("calls on the wrong descriptor")
}
