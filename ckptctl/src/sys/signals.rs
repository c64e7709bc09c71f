// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals that are waited for instead of handled.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signal::signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which one.
    pub signal: Signal,
    /// The kernel sent it, not a process: a terminal does so to all processes in its foreground.
    pub from_kernel: bool,
}

/// What was waited for beside a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A signal came.
    Signal(Arrival),
    /// The other descriptor is readable, or closed at the other end.
    Other,
    /// The time is over.
    TimedOut,
}

/// Signals of this process that nothing happens for but that they can be waited for. A program
/// that it starts inherits this unless it is given [`Signals::before`].
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl AsFd for Signals {
    /// Readable when a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Signals {
    /// Takes these signals over, except those that whoever started this process wants ignored,
    /// as `nohup` does. The ends of children are always told, as SIGCHLD.
    pub fn take(wanted: &[Signal]) -> io::Result<Signals> {
        // With SIGCHLD ignored, which can be inherited, children would vanish without a trace.
        // SAFETY: No handler is installed.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        for &signal in wanted {
            if !is_ignored(signal)? {
                set.add(signal);
            }
        }
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags)?;
        Ok(Signals { fd, before })
    }

    /// The signals that were blocked before.
    pub fn before(&self) -> SigSet {
        self.before
    }

    /// Waits for a signal; `None` when the time is over.
    pub fn next(&self, timeout: Option<Duration>) -> io::Result<Option<Arrival>> {
        match self.next_beside(None, timeout)? {
            Next::Signal(arrival) => Ok(Some(arrival)),
            Next::Other | Next::TimedOut => Ok(None),
        }
    }

    /// Waits for a signal, or until another descriptor is readable. Signals come first.
    pub fn next_beside(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<Next> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(info) = self.fd.read_signal()? {
                let number = info.ssi_signo as c_int;
                return Ok(Next::Signal(Arrival {
                    signal: Signal::try_from(number)?,
                    from_kernel: info.ssi_code == libc::SI_KERNEL,
                }));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Next::TimedOut);
            }
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                // Up to the next millisecond, so that the last round does not spin.
                let left = left.saturating_add(Duration::from_micros(999));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = vec![PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            fds.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
            if !ready(&fds[0]) && fds.get(1).is_some_and(ready) {
                return Ok(Next::Other);
            }
        }
    }
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: Only asks; the structure is ours.
    let status = unsafe { libc::sigaction(signal as c_int, std::ptr::null(), action.as_mut_ptr()) };
    Errno::result(status)?;
    // SAFETY: The call succeeded, so the kernel filled it in.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// Sends a signal; to a process that is gone, nothing.
pub fn send(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The name of a signal without `SIG`: `KILL`, `RTMIN+3`.
pub fn name(number: c_int) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) if number >= libc::SIGRTMIN() => format!("RTMIN+{}", number - libc::SIGRTMIN()),
        Err(_) => "unknown".into(),
    }
}

/// Whether a signal waits to be taken by a process of this user's.
pub fn is_pending(pid: i32, signal: Signal) -> io::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.ok_or(io::ErrorKind::InvalidData)?;
    Ok((mask >> (signal as i32 - 1)) & 1 == 1)
}
