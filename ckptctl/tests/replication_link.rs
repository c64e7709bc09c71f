// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Links over real sockets: who gets one, who does not, and what each side is told.
#![cfg(feature = "replication")]

mod authority;

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use authority::Authority;
use authority::Signed;
use authority::Wish;
use authority::put;
use ckptctl::replication::Credentials;
use ckptctl::replication::Link;
use ckptctl::replication::LinkError;
use ckptctl::replication::Peer;
use ckptctl::replication::Receiving;
use ckptctl::replication::Security;
use ckptctl::replication::Sending;
use ckptctl::replication::credentials::Flaw;
use ckptctl::replication::link::Refusal;
use rustls::AlertDescription;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::Connection;
use rustls::Error as TlsError;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(30);
/// For what is to time out.
const SHORT: Duration = Duration::from_millis(200);

const PLAIN: Security = Security::PlainOnLoopback;

fn security(dir: &Path) -> Security {
    Security::Tls(Credentials::load(dir).unwrap())
}

fn issued(authority: &Authority, wish: &Wish<'_>) -> Security {
    let temp = tempfile::tempdir().unwrap();
    authority.issue(temp.path(), wish);
    security(temp.path())
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

type Made = Result<Link, LinkError>;

/// What both sides get: who accepts, and who connects.
fn meet(accepting: &Security, connecting: &Security) -> (Made, Made) {
    let (listener, address) = listen();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            Link::accept(stream, accepting, LONG)
        });
        let connected = Link::connect(&address, connecting, LONG);
        (accepted.join().unwrap(), connected)
    })
}

/// A stranger's stream, which gives up rather than wait for ever for what does not come.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// What is accepted of somebody who is no link of ours.
fn accept_from<T: Send>(
    accepting: &Security,
    timeout: Duration,
    stranger: impl FnOnce(TcpStream) -> T + Send,
) -> (Made, T) {
    let (listener, address) = listen();
    thread::scope(|scope| {
        let stranger = scope.spawn(|| stranger(patient(TcpStream::connect(address).unwrap())));
        let (stream, _) = listener.accept().unwrap();
        let accepted = Link::accept(stream, accepting, timeout);
        (accepted, stranger.join().unwrap())
    })
}

/// What comes of connecting to somebody who is no link of ours.
fn connect_to<T: Send>(
    connecting: &Security,
    timeout: Duration,
    stranger: impl FnOnce(TcpStream) -> T + Send,
) -> (Made, T) {
    let (listener, address) = listen();
    thread::scope(|scope| {
        let stranger = scope.spawn(|| stranger(patient(listener.accept().unwrap().0)));
        let connected = Link::connect(&address, connecting, timeout);
        (connected, stranger.join().unwrap())
    })
}

/// A good link by TLS: who has accepted, and who has connected.
fn linked() -> (Link, Link) {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    let (accepted, connected) = meet(&ours, &ours);
    (accepted.unwrap(), connected.unwrap())
}

fn plainly_linked() -> (Link, Link) {
    let (accepted, connected) = meet(&PLAIN, &PLAIN);
    (accepted.unwrap(), connected.unwrap())
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    roots
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A time that somebody believes it is.
#[derive(Debug)]
struct InDays(u64);

impl TimeProvider for InDays {
    fn current_time(&self) -> Option<UnixTime> {
        let days = Duration::from_secs(self.0 * 24 * 3600);
        let now = Duration::from_secs(UnixTime::now().as_secs());
        Some(UnixTime::since_unix_epoch(now + days))
    }
}

/// A client of TLS that is not ours.
fn client(
    authority: &Authority,
    signed: Option<&Signed>,
    protocol: Option<&[u8]>,
    clock: InDays,
) -> ClientConnection {
    let config = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority));
    let mut config = match signed {
        Some(signed) => config
            .with_client_auth_cert(vec![signed.certificate.clone()], signed.key())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    let connection = ClientConnection::new(config.into(), "127.0.0.1".try_into().unwrap());
    connection.unwrap()
}

/// A server of TLS that is not ours, and that knows the protocol.
fn server(authority: &Authority, signed: &Signed) -> ServerConnection {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority).into(), provider());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![signed.certificate.clone()], signed.key())
        .unwrap();
    config.alpn_protocols = vec![b"ckpt/1".to_vec()];
    ServerConnection::new(config.into()).unwrap()
}

