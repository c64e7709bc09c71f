// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A socket between a program and who looks after it: messages, with a descriptor or without.

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::str::FromStr;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::libc;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::sendmsg;
use nix::sys::socket::socketpair;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;

use super::gate::Call;
use super::gate::call;

/// The longest message.
pub const MESSAGE_MAX: usize = 1024;

/// One end. It keeps the borders of messages, and is close-on-exec.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What came.
#[derive(Debug)]
pub enum Received {
    /// A message, and the descriptor that came with it.
    Message(Vec<u8>, Option<OwnedFd>),
    /// Nothing.
    Nothing,
    /// Nothing, and there will be nothing: the other end is closed.
    Closed,
}

/// How an end is named in the environment of the process that inherits it: a number may mean
/// something else there, to a program that was started by way of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    fd: RawFd,
    inode: u64,
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.fd, self.inode)
    }
}

impl FromStr for Inherited {
    type Err = ();

    fn from_str(text: &str) -> Result<Inherited, ()> {
        let (fd, inode) = text.split_once(':').ok_or(())?;
        let (fd, inode) = (fd.parse().map_err(|_| ())?, inode.parse().map_err(|_| ())?);
        (fd >= 0).then_some(Inherited { fd, inode }).ok_or(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (one, other) = call(Call::Handover, || {
            Ok(socketpair(
                AddressFamily::Unix,
                SockType::SeqPacket,
                None,
                flags,
            )?)
        })?;
        Ok((Channel(one), Channel(other)))
    }

    /// How a child is told of this end, which it inherits.
    pub fn inherited(&self) -> io::Result<Inherited> {
        let inode = call(Call::Handover, || Ok(fstat(&self.0)?))?.st_ino;
        let fd = self.0.as_raw_fd();
        Ok(Inherited { fd, inode })
    }

    /// An end that this process has inherited. It is not handed on to other programs any more.
    ///
    /// # Safety
    ///
    /// Called once in a process, before it has closed the descriptor.
    pub unsafe fn of_inherited(named: Inherited) -> io::Result<Channel> {
        call(Call::Handover, || {
            // SAFETY: Only asked what it is; there may be nothing open.
            let fd = unsafe { BorrowedFd::borrow_raw(named.fd) };
            let stat = fstat(fd)?;
            let is_socket =
                SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
            if !is_socket || stat.st_ino != named.inode {
                return Err(Errno::ENOTSOCK.into());
            }
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            // SAFETY: It is the socket that was made for this process, and by the contract nobody
            // else has taken it.
            Ok(Channel(unsafe { OwnedFd::from_raw_fd(named.fd) }))
        })
    }

    /// Sends a message, if there is room for it: `WouldBlock` else.
    pub fn send(&self, message: &[u8], with: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        call(Call::Handover, || {
            let parts = [IoSlice::new(message)];
            sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, flags, None)?;
            Ok(())
        })
    }

    /// Takes a message, if one is there. Of several descriptors that come along it keeps the last.
    pub fn receive(&self) -> io::Result<Received> {
        let mut buffer = [0; MESSAGE_MAX];
        let mut room = RightsRoom::default();
        call(Call::Handover, || {
            let mut part = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: MESSAGE_MAX,
            };
            // SAFETY: It is plain data, for which zeros are a value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut room).cast();
            header.msg_controllen = size_of::<RightsRoom>();
            let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
            // SAFETY: The header names the buffers above and their lengths.
            let taken = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, flags) };
            let len = match Errno::result(taken) {
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Nothing),
                // The other side ended before it had read all.
                Err(Errno::ECONNRESET) => return Ok(Received::Closed),
                taken => taken? as usize,
            };
            // SAFETY: The kernel has filled it in, and nobody else looks.
            let with = unsafe { last_descriptor(&header) };
            match len {
                0 => Ok(Received::Closed),
                len => Ok(Received::Message(buffer[..len].to_vec(), with)),
            }
        })
    }

    /// Takes the next message, for which it waits so long at most.
    pub fn receive_within(&self, timeout: Duration) -> io::Result<Received> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.receive()? {
                Received::Nothing => {}
                received => return Ok(received),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::Nothing);
            }
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Room for a descriptor that comes along. When there are more of them than fit, or than this process
/// may open, the kernel drops the rest.
#[derive(Default)]
#[repr(C, align(8))]
struct RightsRoom([u64; 3]);

// SAFETY: It computes a length.
const _: () = assert!(
    unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize <= size_of::<RightsRoom>()
);

/// Takes the descriptors that have come with a message; all but the last are closed.
///
/// # Safety
///
/// `recvmsg` has filled the header in, its control buffer is there still, and this is called once.
unsafe fn last_descriptor(header: &libc::msghdr) -> Option<OwnedFd> {
    let mut last = None;
    // SAFETY: By the contract these walk over whole control messages of the buffer, and each
    // descriptor in one is new and ours.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = at.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                let fds = libc::CMSG_DATA(at).cast::<RawFd>();
                for number in 0..bytes / size_of::<RawFd>() {
                    last = Some(OwnedFd::from_raw_fd(fds.add(number).read_unaligned()));
                }
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::io::Seek;
    use std::io::Write;

    use super::*;

    #[test]
    fn messages_keep_their_borders_and_bring_a_descriptor_along() {
        let (one, other) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        one.send(b"first", None).unwrap();
        one.send(b"second", Some(file.as_fd())).unwrap();
        drop((file, one));
        let Received::Message(first, None) = other.receive().unwrap() else {
            panic!("a message without a descriptor")
        };
        assert_eq!(first, b"first");
        let Received::Message(second, Some(fd)) = other.receive().unwrap() else {
            panic!("a message with a descriptor")
        };
        assert_eq!(second, b"second");
        let (mut file, mut content) = (File::from(fd), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert!(matches!(other.receive().unwrap(), Received::Closed));
    }

    #[test]
    fn of_several_descriptors_one_is_kept_and_the_message_with_them() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let fds = [file.as_raw_fd(); 3];
        let rights = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(b"three")];
        let socket = one.as_fd().as_raw_fd();
        sendmsg::<()>(socket, &parts, &rights, MsgFlags::empty(), None).unwrap();
        let Received::Message(message, Some(_)) = other.receive().unwrap() else {
            panic!("a message with a descriptor")
        };
        assert_eq!(message, b"three");
    }

    #[test]
    fn nothing_is_waited_for_when_nothing_is_there_or_too_much() {
        let (one, other) = Channel::pair().unwrap();
        assert!(matches!(other.receive().unwrap(), Received::Nothing));
        let full = (0..100_000).find_map(|_| one.send(&[1; 64], None).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(other);
        assert!(one.send(b"x", None).is_err(), "and no signal");
    }

    #[test]
    fn what_is_not_the_socket_that_was_inherited_is_not_touched() {
        let (one, _other) = Channel::pair().unwrap();
        let named = one.inherited().unwrap();
        assert_eq!(named.to_string().parse(), Ok(named));
        let wrong = Inherited {
            inode: named.inode + 1,
            ..named
        };
        // SAFETY: It is refused, and nothing is taken.
        assert!(unsafe { Channel::of_inherited(wrong) }.is_err());
        for text in ["", "3", "3:", "-1:5", "x:1"] {
            assert_eq!(text.parse::<Inherited>(), Err(()), "{text}");
        }
    }
}
