// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules that hold for the argument of every command.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
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
use crate::ioctl::SNAPSHOT_COMMANDS;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::snapshot;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::snapshot::gather_request;
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
    commands_of_one_kind_of_descriptor_are_not_those_of_another,
    an_argument_of_the_first_version_is_accepted_and_no_more_is_written,
];

/// Everything that a valid argument of any command points to.
struct Fixture {
    device: Device,
    arena: Arena,
    // Of another arena; `None` where the module makes none.
    snapshot: Option<(Arena, Snapshot)>,
    entries: Vec<abi::ckpt_info>,
    ranges: Vec<abi::ckpt_range>,
}

impl Fixture {
    fn new() -> Result<Self, Failure> {
        let device = Device::open()?;
        let arena = device.create("fixture", 16)?;
        let snapshot = match snapshot::are_there()? {
            true => {
                let other = device.create("of the snapshot", 16)?;
                other.map_all()?.touch(5, 1);
                let (snapshot, _) = commit_with_snapshot(&other, 0, 0)?;
                Some((other, snapshot))
            }
            false => None,
        };
        Ok(Self {
            arena,
            device,
            snapshot,
            entries: vec![abi::ckpt_info::ZERO; 8],
            ranges: vec![abi::ckpt_range::ZERO; 8],
        })
    }

