// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Others who write-protect the same page-table entries: asynchronous userfaultfd
//! write protection and the soft-dirty bit.
//!
//! Both belong to whoever watches a process from outside. They change the entries
//! that the module reads and arms, at any time, and neither may cost it a write.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

// linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_MODE_WP: u64 = 1 << 0;

/// A userfaultfd that write-protects and lets writers pass by itself.
pub struct WriteProtector {
    fd: OwnedFd,
}

impl WriteProtector {
    /// A new one; the errno where the kernel has none.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: takes flags and returns a descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(Errno::result(raw)? as i32) };
        let protector = Self { fd };
        let features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED;
        protector.control(UFFDIO_API, &mut [UFFD_API, features, 0])?;
        Ok(protector)
    }

    /// Watches an address range of this process.
    pub fn register(&self, address: usize, len: usize) -> Result<(), Errno> {
        let mut argument = [address as u64, len as u64, REGISTER_MODE_WP, 0];
        self.control(UFFDIO_REGISTER, &mut argument)
    }

    /// Write-protects a part of a watched range, or lets it be written again.
    pub fn protect(&self, address: usize, len: usize, protected: bool) -> Result<(), Errno> {
        let mode = if protected { WRITEPROTECT_MODE_WP } else { 0 };
        self.control(UFFDIO_WRITEPROTECT, &mut [address as u64, len as u64, mode])
    }

    fn control<const N: usize>(
        &self,
        number: libc::c_ulong,
        argument: &mut [u64; N],
    ) -> Result<(), Errno> {
        // SAFETY: the argument is as long as the command's number says.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), number, argument.as_mut_ptr()) };
        Errno::result(result).map(drop)
    }
}

/// What is cleared in all page-table entries of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// The accessed bits.
    Referenced,
    /// The soft-dirty bits, which write-protects the entries.
    SoftDirty,
}

/// Writes to the process's clear_refs.
pub fn clear(what: Cleared) -> std::io::Result<()> {
    let value: &[u8] = match what {
        Cleared::Referenced => b"1",
        Cleared::SoftDirty => b"4",
    };
    let mut file = File::options().write(true).open("/proc/self/clear_refs")?;
    match file.write_all(value) {
        // A kernel without soft-dirty bits.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

/// Lets the kernel compact all memory now. Needs root.
pub fn compact_memory() -> std::io::Result<()> {
    std::fs::write("/proc/sys/vm/compact_memory", "1")
}
