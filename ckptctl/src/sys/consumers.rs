// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a program and the consumers of its commits tell each other through the module.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::libc;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use super::abi;
use super::device::ArenaFd;
use super::device::Device;
use super::device::SnapshotFd;
use super::device::argument;
use super::device::command;

/// The first version of the kernel's ABI that has these.
pub const SINCE: u32 = 3;

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Closed.
    Committed = abi::CKPT_LEVEL_COMMITTED as isize,
    /// A consumer has it on a disk.
    Durable = abi::CKPT_LEVEL_DURABLE as isize,
    /// A consumer has it on another host.
    Replicated = abi::CKPT_LEVEL_REPLICATED as isize,
}

impl Device {
    /// Another descriptor of an arena. `ENOENT` when there is none of that id, `EACCES` when it
    /// is somebody else's.
    pub fn open_arena(&self, id: u64) -> io::Result<ArenaFd> {
        let mut open = argument::<abi::ckpt_open>();
        open.id = id;
        command(self.as_fd(), &mut open)?;
        // SAFETY: The descriptor is new and ours.
        Ok(ArenaFd::new(unsafe { OwnedFd::from_raw_fd(open.fd) }))
    }
}

impl ArenaFd {
    /// What the arena is.
    pub fn info(&self) -> io::Result<abi::ckpt_info> {
        let mut info = argument::<abi::ckpt_info>();
        command(self.as_fd(), &mut info)?;
        Ok(info)
    }

    /// Asks the program for a commit. Returns the last one; a later one answers.
    pub fn request(&self) -> io::Result<u64> {
        let mut request = argument::<abi::ckpt_request>();
        command(self.as_fd(), &mut request)?;
        Ok(request.after)
    }

    /// Says that a consumer has everything up to an epoch.
    pub fn acknowledge(&self, epoch: u64, level: Level) -> io::Result<()> {
        let mut said = argument::<abi::ckpt_acknowledge>();
        said.epoch = epoch;
        said.level = level as u32;
        command(self.as_fd(), &mut said)
    }

    /// Waits until an epoch has come so far; the highest that has, or `None` when the time is
    /// over.
    pub fn wait(&self, epoch: u64, level: Level, timeout: Duration) -> io::Result<Option<u64>> {
        let mut wait = argument::<abi::ckpt_wait>();
        wait.epoch = epoch;
        wait.level = level as u32;
        wait.timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(abi::CKPT_WAIT_FOREVER);
        match command(self.as_fd(), &mut wait) {
            Ok(()) => Ok(Some(wait.epoch)),
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for a snapshot of the next commit: of the pages stamped after `since`. It never makes
    /// a writer wait; its commands fail with `ESTALE` when it has ended instead.
    pub fn subscribe(&self, since: u64) -> io::Result<SnapshotFd> {
        let mut subscribe = argument::<abi::ckpt_subscribe>();
        subscribe.since = since;
        command(self.as_fd(), &mut subscribe)?;
        // SAFETY: The descriptor is new and ours.
        Ok(SnapshotFd::new(unsafe {
            OwnedFd::from_raw_fd(subscribe.snapshot_fd)
        }))
    }
}

impl SnapshotFd {
    /// What the snapshot is. `EAGAIN` before the commit that it was subscribed for.
    pub fn facts(&self) -> io::Result<abi::ckpt_snapshot> {
        let mut facts = argument::<abi::ckpt_snapshot>();
        command(self.as_fd(), &mut facts)?;
        Ok(facts)
    }
}

/// Waits until one of the descriptors has something to read, or fails, for so long at most.
/// Which of them; none also when a signal came.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Duration,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    // Up to the next millisecond, so that the last round does not spin.
    let timeout = timeout.saturating_add(Duration::from_micros(999));
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.map(|fd| fd.revents().is_some_and(|events| !events.is_empty())))
}
