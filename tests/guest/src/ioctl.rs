// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The raw calls: any command number, any argument, right or wrong.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::abi;

/// One command of the header, with what its argument looks like.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The name without `CKPT_IOC_`.
    pub name: &'static str,
    /// The command number with the size in it.
    pub number: u32,
    /// Bytes of its structure.
    pub size: usize,
    /// Bytes of the first version of its structure.
    pub first_size: usize,
    /// Where the input field `flags` is, when there is one.
    pub flags_offset: Option<usize>,
    /// Where the input field `reserved` is, when there is one.
    pub reserved_offset: Option<usize>,
}

macro_rules! command {
    ($name:literal, $number:ident, $structure:ident $(, first $first:literal)? $(, flags $flags:ident)? $(, reserved $reserved:ident)?) => {
        Command {
            name: $name,
            number: abi::$number,
            size: size_of::<abi::$structure>(),
            first_size: command!(@first $structure $($first)?),
            flags_offset: command!(@offset $structure $($flags)?),
            reserved_offset: command!(@offset $structure $($reserved)?),
        }
    };
    (@first $structure:ident $first:literal) => {
        $first
    };
    (@first $structure:ident) => {
        size_of::<abi::$structure>()
    };
    (@offset $structure:ident $field:ident) => {
        Some(std::mem::offset_of!(abi::$structure, $field))
    };
    (@offset $structure:ident) => { None };
}

/// Commands on `/dev/ckpt`.
pub const DEVICE_COMMANDS: &[Command] = &[
    command!("VERSION", CKPT_IOC_VERSION, ckpt_version),
    command!("CREATE", CKPT_IOC_CREATE, ckpt_create, flags flags, reserved reserved),
    command!("OPEN", CKPT_IOC_OPEN, ckpt_open, flags flags, reserved reserved),
    command!("LIST", CKPT_IOC_LIST, ckpt_list, flags flags),
];

/// Commands on an arena's descriptor.
pub const ARENA_COMMANDS: &[Command] = &[
    command!("INFO", CKPT_IOC_INFO, ckpt_info),
    command!("RESERVE", CKPT_IOC_RESERVE, ckpt_reserve, flags flags),
    command!("COMMIT", CKPT_IOC_COMMIT, ckpt_commit, first 32, flags flags, reserved reserved),
    command!("DELTA", CKPT_IOC_DELTA, ckpt_delta, flags flags, reserved reserved),
    command!("STATS", CKPT_IOC_STATS, ckpt_stats, first 120, flags flags),
    command!("REQUEST", CKPT_IOC_REQUEST, ckpt_request, flags flags),
    command!("ACKNOWLEDGE", CKPT_IOC_ACKNOWLEDGE, ckpt_acknowledge, flags flags, reserved reserved),
    command!("WAIT", CKPT_IOC_WAIT, ckpt_wait, flags flags, reserved reserved),
    command!("SUBSCRIBE", CKPT_IOC_SUBSCRIBE, ckpt_subscribe, flags flags, reserved reserved),
    command!("KEEP", CKPT_IOC_KEEP, ckpt_keep, flags flags),
    command!("TAKEOVER", CKPT_IOC_TAKEOVER, ckpt_takeover, flags flags),
];

/// Commands on a snapshot's descriptor.
pub const SNAPSHOT_COMMANDS: &[Command] = &[
    command!("SNAPSHOT", CKPT_IOC_SNAPSHOT, ckpt_snapshot, flags flags),
    command!("GATHER", CKPT_IOC_GATHER, ckpt_gather, flags flags),
    command!("THAW", CKPT_IOC_THAW, ckpt_thaw, flags flags),
];

const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = (1 << 14) - 1;

/// The command number with another structure size in it.
pub fn with_size(number: u32, size: usize) -> u32 {
    (number & !(SIZE_MASK << SIZE_SHIFT)) | ((size as u32 & SIZE_MASK) << SIZE_SHIFT)
}

/// `_IOWR` of the ABI's magic, for commands that the header does not have.
pub fn iowr(number: u8, size: usize) -> u32 {
    with_size(
        (3 << 30) | (abi::CKPT_IOC_MAGIC << 8) | u32::from(number),
        size,
    )
}

/// Makes the call with an address that may be anything at all.
pub fn call_at(fd: impl AsFd, number: u32, address: usize) -> Result<(), Errno> {
    // SAFETY: the kernel checks the address; whatever it writes goes to memory that the caller
    // named for this, or nowhere.
    let result =
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::c_ulong::from(number), address) };
    Errno::result(result).map(drop)
}

/// Makes the call with a structure of the header.
pub fn call<T: Copy>(fd: impl AsFd, number: u32, argument: &mut T) -> Result<(), Errno> {
    call_at(fd, number, std::ptr::from_mut(argument).addr())
}

/// Makes the call with bytes, which are as many as the argument has.
pub fn call_bytes(fd: impl AsFd, number: u32, argument: &mut Bytes) -> Result<(), Errno> {
    call_at(fd, number, argument.address())
}

/// An argument as bytes, aligned like the structures of the header.
#[derive(Clone, Debug)]
pub struct Bytes {
    words: Vec<u64>,
}

impl Bytes {
    /// Room for `len` bytes, all zero.
    pub fn zeroed(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(8).max(1)],
        }
    }

    /// A copy of a structure, followed by zeros up to `len` bytes.
    pub fn extended<T: Copy>(structure: &T, len: usize) -> Self {
        let mut bytes = Self::zeroed(len.max(size_of::<T>()));
        // SAFETY: the structures of the header have no padding, so all their bytes are
        // initialised, and there is room for them.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(structure).cast::<u8>(),
                bytes.words.as_mut_ptr().cast::<u8>(),
                size_of::<T>(),
            );
        }
        bytes
    }

    /// Where the bytes are.
    pub fn address(&mut self) -> usize {
        self.words.as_mut_ptr().expose_provenance()
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: initialised words are initialised bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.words.len() * 8) }
    }

    /// The number at an offset.
    pub fn get_u32(&self, offset: usize) -> u32 {
        let bytes = self.words[offset / 8].to_ne_bytes();
        let at = offset % 8;
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// Puts a number at an offset.
    pub fn put_u32(&mut self, offset: usize, value: u32) {
        let word = &mut self.words[offset / 8];
        let mut bytes = word.to_ne_bytes();
        bytes[offset % 8..offset % 8 + 4].copy_from_slice(&value.to_ne_bytes());
        *word = u64::from_ne_bytes(bytes);
    }

    /// Puts a byte at an offset.
    pub fn put_u8(&mut self, offset: usize, value: u8) {
        let mut bytes = self.words[offset / 8].to_ne_bytes();
        bytes[offset % 8] = value;
        self.words[offset / 8] = u64::from_ne_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_header() {
        let commands = [DEVICE_COMMANDS, ARENA_COMMANDS, SNAPSHOT_COMMANDS].concat();
        for command in commands {
            assert!(command.first_size <= command.size, "{}", command.name);
            assert_eq!(
                iowr(command.number as u8, command.size),
                command.number,
                "{}",
                command.name
            );
        }
    }

    #[test]
    fn a_field_put_into_bytes_is_at_its_offset() {
        let mut bytes = Bytes::zeroed(16);
        bytes.put_u32(4, 0x0403_0201);
        bytes.put_u8(15, 9);
        assert_eq!(bytes.as_slice()[4..8], [1, 2, 3, 4]);
        assert_eq!(bytes.as_slice()[15], 9);
    }
}
