// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A spare that is sent what no primary would send: sessions that were recorded, changed frame by
//! frame, with their checksums made anew. Its chain stays whole, it takes no more memory than came, and
//! the next primary that keeps to the protocol is served.
//!
//! `CKPT_FUZZ_INPUTS` says how many sessions, `CKPT_FUZZ_SEED` begins with another one; a failure prints its own.

mod support;

use std::env;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use ckptctl::replication::Finished;
use ckptctl::replication::Link;
use ckptctl::replication::Observer;
use ckptctl::replication::Progress;
use ckptctl::replication::Security;
use ckptctl::replication::Sender;
use ckptctl::replication::SenderOptions;
use ckptctl::replication::Spare;
use ckptctl::replication::SpareOptions;
use ckptctl::replication::Until;
use ckptctl::saving::Compacting;
use ckptctl::store::Chain;
use ckptctl::store::Options;
use ckptctl::sys::event::Event;
use support::*;

/// Longer than a session takes.
const LONG: Duration = Duration::from_secs(60);

/// What each side says first.
const WORD: &[u8] = b"ckpt/1\n";

struct Quiet;

impl Observer for Quiet {
    fn connected(&self, _: &str, _: u64, _: u64) {}
    fn progress(&self, _: Progress) {}
    fn lost(&self, _: &str) {}
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A frame as it is on the link.
#[derive(Clone)]
struct Frame {
    kind: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.kind.to_le_bytes().to_vec();
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend(crc32c::crc32c(&self.payload).to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    bytes = bytes.strip_prefix(WORD).unwrap();
    let mut frames = Vec::new();
    while bytes.len() >= 16 {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = word(4) as usize;
        frames.push(Frame {
            kind: word(0),
            payload: bytes[16..16 + len].to_vec(),
        });
        bytes = &bytes[16 + len..];
    }
    frames
}

fn spare(dir: &std::path::Path) -> Arc<Spare> {
    let options = SpareOptions {
        dir: dir.to_owned(),
        service: "test".into(),
        node: "east".into(),
        store: Options::default(),
        compacting: Compacting::Never,
        arena: false,
    };
    Arc::new(Spare::open(options).unwrap().0)
}

/// Serves one link after the other, in a thread, for as many as there are.
fn serve(spare: &Arc<Spare>, listener: TcpListener, count: usize) -> thread::JoinHandle<()> {
    let spare = Arc::clone(spare);
    thread::spawn(move || {
        for _ in 0..count {
            let (stream, _) = listener.accept().unwrap();
            if let Ok(link) = Link::accept(stream, &Security::PlainOnLoopback, LONG) {
                spare.serve(link);
            }
        }
    })
}

fn send(dir: &std::path::Path, to: &str) {
    let options = SenderOptions {
        dir: dir.to_owned(),
        to: to.to_owned(),
        security: Security::PlainOnLoopback,
        service: "test".into(),
        node: "west".into(),
        term: 1,
        limit: None,
    };
    let stop = Event::new().unwrap();
    let finished = Sender::new(options, Arc::new(Quiet)).run(Until::Complete, stop.as_fd());
    assert_eq!(finished.unwrap(), Finished::Complete);
}

/// What a sender says while it sends a chain to an empty spare.
fn recorded(dir: &std::path::Path) -> Vec<Frame> {
    let there = memory_dir();
    let (spare, behind) = (
        spare(there.path()),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let to = behind.local_addr().unwrap();
    let serving = serve(&spare, behind, 1);
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = front.local_addr().unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&said);
    let between = thread::spawn(move || {
        let (mut from, _) = front.accept().unwrap();
        let mut to = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let mut bytes = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            noting.lock().unwrap().extend(&bytes[..len]);
            to.write_all(&bytes[..len]).unwrap();
        }
        let _ = to.shutdown(Shutdown::Both);
        back.join().unwrap();
    });
    send(dir, &address.to_string());
    between.join().unwrap();
    serving.join().unwrap();
    let said = said.lock().unwrap();
    frames(&said)
}

/// Changes a session in one to three places.
fn changed(session: &[Frame], random: &mut Random) -> Vec<u8> {
    let mut frames = session.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(frames.len());
        match random.below(9) {
            0 => drop(frames.remove(at)),
            1 => {
                let copy = frames[at].clone();
                frames.insert(random.below(frames.len()), copy);
            }
            2 => {
                let other = random.below(frames.len());
                frames.swap(at, other);
            }
            3 => frames[at].kind = random.below(17) as u32,
            4 => {
                let len = random.below(frames[at].payload.len() + 1);
                frames[at].payload.truncate(len);
            }
            5 => {
                let more = random.below(300);
                frames[at].payload.extend((0..more).map(|byte| byte as u8));
            }
            6 => {
                let text = &mut frames[at].payload;
                for word in text.chunks_exact_mut(8).take(random.below(6)) {
                    word.copy_from_slice(&u64::MAX.to_le_bytes());
                }
            }
            _ => {
                let payload = &mut frames[at].payload;
                let place = random.below(payload.len());
                if let Some(byte) = payload.get_mut(place) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        if frames.is_empty() {
            break;
        }
    }
    let mut bytes: Vec<u8> = WORD.to_vec();
    bytes.extend(frames.iter().flat_map(Frame::bytes));
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len()).max(1)),
        1 => {
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
        }
        _ => {}
    }
    bytes
}

#[test]
fn whatever_a_spare_is_sent_its_chain_is_whole_and_the_next_primary_is_served() {
    let here = memory_dir();
    let images = full_chain(here.path());
    let session = recorded(here.path());
    assert!(session.len() > 15, "{} frames", session.len());
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse().ok());
    let inputs = number("CKPT_FUZZ_INPUTS").unwrap_or(600);
    let seed: u64 = number("CKPT_FUZZ_SEED").unwrap_or(0x5eed_0f5e_5510_0001);
    println!("seed {seed}, {inputs} sessions");
    for batch in 0..inputs.div_ceil(20) {
        let there = memory_dir();
        let spare = spare(there.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(&spare, listener, 21);
        for input in 0..20 {
            let mut random = Random(seed.wrapping_add(batch * 20 + input) | 1);
            random.next();
            let bytes = changed(&session, &mut random);
            let mut stream = TcpStream::connect(address).unwrap();
            let mut back = stream.try_clone().unwrap();
            let reading = thread::spawn(move || {
                let mut rest = Vec::new();
                let _ = back.read_to_end(&mut rest);
            });
            // It may have had enough before the end.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            reading.join().unwrap();
            let chain = Chain::open(there.path()).unwrap();
            assert!(
                chain.damage().is_empty(),
                "seed {seed}, input {}",
                batch * 20 + input
            );
            for info in chain.commits() {
                let restored = restore(&chain, info.epoch).unwrap();
                let wanted = images.get(&info.epoch);
                assert!(
                    wanted == Some(&restored),
                    "seed {seed}, input {}",
                    batch * 20 + input
                );
            }
        }
        // A term that was made up is a term: whoever has a lower one is refused.
        let term = spare.status().term;
        if term <= 1 {
            send(here.path(), &address.to_string());
            let chain = Chain::open(there.path()).unwrap();
            assert!(restore(&chain, 9).unwrap() == images[&9]);
        } else {
            drop(TcpStream::connect(address));
        }
        serving.join().unwrap();
    }
}