/// What a stranger hears until the end, or the error with which that comes.
fn hear(connection: impl Into<Connection>, mut stream: TcpStream) -> Result<Vec<u8>, TlsError> {
    let mut connection = connection.into();
    let mut heard = Vec::new();
    loop {
        match connection.complete_io(&mut stream) {
            Ok((0, 0)) => return Ok(heard),
            Ok(_) => {
                let _ = connection.reader().read_to_end(&mut heard);
            }
            Err(error) => return error.downcast().map_or(Ok(heard), Err),
        }
    }
}

/// A stranger that has come through the handshake and heard the welcome.
fn welcomed(
    mut connection: ClientConnection,
    mut stream: TcpStream,
) -> (ClientConnection, TcpStream) {
    let mut heard = [0; 7];
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    tls.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ckpt/1\n");
    (connection, stream)
}

/// Bytes that differ from their neighbours near and far.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn read_exactly(receiving: &mut Receiving, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    receiving.read_exact(&mut bytes).unwrap();
    bytes
}

/// Writes until an error comes of it.
fn write_on(sending: &mut Sending) -> io::Error {
    let bytes = noise(1 << 20);
    loop {
        if let Err(error) = sending.write(&bytes) {
            return error;
        }
    }
}

// Who gets a link.

#[test]
fn both_sides_know_each_other_by_their_certificates() {
    let ours = Authority::new("ours");
    let east = Wish {
        services: &["kv", "queue"],
        ..Wish::default()
    };
    let west = Wish {
        names: &["west"],
        services: &[],
        addresses: &[],
        ..Wish::default()
    };
    let (accepted, connected) = meet(&issued(&ours, &east), &issued(&ours, &west));
    let peer = |node: &str, services: &[&str]| Peer {
        node: node.into(),
        services: services.iter().map(|name| (*name).into()).collect(),
    };
    assert_eq!(accepted.unwrap().peer(), Some(&peer("west", &[])));
    assert_eq!(
        connected.unwrap().peer(),
        Some(&peer("east", &["kv", "queue"]))
    );
}

#[test]
fn a_peer_can_be_reached_by_a_name_of_its_certificate() {
    let ours = Authority::new("ours");
    let wish = Wish {
        names: &["east", "localhost"],
        addresses: &[],
        ..Wish::default()
    };
    let security = issued(&ours, &wish);
    let (listener, address) = listen();
    let address = address.replace("127.0.0.1", "localhost");
    thread::scope(|scope| {
        scope.spawn(|| Link::accept(listener.accept().unwrap().0, &security, LONG).unwrap());
        let link = Link::connect(&address, &security, LONG).unwrap();
        assert_eq!(link.peer().unwrap().node, "east");
    });
}

#[test]
fn a_client_without_a_certificate_is_refused_and_told_so() {
    let ours = Authority::new("ours");
    let (accepted, heard) = accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
        hear(client(&ours, None, Some(b"ckpt/1"), InDays(0)), stream)
    });
    let error = accepted.unwrap_err();
    assert!(matches!(error, LinkError::NoCertificate { .. }), "{error}");
    let told = TlsError::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(heard, Err(told));
}

#[test]
fn a_peer_that_wants_a_certificate_is_understood() {
    // The alert comes in the clear here, and within TLS it is the same.
    let ours = Authority::new("ours");
    let (connected, _) = connect_to(&issued(&ours, &Wish::default()), LONG, |mut stream| {
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(&[21, 3, 3, 0, 2, 2, 116]).unwrap();
        io::copy(&mut stream, &mut io::sink())
    });
    assert!(matches!(
        connected.unwrap_err(),
        LinkError::Refused {
            refusal: Refusal::CertificateRequired,
            ..
        }
    ));
}

#[test]
fn a_server_of_another_authority_is_refused_also_when_that_has_the_same_name() {
    for name in ["theirs", "ours"] {
        let ours = issued(&Authority::new("ours"), &Wish::default());
        let theirs = issued(&Authority::new(name), &Wish::default());
        let (accepted, connected) = meet(&theirs, &ours);
        assert!(matches!(
            connected.unwrap_err(),
            LinkError::Certificate {
                flaw: Flaw::Authority,
                ..
            }
        ));
        assert!(matches!(
            accepted.unwrap_err(),
            LinkError::Refused {
                refusal: Refusal::Authority,
                ..
            }
        ));
    }
}

