// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connection with a peer, both of which know whom they speak with.
//!
//! TLS 1.3 with certificates on both sides; on one host, for trying things out and for tests, without. Either
//! way the side that was connected to says `ckpt/1` when it has accepted the other, so that who connects
//! learns at once when it was refused, and why.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::ToSocketAddrs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::ClientConnection;
use rustls::Connection;
use rustls::ServerConnection;
use rustls_pki_types::ServerName;

use super::credentials::Credentials;
use super::handshake;
use super::handshake::Limit;
use super::link_error::LinkError;
pub use super::link_error::Refusal;
use super::peer::Peer;
use super::socket::Socket;
pub use super::wire::Closer;
pub use super::wire::Receiving;
pub use super::wire::Sending;
use super::wire::halves;

/// What whoever accepts says first; without TLS, whoever connects as well.
const WELCOME: &[u8; 7] = b"ckpt/1\n";

/// The first bytes of a record of TLS: a handshake's or an alert's.
const TLS_RECORDS: [u8; 2] = [22, 21];

/// How the two sides make sure of each other.
#[derive(Clone, Debug)]
pub enum Security {
    /// By certificates.
    Tls(Credentials),
    /// Not at all, and on this host's loopback addresses only: every user of the host can connect.
    PlainOnLoopback,
}

/// A connection with a peer.
pub struct Link {
    receiving: Receiving,
    sending: Sending,
    peer: Option<Peer>,
}

impl Link {
    /// Connects to `HOST:PORT`, within the timeout. By TLS, the peer's certificate must be for HOST.
    pub fn connect(
        address: &str,
        security: &Security,
        timeout: Duration,
    ) -> Result<Link, LinkError> {
        let limit = Limit::new(timeout);
        let host = host(address)?;
        let stream = reach(address, security, limit)?;
        let socket = ready(stream, address, security, limit)?;
        let secured = match security {
            Security::PlainOnLoopback => None,
            Security::Tls(credentials) => {
                let name = ServerName::try_from(host).map_err(|_| LinkError::Address {
                    address: address.into(),
                })?;
                let connection = ClientConnection::new(credentials.client(), name.to_owned());
                let connection = connection.map_err(|error| LinkError::of_tls(address, error))?;
                Some(Connection::from(connection))
            }
        };
        let mut link = Link::secure(socket, secured, address, limit)?;
        if link.peer.is_none() {
            link.say_welcome(limit)?;
        }
        link.expect_welcome(limit)?;
        Ok(link.begun())
    }

    /// Makes a link of a connection that somebody has made to us, within the timeout.
    pub fn accept(
        stream: TcpStream,
        security: &Security,
        timeout: Duration,
    ) -> Result<Link, LinkError> {
        let limit = Limit::new(timeout);
        let address = match stream.peer_addr() {
            Ok(address) => address.to_string(),
            Err(source) => {
                return Err(LinkError::BrokenOff {
                    address: "a peer".into(),
                    source,
                });
            }
        };
        let socket = ready(stream, &address, security, limit)?;
        let secured = match security {
            Security::PlainOnLoopback => None,
            Security::Tls(credentials) => {
                let connection = ServerConnection::new(credentials.server());
                let connection = connection.map_err(|error| LinkError::of_tls(&address, error))?;
                Some(Connection::from(connection))
            }
        };
        let mut link = Link::secure(socket, secured, &address, limit)?;
        link.say_welcome(limit)?;
        if link.peer.is_none() {
            link.expect_welcome(limit)?;
        }
        Ok(link.begun())
    }

    /// Who is at the other end; `None` without TLS.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The address of the other end, as it was given or seen.
    pub fn address(&self) -> &str {
        self.receiving.wire().address()
    }

    /// What ends the link from another thread.
    pub fn closer(&self) -> Closer {
        self.receiving.closer()
    }

    /// The two halves, for two threads. The connection is closed when both are gone.
    pub fn split(self) -> (Receiving, Sending) {
        (self.receiving, self.sending)
    }

    fn secure(
        socket: Socket,
        connection: Option<Connection>,
        address: &str,
        limit: Limit,
    ) -> Result<Link, LinkError> {
        let mut connection = connection;
        let peer = match &mut connection {
            None => None,
            Some(connection) => Some(handshake::shake(connection, &socket, address, limit)?),
        };
        let (receiving, sending) = halves(socket, connection, address.into());
        Ok(Link {
            receiving,
            sending,
            peer,
        })
    }

    fn say_welcome(&mut self, limit: Limit) -> Result<(), LinkError> {
        self.sending.set_timeout(Some(left(limit)));
        let said = self.sending.write_all(WELCOME);
        said.map_err(|error| LinkError::of_io(self.address(), limit.timeout, error))
    }

