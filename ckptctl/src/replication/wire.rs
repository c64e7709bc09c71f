// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two halves of a link, for two threads, and what ends both.
//!
//! Lock order: the mutex of a TLS connection is the only one. It protects the connection, and the
//! order of what is sent: records go to the socket under it, as far as the socket takes them at
//! once. Nobody waits for the network with it in hand, so that a peer that does not read keeps
//! nobody here from reading.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rustls::Connection;

use super::socket::Socket;
use super::socket::Until;

/// Bytes that are taken from the socket at once.
const FETCH_BYTES: usize = 256 << 10;

/// Bytes that are encrypted at once: several records, and so little that they are still in the
/// processor's cache when they are sent.
const SEAL_BYTES: usize = 128 << 10;

/// What both halves share.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// `None` without TLS.
    tls: Option<Mutex<Tls>>,
    /// The peer, for messages.
    address: String,
    /// A [`Closer`] was used.
    closed: AtomicBool,
}

struct Tls {
    connection: Connection,
    /// Why nothing that comes can be trusted any more.
    failed: Option<rustls::Error>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The half of a link that reads.
///
/// The end of the stream, `Ok(0)`, means that the peer has finished its half, if the link is by
/// TLS; a connection that ended otherwise is `UnexpectedEof`. Without TLS the two cannot be told apart.
#[derive(Debug)]
pub struct Receiving {
    wire: Arc<Wire>,
    timeout: Option<Duration>,
    /// What was taken from the socket and not yet given to TLS is `fetched[begin..end]`.
    fetched: Box<[u8]>,
    begin: usize,
    end: usize,
}

/// The half of a link that writes.
///
/// What a write returned for is with the system: nothing has to be flushed. Without [`Sending::finish`]
/// the peer sees a link that broke off.
#[derive(Debug)]
pub struct Sending {
    wire: Arc<Wire>,
    timeout: Option<Duration>,
    /// Why a record was cut short, so that nothing can follow it.
    cut: Option<io::ErrorKind>,
}

/// Ends a link from a third thread. Clones end the same link.
#[derive(Clone, Debug)]
pub struct Closer {
    // Not counted: a link whose halves are gone is closed, whoever could have closed it.
    wire: Weak<Wire>,
}

/// Two halves of a connection that is ready for data.
pub(super) fn halves(
    socket: Socket,
    connection: Option<Connection>,
    address: String,
) -> (Receiving, Sending) {
    let tls = connection.map(|mut connection| {
        // It is the writer here who asks for no more than is sent at once.
        connection.set_buffer_limit(None);
        Mutex::new(Tls {
            connection,
            failed: None,
        })
    });
    let fetch = if tls.is_some() { FETCH_BYTES } else { 0 };
    let wire = Arc::new(Wire {
        socket,
        tls,
        address,
        closed: AtomicBool::new(false),
    });
    let receiving = Receiving {
        wire: wire.clone(),
        timeout: None,
        fetched: vec![0; fetch].into_boxed_slice(),
        begin: 0,
        end: 0,
    };
    let sending = Sending {
        wire,
        timeout: None,
        cut: None,
    };
    (receiving, sending)
}

impl Wire {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Why the peer ended the link, if TLS has told it.
    pub(super) fn refusal(&self) -> Option<rustls::Error> {
        let tls = self.tls.as_ref()?;
        lock(tls).failed.clone()
    }

    /// An error of the socket, or that this side has closed it.
    fn failure(&self, error: io::Error) -> io::Error {
        if self.closed.load(Ordering::Acquire) {
            return self.closed_here();
        }
        let words = format!("the link with {} broke off: {error}", self.address);
        io::Error::new(error.kind(), words)
    }

    fn wait(&self, until: Until, deadline: Option<Instant>) -> io::Result<()> {
        let waited = self.socket.wait(until, deadline);
        waited.map_err(|error| match (error.kind(), until) {
            (io::ErrorKind::TimedOut, Until::Readable) => {
                let words = format!("{} has sent nothing in the time it had", self.address);
                io::Error::new(io::ErrorKind::TimedOut, words)
            }
            (io::ErrorKind::TimedOut, Until::Writable) => {
                let words = format!("{} does not take what is sent to it", self.address);
                io::Error::new(io::ErrorKind::TimedOut, words)
            }
            _ => self.failure(error),
        })
    }

    fn closed_here(&self) -> io::Error {
        let words = format!("the link with {} was closed by this side", self.address);
        io::Error::new(io::ErrorKind::ConnectionAborted, words)
    }

    fn broken_off(&self) -> io::Error {
        if self.closed.load(Ordering::Acquire) {
            return self.closed_here();
        }
        let words = format!(
            "{} broke off in the middle: its program or its host has ended, or the network",
            self.address
        );
        io::Error::new(io::ErrorKind::UnexpectedEof, words)
    }
}

fn lock(tls: &Mutex<Tls>) -> MutexGuard<'_, Tls> {
    // What panics under it is a bug of ours; what it protects is whole between any two calls.
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Tls {
    /// Sends what the socket takes at once; whether that was all.
    fn send(&mut self, mut socket: &Socket) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if would_block(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn check(&self, wire: &Wire) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(error) => {
                let words = format!(
                    "the link with {} cannot be trusted any more: {error}; make a new one",
                    wire.address
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, words))
            }
        }
    }

    /// Looks at what has come. Messages that are about the connection itself are dealt with here.
    fn process(&mut self, socket: &Socket) {
        if let Err(error) = self.connection.process_new_packets() {
            self.failed = Some(error);
        }
        // An answer or an alert, if there is one; what does not go out now goes with the next data.
        let _ = self.send(socket);
    }
}

