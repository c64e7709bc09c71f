// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting programs, and hearing how they ended.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It called `exit` with this status.
    Exited(c_int),
    /// A signal killed it.
    Killed(c_int),
}

/// Becomes another program. Returns only when it cannot.
pub fn exec(command: &mut Command) -> io::Error {
    command.exec()
}

/// Starts a program in a process that blocks these signals, inherits this descriptor, and gets
/// SIGTERM when this one dies.
///
/// Call it from the main thread: the death of the calling *thread* is what the kernel looks at.
pub fn spawn(
    command: &mut Command,
    blocked: SigSet,
    inherited: Option<BorrowedFd<'_>>,
) -> io::Result<Pid> {
    let parent = Pid::this();
    let inherited = inherited.map(|fd| fd.as_raw_fd());
    let before_exec = move || {
        blocked.thread_set_mask()?;
        if let Some(fd) = inherited {
            // SAFETY: The caller's borrow keeps it open until this process has its copy.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        // When the parent died before the line above, nobody will tell.
        match Pid::parent() == parent {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: The closure makes system calls and nothing else: it takes no lock and allocates
    // nothing, and neither does making an error of a number.
    unsafe { command.pre_exec(before_exec) };
    Ok(Pid::from_raw(command.spawn()?.id() as i32))
}

/// Takes the end of a child that ended and was not asked for yet, any child; `None` when there
/// is none.
pub fn reap() -> io::Result<Option<(Pid, End)>> {
    let mut status = 0;
    // SAFETY: The status is ours. Not by way of nix, which fails for signals that it has no
    // name for.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        1.. if libc::WIFSIGNALED(status) => Ok(Some((
            Pid::from_raw(pid),
            End::Killed(libc::WTERMSIG(status)),
        ))),
        1.. => Ok(Some((
            Pid::from_raw(pid),
            End::Exited(libc::WEXITSTATUS(status)),
        ))),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
    }
}