    /// Waits for the other side's word. What comes instead says why there is none.
    fn expect_welcome(&mut self, limit: Limit) -> Result<(), LinkError> {
        let mut heard = [0; WELCOME.len()];
        let mut length = 0;
        while length < heard.len() {
            self.receiving.set_timeout(Some(left(limit)));
            match self.receiving.read(&mut heard[length..]) {
                Ok(0) => return Err(self.unwelcome(limit, io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => length += read,
                Err(error) => return Err(self.unwelcome(limit, error)),
            }
            if heard[..length] != WELCOME[..length] {
                return Err(self.another(limit, heard[0]));
            }
        }
        Ok(())
    }

    fn unwelcome(&self, limit: Limit, error: io::Error) -> LinkError {
        match self.receiving.wire().refusal() {
            Some(alert) => LinkError::of_tls(self.address(), alert),
            None => LinkError::of_io(self.address(), limit.timeout, error),
        }
    }

    /// Something else than a welcome came.
    fn another(&self, limit: Limit, first: u8) -> LinkError {
        let address = self.address().to_owned();
        if self.peer.is_some() || !TLS_RECORDS.contains(&first) {
            return LinkError::NoCommonProtocol { address };
        }
        // Our own word tells the peer as much, if it can still read it.
        let parting = Instant::now() + handshake::PARTING;
        handshake::linger(self.receiving.wire().socket(), limit.deadline.min(parting));
        LinkError::WantsTls { address }
    }

    /// Without the deadlines of its making.
    fn begun(mut self) -> Link {
        self.receiving.set_timeout(None);
        self.sending.set_timeout(None);
        self
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn left(limit: Limit) -> Duration {
    limit.deadline.saturating_duration_since(Instant::now())
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host(address: &str) -> Result<&str, LinkError> {
    let wrong = || LinkError::Address {
        address: address.into(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(host) {
        "" => Err(wrong()),
        // Which colon is the port's cannot be told.
        host if bare.is_none() && host.contains(':') => Err(wrong()),
        host => Ok(host),
    }
}

/// A connection to any of a name's addresses, in their order.
fn reach(address: &str, security: &Security, limit: Limit) -> Result<TcpStream, LinkError> {
    let mut addresses = resolve(address, limit)?;
    if matches!(security, Security::PlainOnLoopback) {
        addresses.retain(|address| is_loopback(address.ip()));
        if addresses.is_empty() {
            return Err(LinkError::NotLoopback {
                address: address.into(),
            });
        }
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let count = addresses.len() as u32;
    for (at, candidate) in (0..count).zip(&addresses) {
        // The rest of the time is for all that are left, so that a silent one does not take it all.
        let share = left(limit) / (count - at);
        if share.is_zero() {
            last = io::ErrorKind::TimedOut.into();
            break;
        }
        match TcpStream::connect_timeout(candidate, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::TimedOut => LinkError::TimedOut {
            address: address.into(),
            timeout: limit.timeout,
        },
        _ => LinkError::Unreachable {
            address: address.into(),
            source: last,
        },
    })
}

/// The addresses of a name. The system takes its own time for that, so it is asked in a thread, which
/// is left behind when the time is over.
fn resolve(address: &str, limit: Limit) -> Result<Vec<SocketAddr>, LinkError> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let unresolved = |source| LinkError::Unresolved {
        address: address.into(),
        source,
    };
    let (answer, answered) = mpsc::channel();
    let name = address.to_owned();
    thread::Builder::new()
        .name("ckpt-resolve".into())
        .spawn(move || {
            let found = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Nobody may wait any more.
            let _ = answer.send(found);
        })
        .map_err(unresolved)?;
    match answered.recv_timeout(left(limit)) {
        Ok(found) => found.map_err(unresolved),
        Err(_) => Err(unresolved(io::ErrorKind::TimedOut.into())),
    }
}

/// A socket whose other end is where it may be.
fn ready(
    stream: TcpStream,
    address: &str,
    security: &Security,
    limit: Limit,
) -> Result<Socket, LinkError> {
    let told = |error| LinkError::of_io(address, limit.timeout, error);
    let socket = Socket::new(stream).map_err(told)?;
    let real = socket.peer().map_err(told)?;
    match security {
        Security::PlainOnLoopback if !is_loopback(real.ip()) => Err(LinkError::NotLoopback {
            address: address.into(),
        }),
        _ => Ok(socket),
    }
}

/// Also for an IPv4 address in IPv6's clothes.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_comes_before_the_port() {
        assert_eq!(host("east.example.com:7100").unwrap(), "east.example.com");
        assert_eq!(host("127.0.0.1:7100").unwrap(), "127.0.0.1");
        assert_eq!(host("[::1]:7100").unwrap(), "::1");
    }

    #[test]
    fn an_address_without_host_or_port_is_refused() {
        for address in [
            "",
            "east",
            ":7100",
            "east:",
            "east:seven",
            "::1:7100",
            "[]:1",
        ] {
            let error = host(address).unwrap_err();
            assert!(matches!(error, LinkError::Address { .. }), "{address}");
        }
    }

    #[test]
    fn loopback_is_all_of_127_and_of_ipv6_whatever_the_clothes() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1"] {
            assert!(!is_loopback(address.parse().unwrap()), "{address}");
        }
    }
}