#[test]
fn a_client_of_another_authority_is_refused_and_told_so() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let temp = tempfile::tempdir().unwrap();
    // It trusts both, and so comes as far as to show its certificate.
    let both = format!("{}{}", ours.pem, theirs.pem);
    put(temp.path(), &both, &theirs.sign(&Wish::default()));
    let (accepted, connected) = meet(&issued(&ours, &Wish::default()), &security(temp.path()));
    assert!(matches!(
        accepted.unwrap_err(),
        LinkError::Certificate {
            flaw: Flaw::Authority,
            ..
        }
    ));
    assert!(matches!(
        connected.unwrap_err(),
        LinkError::Refused {
            refusal: Refusal::Authority,
            ..
        }
    ));
}

const EXPIRED: Wish<'_> = Wish {
    names: &["east"],
    services: &[],
    addresses: &["127.0.0.1"],
    since_days: 20,
    until_days: -3,
};

#[test]
fn a_client_with_an_expired_certificate_is_refused_and_told_so() {
    let ours = Authority::new("ours");
    let expired = ours.sign(&EXPIRED);
    let (accepted, heard) = accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
        let client = client(&ours, Some(&expired), Some(b"ckpt/1"), InDays(0));
        hear(client, stream)
    });
    let said = accepted.unwrap_err().to_string();
    assert!(
        said.contains("its certificate has expired 3 days ago"),
        "{said}"
    );
    let told = TlsError::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(heard, Err(told));
}

#[test]
fn a_server_with_an_expired_certificate_is_refused_and_told_so() {
    let ours = Authority::new("ours");
    let expired = ours.sign(&EXPIRED);
    let (connected, heard) = connect_to(&issued(&ours, &Wish::default()), LONG, |stream| {
        hear(server(&ours, &expired), stream)
    });
    assert!(matches!(
        connected.unwrap_err(),
        LinkError::Certificate {
            flaw: Flaw::Expired { at: Some(_) },
            ..
        }
    ));
    let told = TlsError::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(heard, Err(told));
}

#[test]
fn a_node_learns_that_its_own_certificate_has_expired_elsewhere() {
    let ours = Authority::new("ours");
    let theirs = ours.sign(&Wish::default());
    let (accepted, _) = accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
        let client = client(&ours, Some(&theirs), Some(b"ckpt/1"), InDays(60));
        hear(client, stream)
    });
    assert!(matches!(
        accepted.unwrap_err(),
        LinkError::Refused {
            refusal: Refusal::Expired,
            ..
        }
    ));
}

#[test]
fn a_server_whose_certificate_is_for_another_name_is_refused_and_told_so() {
    let ours = Authority::new("ours");
    let elsewhere = Wish {
        addresses: &["127.0.0.2"],
        ..Wish::default()
    };
    let (accepted, connected) = meet(&issued(&ours, &elsewhere), &issued(&ours, &Wish::default()));
    let error = connected.unwrap_err();
    let said = error.to_string();
    assert!(
        matches!(
            error,
            LinkError::Certificate {
                flaw: Flaw::Name { .. },
                ..
            }
        ),
        "{said}"
    );
    assert!(said.contains("is not for 127.0.0.1"), "{said}");
    assert!(said.contains("--address 127.0.0.1"), "{said}");
    assert!(matches!(
        accepted.unwrap_err(),
        LinkError::Refused {
            refusal: Refusal::Certificate,
            ..
        }
    ));
}

/// What a client says that speaks TLS 1.2 at most: no extension names the versions.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; one cipher suite, no compression.
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    // Signature schemes, groups, points.
    let extensions = [
        0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0,
    ];
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

#[test]
fn a_client_of_tls_1_2_is_refused_and_told_so() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    let (accepted, heard) = accept_from(&ours, LONG, |mut stream| {
        stream.write_all(&hello_of_tls_1_2()).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let error = accepted.unwrap_err();
    assert!(
        matches!(error, LinkError::NoCommonVersion { .. }),
        "{error}"
    );
    // The alert `protocol_version`, fatal.
    assert_eq!(heard, [21, 3, 3, 0, 2, 2, 70]);
}

#[test]
fn a_server_of_tls_1_2_is_refused() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    // One that says so, and one that goes on in its own version.
    let mut hello = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2f, 0]);
    for answer in [vec![21, 3, 3, 0, 2, 2, 70], hello] {
        let (connected, _) = connect_to(&ours, LONG, |mut stream| {
            stream.read_exact(&mut [0; 100]).unwrap();
            stream.write_all(&answer).unwrap();
            io::copy(&mut stream, &mut io::sink())
        });
        let error = connected.unwrap_err();
        assert!(
            matches!(error, LinkError::NoCommonVersion { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_client_of_another_protocol_or_of_none_is_refused() {
    let ours = Authority::new("ours");
    let signed = ours.sign(&Wish::default());
    for protocol in [Some(&b"h2"[..]), None] {
        let (accepted, _) = accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
            hear(client(&ours, Some(&signed), protocol, InDays(0)), stream)
        });
        let error = accepted.unwrap_err();
        assert!(
            matches!(error, LinkError::NoCommonProtocol { .. }),
            "{error}"
        );
    }
}

#[test]
fn nothing_listens_is_said_with_what_to_do() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    let (listener, address) = listen();
    drop(listener);
    let error = Link::connect(&address, &ours, LONG).unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }));
    assert!(
        error
            .to_string()
            .contains("nothing listens there: start the peer")
    );
}