impl Receiving {
    /// How long a read may wait; `None` for ever, which is so at first. A read that waits longer is
    /// `TimedOut` and has lost nothing: the next one goes on.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// What ends the link.
    pub fn closer(&self) -> Closer {
        Closer {
            wire: Arc::downgrade(&self.wire),
        }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Fills `bytes` from what is here: `None` when that is nothing, and not the end either.
    fn take(&mut self, tls: &Mutex<Tls>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        let mut tls = lock(tls);
        let mut filled = 0;
        loop {
            match tls.connection.reader().read(&mut bytes[filled..]) {
                Ok(0) => return Ok(Some(filled)),
                Ok(read) => filled += read,
                Err(error) if would_block(&error) => {}
                Err(_) if filled > 0 => return Ok(Some(filled)),
                Err(_) => return Err(self.wire.broken_off()),
            }
            if filled == bytes.len() {
                return Ok(Some(filled));
            }
            if tls.failed.is_some() || self.begin == self.end {
                break;
            }
            match tls
                .connection
                .read_tls(&mut &self.fetched[self.begin..self.end])?
            {
                // The peer has finished; what comes after that is nobody's.
                0 => self.begin = self.end,
                given => {
                    self.begin += given;
                    tls.process(&self.wire.socket);
                }
            }
        }
        if filled > 0 {
            return Ok(Some(filled));
        }
        tls.check(&self.wire)?;
        Ok(None)
    }

    /// Waits for bytes from the socket, and takes what there are.
    fn fetch(&mut self, tls: &Mutex<Tls>, deadline: &mut Deadline) -> io::Result<()> {
        loop {
            match (&self.wire.socket).read(&mut self.fetched) {
                Ok(0) => {
                    let mut tls = lock(tls);
                    tls.connection.read_tls(&mut io::empty())?;
                    tls.process(&self.wire.socket);
                    return Ok(());
                }
                Ok(fetched) => {
                    (self.begin, self.end) = (0, fetched);
                    return Ok(());
                }
                Err(error) if would_block(&error) => {
                    deadline.wait(&self.wire, Until::Readable)?;
                }
                Err(error) => return Err(self.wire.failure(error)),
            }
        }
    }
}

/// A deadline that begins with the first wait: who does not wait does not look at the clock.
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Deadline {
        Deadline { timeout, at: None }
    }

    fn wait(&mut self, wire: &Wire, until: Until) -> io::Result<()> {
        if self.at.is_none() {
            self.at = deadline(self.timeout);
        }
        wire.wait(until, self.at)
    }
}

impl Read for Receiving {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut deadline = Deadline::new(self.timeout);
        let wire = self.wire.clone();
        if let Some(tls) = &wire.tls {
            loop {
                if let Some(read) = self.take(tls, bytes)? {
                    return Ok(read);
                }
                self.fetch(tls, &mut deadline)?;
            }
        }
        loop {
            match (&wire.socket).read(bytes) {
                Ok(0) if wire.closed.load(Ordering::Acquire) => return Err(wire.closed_here()),
                Err(error) if would_block(&error) => deadline.wait(&wire, Until::Readable)?,
                result => return result.map_err(|error| wire.failure(error)),
            }
        }
    }
}

impl Sending {
    /// How long a write may take until the system has it all; `None` for ever, which is so at first.
    /// A write that takes longer is `TimedOut` and was made in part: the link is of no use any more
    /// for writing.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// What ends the link.
    pub fn closer(&self) -> Closer {
        Closer {
            wire: Arc::downgrade(&self.wire),
        }
    }

    /// Tells the peer that nothing follows, which is the end of its stream. The other half goes on.
    pub fn finish(self) -> io::Result<()> {
        self.check()?;
        let mut deadline = Deadline::new(self.timeout);
        if let Some(tls) = &self.wire.tls {
            lock(tls).connection.send_close_notify();
            self.send(tls, &mut deadline)?;
        }
        let shut = self.wire.socket.shutdown(Shutdown::Write);
        shut.map_err(|error| self.wire.failure(error))
    }

    /// Sends all records that there are.
    fn send(&self, tls: &Mutex<Tls>, deadline: &mut Deadline) -> io::Result<()> {
        loop {
            let sent = lock(tls).send(&self.wire.socket);
            match sent {
                Ok(true) => return Ok(()),
                Ok(false) => deadline.wait(&self.wire, Until::Writable)?,
                Err(error) => return Err(self.wire.failure(error)),
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.cut {
            Some(kind) => Err(self.wire.failure(kind.into())),
            None => Ok(()),
        }
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.check()?;
        let mut deadline = Deadline::new(self.timeout);
        let wire = self.wire.clone();
        if let Some(tls) = &wire.tls {
            let sealed = {
                let mut tls = lock(tls);
                tls.check(&wire)?;
                let some = &bytes[..bytes.len().min(SEAL_BYTES)];
                tls.connection.writer().write(some)?
            };
            return match self.send(tls, &mut deadline) {
                Ok(()) => Ok(sealed),
                Err(error) => {
                    self.cut = Some(error.kind());
                    Err(error)
                }
            };
        }
        loop {
            match (&wire.socket).write(bytes) {
                Err(error) if would_block(&error) => deadline.wait(&wire, Until::Writable)?,
                result => return result.map_err(|error| wire.failure(error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()
    }
}

impl Closer {
    /// Ends the link at once, in both directions: reads and writes that wait on this side return
    /// `ConnectionAborted`, and the peer sees a link that broke off.
    pub fn close(&self) {
        if let Some(wire) = self.wire.upgrade() {
            wire.closed.store(true, Ordering::Release);
            // A connection that has ended already cannot be ended, which is as good.
            let _ = wire.socket.shutdown(Shutdown::Both);
        }
    }
}
