// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Other processes: to crash in, to be somebody else in, to talk to.

use std::fs::File;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::socketpair;
use nix::sys::wait::Id;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::fork;

use crate::failure::Failure;
use crate::failure::Outcome;
use crate::pipe::pipe;
use crate::runner;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with that code.
    Exited(i32),
    /// By that signal.
    Killed(Signal),
}

// A test's own limit is shorter; this one only keeps a lost child from staying.
const CHILD_LIMIT: Duration = Duration::from_secs(600);

/// Runs `body` in a forked child and tells how that ended; 0 when it returned.
pub fn end_of(body: impl FnOnce()) -> Result<End, Failure> {
    // SAFETY: callers have one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            body();
            exit_now(0)
        }
        ForkResult::Parent { child } => wait_end(child),
    }
}

/// Runs `body` in a forked child; its outcome is the caller's.
pub fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    let (reader, writer) = pipe()?;
    // SAFETY: callers have one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            runner::report(writer, &runner::guarded(body));
            exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let end = wait_end(child)?;
            runner::collect(reader).unwrap_or_else(|| {
                Err(Failure::Failed(format!(
                    "the child ended without a result: {end:?}"
                )))
            })
        }
    }
}

/// Ends the process without exit handlers or destructors.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Waits for a child.
pub fn wait_end(child: Pid) -> Result<End, Failure> {
    match runner::wait_for(child, CHILD_LIMIT) {
        Some(WaitStatus::Exited(_, code)) => Ok(End::Exited(code)),
        Some(WaitStatus::Signaled(_, signal, _)) => Ok(End::Killed(signal)),
        other => Err(Failure::Failed(format!("waiting for {child}: {other:?}"))),
    }
}

/// One end of a line between two processes; messages carry descriptors.
pub struct Link {
    socket: OwnedFd,
}

/// What [`Link::receive`] got.
pub struct Message {
    /// The bytes of the message.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The bytes as a number.
    pub fn number(&self) -> Result<u64, Failure> {
        let bytes = self.bytes.as_slice().try_into()?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

impl Link {
    /// Two ends of one line.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Sends bytes and descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(drop)
    }

    /// Sends a number.
    pub fn send_number(&self, number: u64) -> Result<(), Errno> {
        self.send(&number.to_ne_bytes(), &[])
    }

    /// Waits for a message; an error when the other end is gone.
    pub fn receive(&self) -> Result<Message, Failure> {
        let mut bytes = vec![0; 65_536];
        let mut control = cmsg_space!([RawFd; 16]);
        let (len, fds) = {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let message = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            let mut fds = Vec::new();
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = part {
                    for fd in raw {
                        // SAFETY: a received descriptor is new and ours.
                        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
            }
            (message.bytes, fds)
        };
        if len == 0 && fds.is_empty() {
            return Err(Failure::new("the other process is gone"));
        }
        bytes.truncate(len);
        Ok(Message { bytes, fds })
    }

    /// Waits for a message that is a number.
    pub fn receive_number(&self) -> Result<u64, Failure> {
        self.receive()?.number()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Another process of the test, with a line to it.
pub struct Peer {
    /// The line.
    pub link: Link,
    pid: Pid,
    result: File,
}

impl Peer {
    /// Forks a process that runs `body`.
    pub fn start(body: impl FnOnce(Link) -> Outcome) -> Result<Self, Failure> {
        let (ours, theirs) = Link::pair()?;
        let (reader, writer) = pipe()?;
        // SAFETY: callers have one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((ours, reader));
                runner::report(writer, &runner::guarded(|| body(theirs)));
                exit_now(0)
            }
            ForkResult::Parent { child } => Ok(Self {
                link: ours,
                pid: child,
                result: reader,
            }),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it has come to its end, in whatever way.
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // It is there until it is waited for by `finish` or `kill`.
        waitid(Id::Pid(self.pid), flags) != Ok(WaitStatus::StillAlive)
    }

    /// Kills it and waits until it is gone.
    pub fn kill(self) -> Result<End, Failure> {
        nix::sys::signal::kill(self.pid, Signal::SIGKILL)?;
        wait_end(self.pid)
    }

    /// Closes the line, waits for it to end, and takes over its outcome.
    ///
    /// A failure of the peer is more telling than the caller's own, which is
    /// often only "the other process is gone".
    pub fn finish(self) -> Outcome {
        // Closing alone is not enough: peers that were forked later have this end, too.
        let socket = self.link.socket.as_raw_fd();
        // A peer that is gone already has nothing to be told.
        let _ = nix::sys::socket::shutdown(socket, nix::sys::socket::Shutdown::Both);
        drop(self.link);
        let end = wait_end(self.pid)?;
        runner::collect(self.result).unwrap_or_else(|| {
            Err(Failure::Failed(format!(
                "the peer ended without a result: {end:?}"
            )))
        })
    }
}

/// Runs `body` with a peer; the peer's failure, if any, comes first.
pub fn with_peer(
    peer: impl FnOnce(Link) -> Outcome,
    body: impl FnOnce(&Peer) -> Outcome,
) -> Outcome {
    let peer = Peer::start(peer)?;
    let outcome = body(&peer);
    match peer.finish() {
        Ok(()) => outcome,
        Err(failure) => Err(match outcome {
            Ok(()) => failure.within("in the peer"),
            Err(Failure::Failed(own)) => failure.within(format!("{own}; in the peer")),
            Err(skipped) => skipped,
        }),
    }
}
