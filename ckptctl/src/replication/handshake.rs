// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From a connection to the certainty about who is at its other end.

use std::io;
use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;
use std::time::Instant;

use rustls::Connection;

use super::credentials::PROTOCOL;
use super::flaw::Flaw;
use super::link_error::LinkError;
use super::peer::Peer;
use super::socket::Socket;
use super::socket::Until;

/// How long a peer that is refused may take to read why.
pub(super) const PARTING: Duration = Duration::from_secs(1);

/// By when a link has to be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
}

impl Limit {
    pub(super) fn new(timeout: Duration) -> Limit {
        // Longer than anybody waits, where the sum is not a time any more.
        let far = Duration::from_secs(365 * 24 * 3600);
        let now = Instant::now();
        Limit {
            timeout,
            deadline: now.checked_add(timeout).unwrap_or(now + far),
        }
    }
}

/// Brings the handshake of TLS to its end, and tells who the peer is. A peer that is refused is
/// told why.
pub(super) fn shake(
    connection: &mut Connection,
    socket: &Socket,
    address: &str,
    limit: Limit,
) -> Result<Peer, LinkError> {
    let done =
        drive(connection, socket, address, limit).and_then(|()| examined(connection, address));
    if done.is_err() {
        part(connection, socket, limit);
    }
    done
}

fn drive(
    connection: &mut Connection,
    socket: &Socket,
    address: &str,
    limit: Limit,
) -> Result<(), LinkError> {
    let told = |error| LinkError::of_io(address, limit.timeout, error);
    loop {
        send(connection, socket, limit.deadline).map_err(told)?;
        if !connection.is_handshaking() {
            return Ok(());
        }
        socket
            .wait(Until::Readable, Some(limit.deadline))
            .map_err(told)?;
        match connection.read_tls(&mut &*socket) {
            Ok(0) => return Err(told(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                let processed = connection.process_new_packets();
                processed.map_err(|error| LinkError::of_tls(address, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(told(error)),
        }
    }
}

/// What TLS leaves open: that the peer speaks our protocol, and which node it is.
fn examined(connection: &Connection, address: &str) -> Result<Peer, LinkError> {
    let address = || address.to_owned();
    // A peer that names no protocol at all is not refused by TLS.
    if connection.alpn_protocol() != Some(PROTOCOL) {
        return Err(LinkError::NoCommonProtocol { address: address() });
    }
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| LinkError::NoCertificate { address: address() })?;
    Peer::named_in(shown).ok_or_else(|| LinkError::Certificate {
        address: address(),
        flaw: Flaw::Nameless,
    })
}

/// Sends all that TLS wants to send.
fn send(connection: &mut Connection, socket: &Socket, deadline: Instant) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(&mut &*socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.wait(Until::Writable, Some(deadline))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends the alert that says why there will be no link, and waits a little until it was read: were
/// the socket closed while something from the peer has not been read, the system would throw
/// away what the peer has not read yet.
fn part(connection: &mut Connection, socket: &Socket, limit: Limit) {
    let deadline = limit.deadline.min(Instant::now() + PARTING);
    if send(connection, socket, deadline).is_ok() {
        linger(socket, deadline);
    }
}

/// Reads and forgets what a peer still sends, until it ends the connection or the time is over.
pub(super) fn linger(mut socket: &Socket, deadline: Instant) {
    let _ = socket.shutdown(Shutdown::Write);
    let mut forgotten = [0; 4096];
    while Instant::now() < deadline {
        match socket.read(&mut forgotten) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if socket.wait(Until::Readable, Some(deadline)).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
