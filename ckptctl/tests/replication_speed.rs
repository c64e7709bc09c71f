// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How fast a link is, beside a plain stream of rustls that copies the same bytes.
//!
//! ```sh
//! cargo test --release -p ckptctl --test replication_speed -- --ignored --nocapture
//! ```
#![cfg(feature = "replication")]

mod authority;

use std::fmt;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use authority::Authority;
use authority::Wish;
use ckptctl::replication::Credentials;
use ckptctl::replication::Link;
use ckptctl::replication::Security;
use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeValLike;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::crypto::ring;

const TOTAL_BYTES: usize = 512 << 20;
const PIECE_BYTES: usize = 256 << 10;
const ROUNDS: usize = 5;

/// What a copy took.
struct Took {
    elapsed: Duration,
    processor: Duration,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speed = (TOTAL_BYTES >> 20) as f64 / self.elapsed.as_secs_f64();
        let processor = self.processor.as_secs_f64();
        write!(f, "{speed:.0} MiB/s with {processor:.2} s of processors")
    }
}

fn processor() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = (used.user_time() + used.system_time()).num_microseconds();
    Duration::from_micros(micros as u64)
}

/// A copy from one thread to another.
fn measured(mut from: impl Write + Send, mut to: impl Read + Send) -> Took {
    let (begun, before) = (Instant::now(), processor());
    thread::scope(|scope| {
        // It stays open until all was read.
        let from = &mut from;
        scope.spawn(move || {
            let piece = vec![0x5a; PIECE_BYTES];
            for _ in 0..TOTAL_BYTES / PIECE_BYTES {
                from.write_all(&piece).unwrap();
            }
            from.flush().unwrap();
        });
        let mut piece = vec![0; PIECE_BYTES];
        for _ in 0..TOTAL_BYTES / PIECE_BYTES {
            to.read_exact(&mut piece).unwrap();
        }
    });
    Took {
        elapsed: begun.elapsed(),
        processor: processor() - before,
    }
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

fn by_link(security: &Security) -> Took {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let long = Duration::from_secs(60);
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            Link::accept(listener.accept().unwrap().0, security, long)
                .unwrap()
                .split()
        });
        let (_receiving, sending) = Link::connect(&address, security, long).unwrap().split();
        let (receiving, _sending) = accepted.join().unwrap();
        measured(sending, receiving)
    })
}

fn by_rustls(authority: &Authority) -> Took {
    let provider = Arc::new(ring::default_provider());
    let signed = authority.sign(&Wish::default());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.certificate.clone()], signed.key())
        .unwrap();
    let client = ClientConnection::new(client.into(), "127.0.0.1".try_into().unwrap()).unwrap();
    let server = ServerConnection::new(server.into()).unwrap();
    let (one, other) = connected();
    measured(
        StreamOwned::new(client, one),
        StreamOwned::new(server, other),
    )
}

#[test]
#[ignore = "it measures: see above"]
fn a_link_is_measured_beside_a_plain_stream_of_rustls() {
    let authority = Authority::new("ours");
    let temp = tempfile::tempdir().unwrap();
    authority.issue(temp.path(), &Wish::default());
    let ours = Security::Tls(Credentials::load(temp.path()).unwrap());
    // In turn, so that what else the machine does meets all of them.
    for _ in 0..ROUNDS {
        let (link, rustls) = (by_link(&ours), by_rustls(&authority));
        let plain = by_link(&Security::PlainOnLoopback);
        let ratio = rustls.elapsed.as_secs_f64() / link.elapsed.as_secs_f64();
        println!("link {link}; rustls {rustls}, so {ratio:.2} of that; without TLS {plain}");
    }
}