    fn commands(&self) -> impl Iterator<Item = &'static Command> + use<> {
        let of_snapshots = match self.snapshot {
            Some(_) => SNAPSHOT_COMMANDS,
            None => &[],
        };
        DEVICE_COMMANDS
            .iter()
            .chain(ARENA_COMMANDS)
            .chain(of_snapshots)
    }

    /// The descriptor that a command is for.
    fn descriptor_for(&self, command: &Command) -> BorrowedFd<'_> {
        let is_in = |commands: &[Command]| commands.iter().any(|of| of.name == command.name);
        match &self.snapshot {
            Some((_, snapshot)) if is_in(SNAPSHOT_COMMANDS) => snapshot.as_fd(),
            _ if is_in(DEVICE_COMMANDS) => self.device.as_fd(),
            _ => self.arena.as_fd(),
        }
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = vec![self.device.as_fd(), self.arena.as_fd()];
        all.extend(self.snapshot.iter().map(|(_, snapshot)| snapshot.as_fd()));
        all
    }

    fn arenas(&self) -> usize {
        1 + usize::from(self.snapshot.is_some())
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
            abi::CKPT_IOC_GATHER => {
                Bytes::extended(&gather_request(&mut self.ranges, &mut []), len)
            }
            abi::CKPT_IOC_THAW => {
                let thaw = abi::ckpt_thaw {
                    pages: 1,
                    ..abi::ckpt_thaw::ZERO
                };
                Bytes::extended(&thaw, len)
            }
            abi::CKPT_IOC_ACKNOWLEDGE => {
                let said = abi::ckpt_acknowledge {
                    level: abi::CKPT_LEVEL_DURABLE,
                    ..abi::ckpt_acknowledge::ZERO
                };
                Bytes::extended(&said, len)
            }
            _ => Bytes::zeroed(len),
        };
        bytes.put_u32(0, len as u32);
        bytes
    }

    /// Makes the call and closes a descriptor that came back.
    fn call(&self, command: &Command, number: u32, argument: &mut Bytes) -> Result<(), Errno> {
        ioctl::call_bytes(self.descriptor_for(command), number, argument)?;
        let fd_offset = match command.number {
            abi::CKPT_IOC_CREATE => std::mem::offset_of!(abi::ckpt_create, fd),
            abi::CKPT_IOC_OPEN => std::mem::offset_of!(abi::ckpt_open, fd),
            abi::CKPT_IOC_SUBSCRIBE => std::mem::offset_of!(abi::ckpt_subscribe, snapshot_fd),
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
        ensure_eq!(arenas.len(), self.arenas(), "arenas after {what}");
        if let Some((_, snapshot)) = &self.snapshot {
            ensure_eq!(snapshot.held()?, vec![5], "pages held after {what}");
        }
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
    for command in fixture.commands() {
        let mut argument = fixture.argument(command, command.size);
        let result = fixture.call(command, command.number, &mut argument);
        ensure_eq!(result, Ok(()), "{}", command.name);
    }
    Ok(())
}

fn a_size_below_the_first_version_is_refused(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in fixture.commands() {
        let first = command.first_size;
        let sizes = [0, 1, 3, 4, 8, first - 8, first - 1];
        for size in sizes.into_iter().filter(|size| *size < first) {
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
    for command in fixture.commands() {
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
    for command in fixture.commands() {
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
    for command in fixture.commands() {
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
    for command in fixture.commands() {
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
    for command in fixture.commands() {
        let Some(offset) = command.flags_offset else {
            continue;
        };
        let known = match command.number {
            abi::CKPT_IOC_CREATE => abi::CKPT_CREATE_PRIVATE,
            abi::CKPT_IOC_OPEN => abi::CKPT_OPEN_RDONLY,
            abi::CKPT_IOC_COMMIT => abi::CKPT_COMMIT_SNAPSHOT | abi::CKPT_COMMIT_QUIET,
            abi::CKPT_IOC_GATHER => abi::CKPT_GATHER_THAW,
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
    for command in fixture.commands() {
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
    for command in fixture.commands() {
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
            let result = ioctl::call_at(fixture.descriptor_for(command), command.number, address);
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
    // These tell nothing, so nothing is written.
    let silent = [
        abi::CKPT_IOC_THAW,
        abi::CKPT_IOC_KEEP,
        abi::CKPT_IOC_TAKEOVER,
    ];
    let telling = |command: &&Command| !silent.contains(&command.number);
    for command in fixture.commands().filter(telling) {
        let page = Mapping::anonymous(PAGE)?;
        let mut valid = fixture.argument(command, command.size);
        if command.number == abi::CKPT_IOC_RESERVE {
            valid.put_u32(std::mem::offset_of!(abi::ckpt_reserve, pages), 9);
        }
        page.write(0, &valid.as_slice()[..command.size]);
        page.protect(0, 1, libc::PROT_READ)?;
        let fd = fixture.descriptor_for(command);
        let result = ioctl::call_at(fd, command.number, page.address());
        let name = command.name;
        ensure_eq!(result, Err(Errno::EFAULT), "{name} in read-only memory");
        ensure_eq!(descriptors()?, before, "open descriptors after {name}");
        let arenas = fixture.device.list()?.len();
        ensure_eq!(arenas, fixture.arenas(), "arenas after {name}");
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
    // Those of snapshots are not commands for others even where there are none.
    let known: Vec<u8> = [DEVICE_COMMANDS, ARENA_COMMANDS, SNAPSHOT_COMMANDS]
        .concat()
        .iter()
        .map(|command| command.number as u8)
        .collect();
    let mut buffer = Bytes::zeroed(4096);
    for number in (0..=u8::MAX).filter(|number| !known.contains(number)) {
        for size in [0, 8, 16, 40, 104, 144, 4096, 16_383] {
            buffer.put_u32(0, size as u32);
            let command = ioctl::iowr(number, size);
            for fd in fixture.descriptors() {
                for result in [
                    ioctl::call_bytes(fd, command, &mut buffer),
                    ioctl::call_at(fd, command, 0),
                ] {
                    ensure_eq!(result, Err(Errno::ENOTTY), "command {command:#x}");
                }
            }
        }
    }
    for command in fixture.commands() {
        // The same numbers of other drivers, and of this one with another direction.
        for number in [
            command.number ^ 0x100,
            command.number ^ 0x8000,
            command.number & !(3 << 30),
            command.number & !(1 << 30),
            command.number & !(2 << 30),
        ] {
            buffer.put_u32(0, command.size as u32);
            for fd in fixture.descriptors() {
                let result = ioctl::call_bytes(fd, number, &mut buffer);
                ensure_eq!(result, Err(Errno::ENOTTY), "command {number:#x}");
            }
        }
    }
    fixture.ensure_untouched("unknown commands")
}

fn commands_of_one_kind_of_descriptor_are_not_those_of_another(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in fixture.commands() {
        for size in [command.size, command.size - 1, command.size + 8, 0] {
            let mut argument = fixture.argument(command, command.size + 8);
            argument.put_u32(0, size as u32);
            let number = ioctl::with_size(command.number, size);
            let right = fixture.descriptor_for(command).as_raw_fd();
            for fd in fixture.descriptors() {
                if fd.as_raw_fd() == right {
                    continue;
                }
                let result = ioctl::call_bytes(fd, number, &mut argument);
                ensure_eq!(
                    result,
                    Err(Errno::ENOTTY),
                    "{} of size {size} on the other kind of descriptor",
                    command.name
                );
            }
        }
    }
    // A COMMIT that is valid in all but the descriptor.
    let result = ioctl::call(&fixture.device, abi::CKPT_IOC_COMMIT, &mut commit_request());
    ensure_eq!(result, Err(Errno::ENOTTY), "COMMIT on the device");
    fixture.ensure_untouched("calls on the wrong descriptor")
}

fn an_argument_of_the_first_version_is_accepted_and_no_more_is_written(_: &Options) -> Outcome {
    let mut fixture = Fixture::new()?;
    for command in fixture.commands() {
        let first = command.first_size;
        let mut argument = fixture.argument(command, command.size + 64);
        argument.put_u32(0, first as u32);
        for offset in first..command.size + 64 {
            argument.put_u8(offset, 0xa5);
        }
        let number = ioctl::with_size(command.number, first);
        let result = fixture.call(command, number, &mut argument);
        ensure_eq!(result, Ok(()), "{} of the first version", command.name);
        ensure!(
            argument.as_slice()[first..command.size + 64]
                .iter()
                .all(|byte| *byte == 0xa5),
            "{} of the first version wrote behind the argument",
            command.name
        );
    }
    Ok(())
}
