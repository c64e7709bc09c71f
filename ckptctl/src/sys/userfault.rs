// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Userfaultfd, as far as it write-protects memory asynchronously: the first write to a
//! protected page lifts the protection, without anybody being asked.
//!
//! The definitions are those of `linux/userfaultfd.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::libc;

use super::gate::Call;
use super::gate::call;
use super::span::Span;

const DEVICE: &str = "/dev/userfaultfd";

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

/// UFFD_USER_MODE_ONLY: all that users without privileges may have. Faults of the kernel would
/// not be handed over; with asynchronous protection none is, and they are resolved as all are.
const USER_MODE_ONLY: libc::c_int = 1;
/// UFFD_API.
const API: u64 = 0xAA;
/// UFFD_FEATURE_WP_UNPOPULATED. PAGEMAP_SCAN wants it where it is to protect anonymous memory.
const WP_UNPOPULATED: u64 = 1 << 13;
/// UFFD_FEATURE_WP_ASYNC.
const WP_ASYNC: u64 = 1 << 15;
/// UFFDIO_REGISTER_MODE_WP.
const MODE_WP: u64 = 1 << 1;

/// USERFAULTFD_IOC_NEW.
const NEW: libc::Ioctl = libc::_IO(API as u32, 0x00);
/// UFFDIO_API.
const SET_UP: libc::Ioctl = libc::_IOWR::<Api>(API as u32, 0x3F);
/// UFFDIO_REGISTER.
const REGISTER: libc::Ioctl = libc::_IOWR::<Register>(API as u32, 0x00);
/// UFFDIO_UNREGISTER.
const UNREGISTER: libc::Ioctl = libc::_IOR::<Range>(API as u32, 0x01);

/// Memory that can be protected, for as long as this lives.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
}

impl Userfault {
    /// Nothing is registered yet. Fails where the kernel has no asynchronous protection
    /// (before Linux 6.7: `EINVAL`), or where somebody has forbidden userfaultfd (`EPERM`).
    pub fn new() -> io::Result<Userfault> {
        let fd = call(Call::Userfault, || by_call().or_else(by_device))?;
        let mut api = Api {
            api: API,
            features: WP_UNPOPULATED | WP_ASYNC,
            ioctls: 0,
        };
        command(&fd, SET_UP, &mut api)?;
        Ok(Userfault { fd })
    }

    /// Takes a span out again. None of its pages is protected any more.
    pub fn unregister(&self, span: Span) -> io::Result<()> {
        let mut range = Range {
            start: span.base().as_ptr() as u64,
            len: span.len_bytes() as u64,
        };
        command(&self.fd, UNREGISTER, &mut range)
    }

    /// Lets the pages of a span be protected. None is, so far.
    pub fn register(&self, span: Span) -> io::Result<()> {
        let mut register = Register {
            start: span.base().as_ptr() as u64,
            len: span.len_bytes() as u64,
            mode: MODE_WP,
            ioctls: 0,
        };
        command(&self.fd, REGISTER, &mut register)
    }
}

fn by_call() -> io::Result<OwnedFd> {
    // SAFETY: Makes a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
    owned(fd)
}

/// Where the call is forbidden the device may be allowed, say in a container.
fn by_device(refused: io::Error) -> io::Result<OwnedFd> {
    if refused.raw_os_error() != Some(libc::EPERM) {
        return Err(refused);
    }
    let Ok(device) = File::open(DEVICE) else {
        return Err(refused);
    };
    let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
    // SAFETY: Makes a descriptor.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), NEW, flags) };
    owned(fd.into())
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(fd) {
        // SAFETY: The kernel has just made it, for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn command<T>(fd: &OwnedFd, number: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    call(Call::Ioctl(number as u32), || {
        // SAFETY: The structures of this file are those of their commands, and point nowhere.
        match unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut *argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}
