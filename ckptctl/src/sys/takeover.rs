// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From one program to the next that goes on in its arena.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::libc;

use super::abi;
use super::device::ArenaFd;
use super::device::argument;
use super::device::command;

/// Between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

impl ArenaFd {
    /// Says that this descriptor keeps the arena for a program to come. A module that is too old
    /// to know what that means has nobody to tell.
    pub fn keep(&self) -> io::Result<()> {
        let mut keep = argument::<abi::ckpt_keep>();
        or_too_old(command(self.as_fd(), &mut keep))
    }

    /// Makes this process the one that the arena names. `EBUSY` when the one that it names is
    /// there, `EACCES` when the arena is another user's. With a module that is too old the arena
    /// goes on naming who made it.
    ///
    /// One that has ended is there until its parent has waited for it. That is soon, and may be yet
    /// to come where a program was started by way of others: so it is tried again for so long.
    pub fn take_over(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let mut takeover = argument::<abi::ckpt_takeover>();
            match or_too_old(command(self.as_fd(), &mut takeover)) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    thread::sleep(BUSY_PAUSE);
                }
                done => return done,
            }
        }
    }
}

fn or_too_old(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
        done => done,
    }
}

/// Whether nobody will commit in an arena any more: its program is gone, and nobody keeps it for
/// another.
pub fn has_ended(info: &abi::ckpt_info) -> bool {
    info.pid == 0 && info.flags & abi::CKPT_INFO_KEPT == 0
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::gate::Call;
    use crate::sys::gate::fake;

    #[test]
    fn a_module_that_is_too_old_is_no_reason_not_to_go_on() {
        let arena = ArenaFd::new(File::open("/dev/null").unwrap().into());
        for (errno, told) in [
            (libc::ENOTTY, None),
            (libc::EBUSY, Some(libc::EBUSY)),
            (libc::EACCES, Some(libc::EACCES)),
        ] {
            let failing = fake::fail(Call::Ioctl(abi::CKPT_IOC_TAKEOVER), errno);
            let done = arena.take_over(Duration::from_millis(3));
            drop(failing);
            assert_eq!(done.err().and_then(|error| error.raw_os_error()), told);
        }
        let _failing = fake::fail(Call::Ioctl(abi::CKPT_IOC_KEEP), libc::ENOTTY);
        arena.keep().unwrap();
    }

    #[test]
    fn an_arena_has_ended_when_it_has_no_program_and_nobody_keeps_it() {
        let arena = |pid, flags| abi::ckpt_info {
            pid,
            flags,
            ..abi::ckpt_info::ZERO
        };
        assert!(has_ended(&arena(0, 0)));
        assert!(has_ended(&arena(0, abi::CKPT_INFO_PRIVATE)));
        assert!(!has_ended(&arena(0, abi::CKPT_INFO_KEPT)));
        assert!(!has_ended(&arena(7, 0)));
    }
}
