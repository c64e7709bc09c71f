// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A TCP socket that never waits by itself, and never raises SIGPIPE in the program that it is in.

use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::sendmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

/// A host that says nothing is asked whether it is there after so many seconds…
const IDLE_S: u32 = 10;
/// … again after so many …
const INTERVAL_S: u32 = 5;
/// … and given up after so many questions.
const QUESTIONS: u32 = 3;

/// A connected socket. Reading and writing return `WouldBlock` where others would wait.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
}

/// What a socket is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Readable,
    Writable,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        // An acknowledgement is short, and waited for.
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &IDLE_S)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &INTERVAL_S)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &QUESTIONS)?;
        Ok(Socket { stream })
    }

    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    /// Waits until there is something to do, or `TimedOut`. The end of a connection is something.
    pub(super) fn wait(&self, until: Until, deadline: Option<Instant>) -> io::Result<()> {
        let events = match until {
            Until::Readable => PollFlags::POLLIN,
            Until::Writable => PollFlags::POLLOUT,
        };
        loop {
            let mut fds = [PollFd::new(self.stream.as_fd(), events)];
            match poll(&mut fds, left(deadline)) {
                Ok(0) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The time until a deadline, for `poll`; not too short by a fraction of a millisecond.
fn left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.saturating_add(Duration::from_micros(999));
    PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
}

impl Read for &Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// The standard library's own raises SIGPIPE in programs that have not ignored it.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<()>(self.stream.as_raw_fd(), slices, &[], flags, None) {
                Err(nix::Error::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
