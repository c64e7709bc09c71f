// SPDX-License-Identifier: GPL-2.0-only
//! Arguments of commands: reading and writing the structures of the ABI by its rules.

use kernel::ioctl::_IOC_DIR;
use kernel::ioctl::_IOC_NR;
use kernel::ioctl::_IOC_SIZE;
use kernel::ioctl::_IOC_TYPE;
use kernel::prelude::*;
use kernel::transmute::AsBytes;
use kernel::transmute::FromBytes;
use kernel::uaccess::UserPtr;
use kernel::uaccess::UserSlice;

use crate::tracking::ranges::Range;

#[path = "abi.rs"]
#[allow(unreachable_pub, reason = "the same file serves the library")]
mod abi;

pub(crate) use abi::*;

/// Largest `size` that a caller may state.
const SIZE_MAX: usize = 4096;

/// A structure that user space passes, beginning with its `size`.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, takes any bytes, has no interior mutability, and
/// begins with a `u32` that is its size.
pub(crate) unsafe trait Argument: Copy {
    /// Size of the structure's first version.
    const FIRST_SIZE: usize;
}

macro_rules! arguments {
    ($($name:ident: $first:literal,)*) => {$(
        // SAFETY: Made from the header, which has no implicit padding (its layout is checked
        // when it is compiled), only integers and arrays of them, and `size` in front.
        unsafe impl Argument for $name {
            const FIRST_SIZE: usize = $first;
        }
        // SAFETY: As above: any bytes are a value.
        unsafe impl FromBytes for $name {}
        // SAFETY: As above: no padding.
        unsafe impl AsBytes for $name {}
        const _: () = assert!(size_of::<$name>() >= $first);
        const _: () = assert!(core::mem::offset_of!($name, size) == 0);
    )*};
}

arguments! {
    ckpt_version: 56,
    ckpt_create: 104,
    ckpt_open: 24,
    ckpt_list: 40,
    ckpt_info: 144,
    ckpt_reserve: 24,
    ckpt_commit: 32,
    ckpt_delta: 64,
    ckpt_stats: 120,
    ckpt_request: 16,
    ckpt_acknowledge: 24,
    ckpt_wait: 32,
    ckpt_subscribe: 32,
    ckpt_keep: 8,
    ckpt_takeover: 8,
    ckpt_snapshot: 64,
    ckpt_gather: 56,
    ckpt_thaw: 24,
}

// SAFETY: Two integers without padding.
unsafe impl AsBytes for Range {}

// A run of pages is passed as it is.
const _: () = assert!(size_of::<Range>() == size_of::<ckpt_range>());
const _: () =
    assert!(core::mem::offset_of!(Range, first) == core::mem::offset_of!(ckpt_range, pgoff));
const _: () =
    assert!(core::mem::offset_of!(Range, len) == core::mem::offset_of!(ckpt_range, pages));

/// An argument in user space, and the size that the caller knows it by.
pub(crate) struct Passed {
    at: UserPtr,
    size: usize,
}

/// Whether two commands are the same but for the size of their argument.
pub(crate) fn same_command(cmd: u32, known: u32) -> bool {
    _IOC_TYPE(cmd) == _IOC_TYPE(known)
        && _IOC_NR(cmd) == _IOC_NR(known)
        && _IOC_DIR(cmd) == _IOC_DIR(known)
}

impl Passed {
    /// Reads the argument of a command.
    pub(crate) fn read<T: Argument + FromBytes>(cmd: u32, arg: usize) -> Result<(Self, T)> {
        let at = UserPtr::from_addr(arg);
        let size = UserSlice::new(at, size_of::<u32>())
            .reader()
            .read::<u32>()? as usize;
        if size != _IOC_SIZE(cmd) {
            return Err(EINVAL);
        }
        let passed = Passed { at, size };
        let value = passed.value::<T>()?;
        Ok((passed, value))
    }

    fn value<T: Argument + FromBytes>(&self) -> Result<T> {
        if self.size < T::FIRST_SIZE || self.size > SIZE_MAX {
            return Err(EINVAL);
        }
        let mut reader = UserSlice::new(self.at, self.size).reader();
        let mut bytes = [0u8; 256];
        const { assert!(size_of::<T>() <= 256) };
        let known = self.size.min(size_of::<T>());
        reader.read_slice(&mut bytes[..known])?;
        let mut rest = [0u8; 64];
        while !reader.is_empty() {
            let len = reader.len().min(rest.len());
            reader.read_slice(&mut rest[..len])?;
            if rest[..len].iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        T::from_bytes_copy(&bytes[..size_of::<T>()]).ok_or(EINVAL)
    }

    /// Size of the structure as the caller knows it.
    pub(crate) fn size(&self) -> u32 {
        self.size as u32
    }

    /// Writes the answer, as far as the caller knows it.
    pub(crate) fn write<T: Argument + AsBytes>(&self, value: &T) -> Result {
        let known = self.size.min(size_of::<T>());
        UserSlice::new(self.at, known)
            .writer()
            .write_slice(&value.as_bytes()[..known])
    }
}

/// Where list entries go.
pub(crate) struct Entries {
    at: UserPtr,
    entry_size: usize,
}

impl Entries {
    /// An array of `T` as the caller knows it.
    pub(crate) fn new<T: Argument>(at: u64, entry_size: u32) -> Result<Self> {
        let entry_size = entry_size as usize;
        if entry_size < T::FIRST_SIZE || entry_size > SIZE_MAX {
            return Err(EINVAL);
        }
        Ok(Entries {
            at: UserPtr::from_addr(at as usize),
            entry_size,
        })
    }

    /// Writes entry `index`; what the caller knows and we do not is zeroed.
    pub(crate) fn write<T: AsBytes>(&self, index: u32, value: &T) -> Result {
        let offset = index as usize * self.entry_size;
        let mut writer =
            UserSlice::new(self.at.wrapping_byte_add(offset), self.entry_size).writer();
        let known = self.entry_size.min(size_of::<T>());
        writer.write_slice(&value.as_bytes()[..known])?;
        while !writer.is_empty() {
            let len = writer.len().min(64);
            writer.write_slice(&[0u8; 64][..len])?;
        }
        Ok(())
    }
}

/// Where runs of pages go, one behind the other.
pub(crate) struct Runs {
    at: UserPtr,
    written: usize,
}

impl Runs {
    /// An array of `struct ckpt_range`, whose size never changes.
    pub(crate) fn new(at: u64) -> Self {
        Runs {
            at: UserPtr::from_addr(at as usize),
            written: 0,
        }
    }

    /// Adds runs.
    pub(crate) fn write(&mut self, runs: &[Range]) -> Result {
        let at = self.at.wrapping_byte_add(self.written * size_of::<Range>());
        self.written += runs.len();
        UserSlice::new(at, size_of_val(runs))
            .writer()
            .write_slice(runs.as_bytes())
    }
}

/// Refuses flags that are not among those known.
pub(crate) fn check_flags(flags: u32, known: u32) -> Result {
    if flags & !known != 0 {
        return Err(EINVAL);
    }
    Ok(())
}
