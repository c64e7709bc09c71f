// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A page that stops whoever reads it, until it is filled.
//!
//! process_vm_writev pins the pages that it writes to, as DMA does, before it
//! reads the bytes to be written. When those lie in such a page, the call stops
//! with the pins held, for as long as a test wants, without a clock.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use crate::device::PAGE;
use crate::failure::Failure;
use crate::mapping::Mapping;

// linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const REGISTER_MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const MESSAGE_BYTES: usize = 32;

/// One page that nobody can read yet.
pub struct StoppingPage {
    fd: OwnedFd,
    page: Mapping,
}

impl StoppingPage {
    /// A new one. Skips the test where the kernel has no userfaultfd.
    pub fn new() -> Result<Self, Failure> {
        let page = Mapping::anonymous(PAGE)?;
        // SAFETY: takes flags and returns a descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let raw =
            Errno::result(raw).map_err(|errno| Failure::skip(format!("userfaultfd: {errno}")))?;
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        let stopping = Self { fd, page };
        stopping.control(UFFDIO_API, &mut [UFFD_API, 0, 0])?;
        let start = stopping.page.address() as u64;
        stopping.control(
            UFFDIO_REGISTER,
            &mut [start, PAGE as u64, REGISTER_MODE_MISSING, 0],
        )?;
        Ok(stopping)
    }

    /// Where the page is.
    pub fn address(&self) -> usize {
        self.page.address()
    }

    /// Waits until somebody has been stopped.
    pub fn wait_for_reader(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        crate::ensure_eq!(poll(&mut fds, PollTimeout::NONE)?, 1, "descriptors ready");
        let mut message = [0_u8; MESSAGE_BYTES];
        let read = nix::unistd::read(&self.fd, &mut message)?;
        crate::ensure_eq!(
            (read, message[0]),
            (MESSAGE_BYTES, EVENT_PAGEFAULT),
            "message"
        );
        Ok(())
    }

    /// Fills the page and lets readers go on.
    pub fn fill(&self, content: &[u8; PAGE]) -> Result<(), Errno> {
        let source = content.as_ptr().expose_provenance() as u64;
        let target = self.page.address() as u64;
        self.control(UFFDIO_COPY, &mut [target, source, PAGE as u64, 0, 0])
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