// Without TLS.

#[test]
fn without_tls_there_is_a_link_on_loopback_with_nobody_known() {
    let (accepted, connected) = plainly_linked();
    assert_eq!((accepted.peer(), connected.peer()), (None, None));
    let (_, mut sending) = accepted.split();
    sending.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut connected.split().0, 5), b"hello");
}

#[test]
fn without_tls_nobody_connects_to_another_host() {
    let error = Link::connect("192.0.2.1:7100", &PLAIN, LONG).unwrap_err();
    assert!(matches!(error, LinkError::NotLoopback { .. }), "{error}");
}

#[test]
fn without_tls_nobody_is_accepted_who_comes_by_another_address() {
    // This host's own address in the network, if it has one: nothing is sent to find that out.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let found = probe
        .connect("192.0.2.1:7")
        .and_then(|()| probe.local_addr());
    let Some(own) = found.ok().filter(|own| !own.ip().is_loopback()) else {
        return;
    };
    let listener = TcpListener::bind(SocketAddr::new(own.ip(), 0)).unwrap();
    let _stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let error = Link::accept(stream, &PLAIN, LONG).unwrap_err();
    assert!(matches!(error, LinkError::NotLoopback { .. }), "{error}");
}

#[test]
fn a_side_with_tls_and_one_without_tell_what_is_the_matter() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    for (accepting, connecting) in [(&ours, &PLAIN), (&PLAIN, &ours)] {
        let (accepted, connected) = meet(accepting, connecting);
        for (own, made) in [(accepting, accepted), (connecting, connected)] {
            let error = made.unwrap_err();
            match own {
                Security::Tls(_) => assert!(matches!(error, LinkError::NotTls { .. }), "{error}"),
                Security::PlainOnLoopback => {
                    assert!(matches!(error, LinkError::WantsTls { .. }), "{error}");
                }
            }
        }
    }
}

#[test]
fn something_else_that_speaks_is_no_link() {
    let (accepted, _) = accept_from(&PLAIN, LONG, |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")
    });
    let error = accepted.unwrap_err();
    assert!(
        matches!(error, LinkError::NoCommonProtocol { .. }),
        "{error}"
    );
}

// Deadlines.

#[test]
fn a_silent_peer_holds_up_neither_who_accepts_nor_who_connects() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    for security in [&ours, &PLAIN] {
        let (_silent, address) = listen();
        let error = Link::connect(&address, security, SHORT).unwrap_err();
        assert!(matches!(error, LinkError::TimedOut { .. }), "{error}");
        let (accepted, _silent) = accept_from(security, SHORT, |stream| stream);
        let error = accepted.unwrap_err();
        assert!(matches!(error, LinkError::TimedOut { .. }), "{error}");
    }
}

#[test]
fn a_peer_that_says_a_byte_now_and_then_has_no_longer() {
    let ours = issued(&Authority::new("ours"), &Wish::default());
    let (accepted, ()) = accept_from(&ours, SHORT, |mut stream| {
        // The header of a handshake that never comes to its end.
        stream.write_all(&[22, 3, 1, 0x3f, 0]).unwrap();
        while stream.write_all(&[1]).is_ok() {
            thread::sleep(SHORT / 20);
        }
    });
    let error = accepted.unwrap_err();
    assert!(matches!(error, LinkError::TimedOut { .. }), "{error}");
}

// Data.

