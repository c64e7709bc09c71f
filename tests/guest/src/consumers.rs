// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a program and the consumers of its commits tell each other, called as the header says.

use std::os::fd::AsFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use crate::abi;
use crate::arena::Arena;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::ioctl;
use crate::mapping::Mapping;
use crate::snapshot::Snapshot;

/// The arena's control page.
pub struct Control {
    map: Mapping,
}

impl Control {
    /// Maps it.
    pub fn map(arena: &Arena) -> Result<Self, Errno> {
        let pgoff = abi::CKPT_CONTROL_OFFSET / PAGE as u64;
        let map = Mapping::new(arena, pgoff, 1, libc::PROT_READ, libc::MAP_SHARED)?;
        Ok(Self { map })
    }

    /// What it says. Each field is read by itself.
    pub fn read(&self) -> abi::ckpt_control {
        let word = |offset: usize| {
            let bytes = self.map.read(offset, 8);
            u64::from_ne_bytes(bytes.try_into().unwrap_or_default())
        };
        abi::ckpt_control {
            pending: word(std::mem::offset_of!(abi::ckpt_control, pending)) as u32,
            reserved: (word(std::mem::offset_of!(abi::ckpt_control, pending)) >> 32) as u32,
            epoch: word(std::mem::offset_of!(abi::ckpt_control, epoch)),
            durable: word(std::mem::offset_of!(abi::ckpt_control, durable)),
            replicated: word(std::mem::offset_of!(abi::ckpt_control, replicated)),
        }
    }

    /// Where it is mapped.
    pub fn mapping(&self) -> &Mapping {
        &self.map
    }
}

impl Arena {
    /// CKPT_IOC_REQUEST: the last commit.
    pub fn request(&self) -> Result<u64, Errno> {
        let mut request = abi::ckpt_request {
            size: size_of::<abi::ckpt_request>() as u32,
            after: 77,
            ..abi::ckpt_request::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_REQUEST, &mut request).map(|()| request.after)
    }

    /// CKPT_IOC_ACKNOWLEDGE: the highest that was acknowledged.
    pub fn acknowledge(&self, epoch: u64, level: u32) -> Result<u64, Errno> {
        let mut said = abi::ckpt_acknowledge {
            size: size_of::<abi::ckpt_acknowledge>() as u32,
            epoch,
            level,
            ..abi::ckpt_acknowledge::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_ACKNOWLEDGE, &mut said).map(|()| said.epoch)
    }

    /// CKPT_IOC_WAIT: the highest that has come so far.
    pub fn wait(&self, epoch: u64, level: u32, timeout_ns: u64) -> Result<u64, Errno> {
        let mut wait = abi::ckpt_wait {
            size: size_of::<abi::ckpt_wait>() as u32,
            epoch,
            level,
            timeout_ns,
            ..abi::ckpt_wait::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_WAIT, &mut wait).map(|()| wait.epoch)
    }

    /// CKPT_IOC_SUBSCRIBE.
    pub fn subscribe(&self, since: u64, reserve_pages: u64) -> Result<Snapshot, Errno> {
        let mut subscribe = abi::ckpt_subscribe {
            size: size_of::<abi::ckpt_subscribe>() as u32,
            since,
            reserve_pages,
            ..abi::ckpt_subscribe::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_SUBSCRIBE, &mut subscribe)?;
        // SAFETY: a successful call returns a new descriptor, which is ours.
        Ok(Snapshot::new(unsafe {
            OwnedFd::from_raw_fd(subscribe.snapshot_fd)
        }))
    }
}

/// What poll() reports of a descriptor, after waiting for so many milliseconds at most.
pub fn events(fd: impl AsFd, timeout_ms: u16) -> Result<PollFlags, Failure> {
    let wanted = PollFlags::POLLIN | PollFlags::POLLPRI;
    let mut fds = [PollFd::new(fd.as_fd(), wanted)];
    poll(&mut fds, PollTimeout::from(timeout_ms))?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}
