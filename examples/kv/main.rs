// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `kv --listen ADDRESS`: a key-value server whose memory is its database.
//!
//! All of its state, a hash table, is in the arena; nothing is written to a file by hand. It
//! commits when there were writes, a few milliseconds behind the first of them, so that all
//! clients share the cost of going to the disk. Nobody is told that a write was done, or what
//! it wrote, before that is durable: whatever a client has seen is there after a crash.
//!
//! ```sh
//! ckptctl run --store kv.chain --restart on-failure -- kv --listen 127.0.0.1:7070 &
//! nc 127.0.0.1 7070          # SET fruit apple; GET fruit; kill the server; GET fruit
//! ```
//!
//! A request is a line, and so is its answer; a client may send many before it reads answers,
//! which come in the same order.
//!
//! | request | answer |
//! |---|---|
//! | `SET KEY VALUE` | `OK` |
//! | `GET KEY` | `VALUE …`, or `NONE` |
//! | `DEL KEY` | `OK`, or `NONE` |
//! | `LIST N` | up to N lines `KEY VALUE`, in no order, then `END` |
//! | `INFO` | `INFO process … keys … durable …` |
//!
//! What is worth a look: [`Server::answer`] holds answers, [`Server::release`] lets them go when they
//! are safe, [`Server::commit`] makes them so. `--answer-early` does without, for the test
//! that must notice it.

mod client;
mod map;
mod unsaved;

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;
use std::time::Instant;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::Outputs;
use ckptctl::outputs::Released;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use client::Client;
use map::Map;
use unsaved::Needs;
use unsaved::Unsaved;

/// How long the first write of a commit waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// So many keys do not wait.
const GATHER_MAX: usize = 1000;
/// While so many commits are on their way to the disk, the next one gathers writes.
const ON_THEIR_WAY_MAX: usize = 2;
/// How long it waits after a commit that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Answers that can wait at the same time. When there are so many, no requests are read.
const HELD_MAX: usize = 100_000;

/// An answer that waits, and whose it is.
struct Answer {
    client: u64,
    text: Vec<u8>,
}

struct Server {
    context: Context,
    /// The epoch that has what it began with.
    first: u64,
    map: Map,
    unsaved: Unsaved,
    /// Each keeps its order, so that who asks for what is safe does not wait for others' writes.
    outputs: [Outputs<Answer>; 2],
    /// By number, in the order in which they came.
    clients: BTreeMap<u64, Client>,
    /// When to commit next, if there is anything to commit.
    commit_at: Option<Instant>,
    answer_early: bool,
}

