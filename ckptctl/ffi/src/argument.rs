// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the program points to.

use std::ffi::CStr;
use std::ffi::c_char;

use nix::libc;

use crate::error::Failure;
use crate::header::ckpt_commit_info;
use crate::header::ckpt_commit_stats;
use crate::header::ckpt_options;

/// The largest structure that a later version may have.
const STRUCTURE_MAX: usize = 4096;

/// A structure that begins with its size, all fields of which may be zero.
///
/// # Safety
///
/// `repr(C)`, the first field is a `usize`, and zero bytes are a value.
pub unsafe trait Structure {
    /// Its name.
    const NAME: &str;
}

// SAFETY: Made from the header.
unsafe impl Structure for ckpt_options {
    const NAME: &str = "struct ckpt_options";
}

// SAFETY: Made from the header.
unsafe impl Structure for ckpt_commit_info {
    const NAME: &str = "struct ckpt_commit_info";
}

// SAFETY: Made from the header.
unsafe impl Structure for ckpt_commit_stats {
    const NAME: &str = "struct ckpt_commit_stats";
}

/// Examines the size that a structure says it has.
///
/// # Safety
///
/// `from` is readable for a `usize`.
unsafe fn size<T: Structure>(from: *const T) -> Result<usize, Failure> {
    // SAFETY: As this function's contract.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if !(size_of::<T>()..=STRUCTURE_MAX).contains(&size) {
        return Err(Failure::invalid(format!(
            "{} has {} bytes, its size field says {size}: set it to sizeof, as CKPT_OPTIONS_INIT does",
            T::NAME,
            size_of::<T>(),
        )));
    }
    Ok(size)
}

/// Reads a structure. A larger one than this version knows is fine as long as what it does not
/// know is zero.
///
/// # Safety
///
/// `from` is readable for as many bytes as its first field says.
pub unsafe fn read<T: Structure>(from: *const T) -> Result<T, Failure> {
    // SAFETY: As this function's contract.
    unsafe {
        let size = size(from)?;
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), size);
        if bytes[size_of::<T>()..].iter().any(|&byte| byte != 0) {
            return Err(Failure {
                errno: libc::E2BIG,
                text: format!(
                    "{} has fields that this version of libckpt does not know: install the version that the program was built for",
                    T::NAME
                ),
            });
        }
        Ok(from.read_unaligned())
    }
}

/// Writes a structure. The size field stays as it is, what this version does not know becomes
/// zero.
///
/// # Safety
///
/// `to` is readable and writable for as many bytes as its first field says.
pub unsafe fn write<T: Structure>(to: *mut T, value: T) -> Result<(), Failure> {
    // SAFETY: As this function's contract.
    unsafe {
        let size = size(to)?;
        let rest = size - size_of::<T>();
        to.write_unaligned(value);
        to.cast::<usize>().write_unaligned(size);
        to.add(1).cast::<u8>().write_bytes(0, rest);
    }
    Ok(())
}

/// Examines a structure that will be written, before anything is done.
///
/// # Safety
///
/// `to` is null, or readable for a `usize`.
pub unsafe fn check<T: Structure>(to: *const T) -> Result<(), Failure> {
    match to.is_null() {
        true => Ok(()),
        // SAFETY: As this function's contract.
        false => unsafe { size(to) }.map(drop),
    }
}

/// Bytes of a C string; `None` for null.
///
/// # Safety
///
/// `text` is null, or a C string that stays as it is while the result is used.
pub unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: As this function's contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A name, which must be there.
///
/// # Safety
///
/// As [`bytes`].
pub unsafe fn name<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: As this function's contract.
    let bytes = unsafe { bytes(text) };
    let bytes = bytes.ok_or_else(|| Failure::invalid("the name is NULL: give one"))?;
    std::str::from_utf8(bytes)
        .map_err(|_| Failure::invalid("the name is not text: use printable ASCII characters"))
}

/// Writes to a place that must be there. It is examined by [`place`] before anything is done.
pub fn place<T>(to: *mut T, what: &str) -> Result<*mut T, Failure> {
    match to.is_null() {
        true => Err(Failure::invalid(format!(
            "{what} is NULL: point it at where the result shall go"
        ))),
        false => Ok(to),
    }
}
