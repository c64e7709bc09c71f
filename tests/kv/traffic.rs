// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients that write and read until they are stopped, over as many connections as it takes.

use std::collections::HashMap;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::keys::Keys;
use crate::keys::removes;
use crate::random::Random;

/// Requests that are sent before the first answer is read, at most.
const AT_ONCE: u64 = 8;

/// A connection to the server.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a server that has so long for that, and for each answer.
    pub fn open(address: &str, patience: Duration) -> io::Result<Connection> {
        let address = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Sends requests.
    pub fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(requests)
    }

    /// Receives a line.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        // Half a line is none: the server was killed.
        match line.pop() {
            Some('\n') => Ok(line),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads a key.
    pub fn get(&mut self, keys: &Keys, key: usize) -> io::Result<()> {
        let promised = keys.promised(key);
        self.send(format!("GET key{key}\n").as_bytes())?;
        let answer = self.line()?;
        read(keys, key, promised, &answer);
        Ok(())
    }

    /// Reads all keys at once.
    pub fn list(&mut self, keys: &Keys) -> io::Result<()> {
        let promised: Vec<u64> = (0..keys.len()).map(|key| keys.promised(key)).collect();
        self.send(b"LIST 1000000\n")?;
        let mut values = HashMap::new();
        loop {
            let line = self.line()?;
            if line == "END" {
                break;
            }
            match line.split_once(' ') {
                Some((key, value)) => values.insert(key.to_owned(), value.to_owned()),
                None => {
                    keys.break_promise(&format!("LIST gave {line:?}"));
                    return Ok(());
                }
            };
        }
        for (key, promised) in promised.into_iter().enumerate() {
            let value = values.remove(&format!("key{key}"));
            let answer = value.map_or("NONE".into(), |value| format!("VALUE {value}"));
            read(keys, key, promised, &answer);
        }
        if let Some(key) = values.keys().next() {
            keys.break_promise(&format!("nobody has written {key}"));
        }
        Ok(())
    }
}

/// What the server says of a key.
fn read(keys: &Keys, key: usize, promised: u64, answer: &str) {
    let change = answer.strip_prefix("VALUE ").and_then(parse_value);
    match (change, answer) {
        (Some(change), _) => keys.read(key, promised, Some(change)),
        (None, "NONE") => keys.read(key, promised, None),
        _ => keys.break_promise(&format!("key {key} was answered with {answer:?}")),
    }
}

/// The value of a change: its number, and as many letters as make blocks of different sizes.
fn value(change: u64) -> String {
    format!("{change}{}", "x".repeat(change as usize * 37 % 300))
}

fn parse_value(text: &str) -> Option<u64> {
    let change = text.trim_end_matches('x').parse().ok()?;
    (value(change) == text).then_some(change)
}

/// All clients.
pub struct Traffic<'a> {
    addresses: &'a [String],
    patience: Duration,
    keys: &'a Keys,
    seed: u64,
    stopped: AtomicBool,
}

impl<'a> Traffic<'a> {
    /// Clients of the server that answers at one of these addresses, and for each answer has so long.
    pub fn new(
        addresses: &'a [String],
        patience: Duration,
        keys: &'a Keys,
        seed: u64,
    ) -> Traffic<'a> {
        Traffic {
            addresses,
            patience,
            keys,
            seed,
            stopped: AtomicBool::new(false),
        }
    }

    /// Lets them end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Uses connections until it is stopped or a promise was broken; each until it breaks.
    fn connected(&self, mut work: impl FnMut(&mut Connection) -> io::Result<()>) {
        let go_on = || !self.stopped.load(Ordering::SeqCst) && self.keys.broken() == 0;
        for address in self.addresses.iter().cycle() {
            if !go_on() {
                return;
            }
            let Ok(mut connection) = Connection::open(address, self.patience) else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            while go_on() && work(&mut connection).is_ok() {}
        }
    }

    /// Changes keys, several at once, some of them several times.
    pub fn write(&self, writer: usize) {
        let mut random = Random::new(self.seed, 1 + writer as u64);
        self.connected(|server| {
            let mut requests = Vec::new();
            let changes: Vec<(usize, u64)> = (0..=random.below(AT_ONCE))
                .map(|_| {
                    let key = self.keys.of(writer, random.below(1000));
                    let change = self.keys.change(key);
                    let request = match removes(change) {
                        true => format!("DEL key{key}\n"),
                        false => format!("SET key{key} {}\n", value(change)),
                    };
                    requests.extend(request.into_bytes());
                    (key, change)
                })
                .collect();
            if let Err(error) = self.change(server, &requests, &changes) {
                // Who has hung up reads no more requests. From who is silent one may be carried
                // out much later, behind the next change of the same key on another connection.
                if !is_hung_up(&error) {
                    changes.iter().for_each(|&(key, _)| self.keys.retire(key));
                }
                return Err(error);
            }
            server.get(self.keys, self.keys.of(writer, random.below(1000)))
        });
    }

    /// Sends changes and takes the answers.
    fn change(
        &self,
        server: &mut Connection,
        requests: &[u8],
        changes: &[(usize, u64)],
    ) -> io::Result<()> {
        server.send(requests)?;
        for &(key, change) in changes {
            match server.line()?.as_str() {
                "OK" => self.keys.acknowledge(key, change),
                // The changes before it may have been lost, but it is not there now.
                "NONE" if removes(change) => self.keys.acknowledge(key, change),
                answer => self
                    .keys
                    .break_promise(&format!("change {change} was answered with {answer:?}")),
            }
        }
        Ok(())
    }

    /// Reads keys of all writers.
    pub fn read(&self, reader: usize) {
        let mut random = Random::new(self.seed, 1000 + reader as u64);
        self.connected(|server| {
            if random.below(50) == 0 {
                return server.list(self.keys);
            }
            let key = random.below(self.keys.len() as u64) as usize;
            server.get(self.keys, key)
        });
    }
}

/// Whether the server's side of a connection is closed.
fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