#[test]
fn megabytes_go_both_ways_at_once() {
    for (one, other) in [linked(), plainly_linked()] {
        let bytes = &noise(24 << 20)[..];
        thread::scope(|scope| {
            for link in [one, other] {
                let (mut receiving, mut sending) = link.split();
                scope.spawn(move || {
                    // Pieces of all sizes, so that no end of one is that of a record.
                    let mut rest = bytes;
                    for len in (1..).map(|at| at * at * 7 % 700_001) {
                        let (piece, after) = rest.split_at(len.min(rest.len()));
                        sending.write_all(piece).unwrap();
                        rest = after;
                        if rest.is_empty() {
                            break;
                        }
                    }
                    sending.finish().unwrap();
                });
                scope.spawn(move || {
                    let mut read = Vec::new();
                    receiving.read_to_end(&mut read).unwrap();
                    assert!(read == bytes);
                });
            }
        });
    }
}

#[test]
fn one_byte_at_a_time_arrives_as_well() {
    let (one, other) = linked();
    let (_, mut sending) = one.split();
    let (mut receiving, _other) = other.split();
    for byte in 0..100 {
        sending.write_all(&[byte]).unwrap();
        assert_eq!(read_exactly(&mut receiving, 1), [byte]);
    }
}

#[test]
fn a_peer_that_does_not_read_lets_writes_time_out() {
    for (one, _other) in [linked(), plainly_linked()] {
        let (_, mut sending) = one.split();
        sending.set_timeout(Some(SHORT));
        let error = write_on(&mut sending);
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}

#[test]
fn nothing_follows_a_record_that_was_cut_short() {
    let (one, other) = linked();
    let (_, mut sending) = one.split();
    sending.set_timeout(Some(SHORT));
    write_on(&mut sending);
    let (mut receiving, _other) = other.split();
    // There is room again, and yet.
    read_exactly(&mut receiving, 1 << 20);
    let error = sending.write(b"after").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_peer_that_does_not_read_keeps_nobody_from_reading() {
    let (one, other) = linked();
    let (mut receiving, mut sending) = one.split();
    let (others_receiving, mut others_sending) = other.split();
    receiving.set_timeout(Some(LONG));
    let closer = sending.closer();
    let bytes = noise(8 << 20);
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            loop {
                match sending.write(&bytes) {
                    Ok(written) => total.fetch_add(written, Ordering::Relaxed),
                    Err(error) => break error,
                };
            }
        });
        // Until it is stuck.
        let mut seen = 0;
        while seen == 0 || seen != total.load(Ordering::Relaxed) {
            seen = total.load(Ordering::Relaxed);
            thread::sleep(SHORT);
        }
        scope.spawn(|| others_sending.write_all(&bytes).unwrap());
        assert!(read_exactly(&mut receiving, 8 << 20) == bytes);
        assert!(!writing.is_finished());
        closer.close();
        assert_eq!(writing.join().unwrap().kind(), ErrorKind::ConnectionAborted);
    });
    drop(others_receiving);
}

#[test]
fn a_read_that_times_out_loses_nothing() {
    for (one, other) in [linked(), plainly_linked()] {
        let (_, mut sending) = one.split();
        let (mut receiving, _other) = other.split();
        receiving.set_timeout(Some(SHORT));
        for _ in 0..2 {
            let error = receiving.read(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            sending.write_all(b"all of it").unwrap();
            assert_eq!(read_exactly(&mut receiving, 9), b"all of it");
        }
    }
}

#[test]
fn a_record_of_which_a_part_has_come_is_waited_for_without_losing_it() {
    let ours = Authority::new("ours");
    let signed = ours.sign(&Wish::default());
    let (accepted, (mut connection, mut stream)) =
        accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
            welcomed(
                client(&ours, Some(&signed), Some(b"ckpt/1"), InDays(0)),
                stream,
            )
        });
    connection.writer().write_all(b"in two halves").unwrap();
    let mut record = Vec::new();
    connection.write_tls(&mut record).unwrap();
    let (mut receiving, _sending) = accepted.unwrap().split();
    receiving.set_timeout(Some(SHORT));
    let (first, second) = record.split_at(record.len() / 2);
    stream.write_all(first).unwrap();
    let error = receiving.read(&mut [0; 13]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    stream.write_all(second).unwrap();
    assert_eq!(read_exactly(&mut receiving, 13), b"in two halves");
}

// The end of a link.

#[test]
fn a_finished_stream_ends_and_the_other_direction_goes_on() {
    for (one, other) in [linked(), plainly_linked()] {
        let (mut receiving, mut sending) = one.split();
        let (mut others_receiving, mut others_sending) = other.split();
        sending.write_all(b"the last").unwrap();
        sending.finish().unwrap();
        let mut read = Vec::new();
        others_receiving.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"the last");
        others_sending.write_all(b"and yet").unwrap();
        assert_eq!(read_exactly(&mut receiving, 7), b"and yet");
    }
}

