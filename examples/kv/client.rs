// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client's connection: lines come in, answers go out, nothing waits.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use nix::poll::PollFlags;

/// The longest line.
const LINE_MAX: usize = 64 << 10;
/// A client that does not read its answers is not read from, either.
const UNSENT_MAX: usize = 1 << 20;

/// A client.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Answers that wait until they are safe.
    pub held: usize,
    /// Where they wait: all in the same, so that they keep their order.
    pub line: usize,
    /// There is no more to come.
    ended: bool,
}

impl Client {
    /// One that has just connected.
    pub fn new(stream: TcpStream) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        // Answers are whole when they are sent.
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            received: Vec::new(),
            unsent: Vec::new(),
            held: 0,
            line: 0,
            ended: false,
        })
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        let room = self.received.len() <= LINE_MAX && self.unsent.len() < UNSENT_MAX;
        flags.set(PollFlags::POLLIN, room && !self.ended);
        flags.set(PollFlags::POLLOUT, !self.unsent.is_empty());
        flags
    }

    /// Reads what is there.
    pub fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(len) => self.received.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The next line, if all of it is there and the client takes its answers.
    pub fn line(&mut self) -> Option<Vec<u8>> {
        if self.unsent.len() >= UNSENT_MAX {
            return None;
        }
        let end = self.received.iter().position(|&byte| byte == b'\n')?;
        let mut line: Vec<u8> = self.received.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    /// Whether [`Client::line`] has one.
    pub fn has_line(&self) -> bool {
        self.unsent.len() < UNSENT_MAX && self.received.contains(&b'\n')
    }

    /// A line that is too long to be one.
    pub fn is_endless(&self) -> bool {
        self.received.len() > LINE_MAX && !self.received.contains(&b'\n')
    }

    /// Answers.
    pub fn say(&mut self, answer: &[u8]) {
        self.unsent.extend_from_slice(answer);
    }

    /// Sends what the connection takes.
    pub fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Everything was read, answered and sent.
    pub fn is_done(&self) -> bool {
        self.ended && self.held == 0 && self.unsent.is_empty() && !self.received.contains(&b'\n')
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