impl Server {
    /// Carries out a request of a client.
    fn request(&mut self, client: u64, line: &[u8]) {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let (verb, key, value) = (word(), word(), word());
        let (needs, answer) = match verb {
            b"SET" if !key.is_empty() => self.set(key, value),
            b"DEL" if !key.is_empty() => self.delete(key),
            b"GET" if !key.is_empty() => (
                self.unsaved.needs(key),
                match self.map.get(key) {
                    Some(value) => [b"VALUE ", value, b"\n"].concat(),
                    None => b"NONE\n".to_vec(),
                },
            ),
            b"LIST" => (self.unsaved.needs_all(), self.list(key)),
            b"INFO" => (Needs::Nothing, self.info()),
            _ => (
                Needs::Nothing,
                b"ERR no such request: SET KEY VALUE, GET KEY, DEL KEY, LIST N or INFO\n".to_vec(),
            ),
        };
        self.answer(client, needs, answer);
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> (Needs, Vec<u8>) {
        match self.map.set(key, value) {
            Ok(()) => (self.wrote(key), b"OK\n".to_vec()),
            Err(error) => (self.wrote(key), format!("ERR {error}\n").into_bytes()),
        }
    }

    fn delete(&mut self, key: &[u8]) -> (Needs, Vec<u8>) {
        match self.map.remove(key) {
            Ok(true) => (self.wrote(key), b"OK\n".to_vec()),
            // That it is not there may be news as well.
            Ok(false) => (self.unsaved.needs(key), b"NONE\n".to_vec()),
            Err(error) => (self.wrote(key), format!("ERR {error}\n").into_bytes()),
        }
    }

    fn list(&self, limit: &[u8]) -> Vec<u8> {
        let limit = std::str::from_utf8(limit).ok().and_then(|n| n.parse().ok());
        let mut answer = Vec::new();
        for (key, value) in self.map.iter().take(limit.unwrap_or(usize::MAX)) {
            answer.extend([key, b" ", value, b"\n"].concat());
        }
        answer.extend(b"END\n");
        answer
    }

    fn info(&self) -> Vec<u8> {
        let durable = self.context.durable().ok().flatten().unwrap_or(0);
        let process = std::process::id();
        let keys = self.map.len();
        format!("INFO process {process} keys {keys} durable {durable}\n").into_bytes()
    }

    /// Notes that a key was changed.
    fn wrote(&mut self, key: &[u8]) -> Needs {
        self.unsaved.write(key);
        let now = Instant::now();
        self.commit_at.get_or_insert(now + GATHER);
        if self.unsaved.open() == GATHER_MAX {
            self.commit_at = Some(now);
        }
        Needs::NextCommit
    }

    /// Answers a client, once what the answer depends on is safe.
    ///
    /// Also what no write of this process is in is held: what it began with may be on this host
    /// alone, and a host that is the primary no longer must say nothing at all, as another may
    /// have said something newer.
    fn answer(&mut self, client: u64, needs: Needs, text: Vec<u8>) {
        let Some(whose) = self.clients.get_mut(&client) else {
            return;
        };
        let epoch = match needs {
            _ if self.answer_early => return whose.say(&text),
            Needs::Nothing => self.first,
            Needs::Epoch(epoch) => epoch,
            Needs::NextCommit => 0,
        };
        if whose.held == 0 {
            whose.line = usize::from(matches!(needs, Needs::Nothing));
        }
        match self.outputs[whose.line].hold(epoch, Answer { client, text }) {
            Ok(()) => whose.held += 1,
            // Better no answer than one that may not be true.
            Err(refused) => {
                eprintln!("kv: {}", refused.error);
                self.clients.remove(&client);
            }
        }
    }

    /// Sends the answers that are safe.
    fn release(&mut self) -> Result<(), ckptctl::Error> {
        for outputs in self.outputs.clone() {
            self.release_from(&outputs)?;
        }
        Ok(())
    }

    fn release_from(&mut self, outputs: &Outputs<Answer>) -> Result<(), ckptctl::Error> {
        while let Some(released) = outputs.released(Some(Duration::ZERO))? {
            let (Released::Safe(answer) | Released::Lost(answer)) = &released;
            let Some(client) = self.clients.get_mut(&answer.client) else {
                continue;
            };
            client.held -= 1;
            match released {
                Released::Safe(answer) => client.say(&answer.text),
                // It cannot be told what became of its request.
                Released::Lost(answer) => drop(self.clients.remove(&answer.client)),
            }
        }
        Ok(())
    }

    /// Notes what became durable, and commits when it is time.
    fn commit(&mut self) -> Result<(), ckptctl::Error> {
        let now = Instant::now();
        match self.context.wait(0, Some(Duration::ZERO)) {
            Ok(()) | Err(ckptctl::Error::TimedOut { .. }) => {}
            Err(error) => {
                // The next commit has what those had that were given up.
                if self.commit_at.is_none() {
                    eprintln!("kv: {error}; trying again");
                    self.commit_at = Some(now + RETRY);
                }
            }
        }
        self.unsaved.save(self.context.safe()?.unwrap_or(0));
        let time = self.commit_at.is_some_and(|at| at <= now) || self.context.pending();
        if !time || self.context.stats()?.in_flight >= ON_THEIR_WAY_MAX as u64 {
            return Ok(());
        }
        match self.context.commit() {
            Ok(report) => {
                self.unsaved.commit(report.epoch);
                self.commit_at = None;
            }
            // Nothing is lost, and nobody was told anything.
            Err(error) => {
                eprintln!("kv: {error}; trying again");
                self.commit_at = Some(now + RETRY);
            }
        }
        Ok(())
    }

    /// Answers that wait.
    fn held(&self) -> usize {
        self.outputs.iter().map(Outputs::len).sum()
    }

    /// How long there is nothing to do unless somebody calls.
    fn idle(&self) -> PollTimeout {
        if self.held() < HELD_MAX && self.clients.values().any(Client::has_line) {
            return PollTimeout::ZERO;
        }
        if self.unsaved.on_their_way() > 0 {
            // Also to see that a commit failed, of which nobody calls.
            return PollTimeout::from(5u8);
        }
        match self.commit_at {
            // Somebody outside may ask for a commit.
            None => PollTimeout::from(100u8),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                let ms = left.as_micros().div_ceil(1000);
                PollTimeout::try_from(ms as i32).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    /// Reads from a client and carries out its requests; false if it is gone.
    fn serve(&mut self, number: u64, ready: PollFlags) -> bool {
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if let Some(client) = self.clients.get_mut(&number) {
            let readable = ready.contains(PollFlags::POLLIN);
            if ready.intersects(gone) || (readable && client.receive().is_err()) {
                return false;
            }
        }
        while self.held() < HELD_MAX {
            let line = self.clients.get_mut(&number).and_then(Client::line);
            let Some(line) = line else { break };
            self.request(number, &line);
        }
        match self.clients.get(&number) {
            Some(client) => !client.is_endless(),
            None => false,
        }
    }

    fn run(&mut self, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
        let mut next = 0;
        loop {
            let numbers: Vec<u64> = self.clients.keys().copied().collect();
            let full = self.held() >= HELD_MAX;
            let mut fds = vec![
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.outputs[0].as_fd(), PollFlags::POLLIN),
                PollFd::new(self.outputs[1].as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.clients.values().map(|client| {
                let mut interest = client.interest();
                interest.set(
                    PollFlags::POLLIN,
                    interest.contains(PollFlags::POLLIN) && !full,
                );
                PollFd::new(client.as_fd(), interest)
            }));
            match poll(&mut fds, self.idle()) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<PollFlags> = fds
                .iter()
                .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
                .collect();

            self.release()?;
            for (&number, &ready) in numbers.iter().zip(&ready[3..]) {
                if !self.serve(number, ready) {
                    self.clients.remove(&number);
                }
            }
            if !ready[0].is_empty() {
                // It may be gone again.
                if let Ok(client) = listener
                    .accept()
                    .and_then(|(stream, _)| Client::new(stream))
                {
                    self.clients.insert(next, client);
                    next += 1;
                }
            }
            // Between two requests the table is whole: a safe point.
            self.commit()?;
            self.release()?;
            self.clients
                .retain(|_, client| client.send().is_ok() && !client.is_done());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: kv --listen ADDRESS [--answer-early]";
    let (mut address, mut answer_early) = (None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => address = arguments.next(),
            "--answer-early" => answer_early = true,
            _ => return Err(usage.into()),
        }
    }
    let address = address.ok_or(usage)?;

    // The table has no pointers to code, so a later build of this program can go on from it.
    let context = Context::open(Options::new().name("kv").no_code_pointers())?;
    let map = Map::open(&context)?;
    // From here on there is a durable epoch that answers can depend on.
    let first = context.commit_sync()?.epoch;

    // Sockets do not survive. Who was connected comes again.
    let listener = TcpListener::bind(&address)?;
    listener.set_nonblocking(true)?;
    eprintln!("kv: {} keys, listening on {address}", map.len());
    let mut server = Server {
        outputs: [
            Outputs::new(&context, HELD_MAX)?,
            Outputs::new(&context, HELD_MAX)?,
        ],
        unsaved: Unsaved::default(),
        clients: BTreeMap::new(),
        commit_at: None,
        first,
        context,
        map,
        answer_early,
    };
    server.run(&listener)
}