#[test]
fn a_stream_that_was_cut_off_is_told_from_one_that_ended() {
    let (one, other) = linked();
    let (_, mut sending) = one.split();
    let (mut receiving, _other) = other.split();
    sending.write_all(b"not the last").unwrap();
    // Both halves of the one are gone now, and nothing was said.
    drop(sending);
    assert_eq!(read_exactly(&mut receiving, 12), b"not the last");
    for _ in 0..2 {
        let error = receiving.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        assert!(error.to_string().contains("broke off in the middle"));
    }
}

#[test]
fn a_closer_ends_reads_and_writes_that_wait() {
    for (one, _other) in [linked(), plainly_linked()] {
        let closer = one.closer();
        let (mut receiving, mut sending) = one.split();
        thread::scope(|scope| {
            let reading = scope.spawn(move || receiving.read(&mut [0; 10]).unwrap_err());
            let writing = scope.spawn(move || write_on(&mut sending));
            // So that they do wait, if all goes well; if not, they find the link closed.
            thread::sleep(SHORT);
            closer.close();
            for waiting in [reading, writing] {
                let error = waiting.join().unwrap();
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
            }
        });
        // Of what is gone already, too.
        closer.close();
    }
}

#[test]
fn a_link_whose_halves_are_gone_is_closed_whoever_has_a_closer() {
    let (one, other) = linked();
    let _closer = one.closer();
    drop(one.split());
    let (mut receiving, _sending) = other.split();
    receiving.set_timeout(Some(LONG));
    let error = receiving.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
}

#[test]
fn what_is_not_of_the_peer_ends_the_trust_for_good() {
    let ours = Authority::new("ours");
    let signed = ours.sign(&Wish::default());
    let (accepted, (mut connection, mut stream)) =
        accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
            welcomed(
                client(&ours, Some(&signed), Some(b"ckpt/1"), InDays(0)),
                stream,
            )
        });
    let (mut receiving, mut sending) = accepted.unwrap().split();
    // Good, forged, good.
    connection.writer().write_all(b"good").unwrap();
    connection.write_tls(&mut stream).unwrap();
    stream
        .write_all(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat())
        .unwrap();
    connection.writer().write_all(b"late").unwrap();
    connection.write_tls(&mut stream).unwrap();
    assert_eq!(read_exactly(&mut receiving, 4), b"good");
    for _ in 0..2 {
        let error = receiving.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }
    let error = sending.write(b"to whom").unwrap_err();
    assert!(
        error.to_string().contains("cannot be trusted any more"),
        "{error}"
    );
    let told = TlsError::AlertReceived(AlertDescription::BadRecordMac);
    drop((receiving, sending));
    assert_eq!(hear(connection, stream), Err(told));
}

#[test]
fn keys_are_changed_on_the_way() {
    let ours = Authority::new("ours");
    let signed = ours.sign(&Wish::default());
    let (accepted, (mut connection, mut stream)) =
        accept_from(&issued(&ours, &Wish::default()), LONG, |stream| {
            welcomed(
                client(&ours, Some(&signed), Some(b"ckpt/1"), InDays(0)),
                stream,
            )
        });
    let (mut receiving, mut sending) = accepted.unwrap().split();
    for _ in 0..3 {
        // It asks for the same of us.
        connection.refresh_traffic_keys().unwrap();
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        tls.write_all(b"by a new key").unwrap();
        tls.flush().unwrap();
        assert_eq!(read_exactly(&mut receiving, 12), b"by a new key");
        sending.write_all(b"so is this").unwrap();
        let mut heard = [0; 10];
        tls.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"so is this");
    }
}

#[test]
fn a_broken_link_raises_no_sigpipe() {
    use nix::sys::signal::SigSet;
    use nix::sys::signal::Signal;
    // Blocked, so that it would stay pending; the system sends it to the thread that writes.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block().unwrap();
    for (one, other) in [linked(), plainly_linked()] {
        let (_receiving, mut sending) = one.split();
        drop(other);
        write_on(&mut sending);
        // The first after a reset is what raises it.
        let _ = sending.write(b"again");
        assert!(!pending(Signal::SIGPIPE));
    }
}

/// Whether a signal waits for this thread.
fn pending(signal: nix::sys::signal::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let set = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    (set >> (signal as i32 - 1)) & 1 == 1
}
