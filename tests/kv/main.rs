// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `kv-kills [KILLS [SEED [FLAG]]]`: kills the server of examples/kv at random moments, many times,
//! while clients write and read, and finds out whether any of them was told something that is
//! gone afterwards.
//!
//! Needs ckptctl and kv in the PATH, and leaves its chain in the current folder. FLAG goes to
//! the server. Exit codes: 0 all is well, 1 a promise was broken, 2 it could not be tried.
//!
//! Every change of a key has a number, and numbers are never used again: number N sets the key
//! to N, or removes it when 7 divides N. So whoever reads a key knows which change it was that he
//! saw. What a client was told, of its own writes or of others', is a promise: nobody may read an
//! older one after that. See [`keys::Key`].

mod keys;
mod random;
mod traffic;

use std::io;
use std::net::TcpListener;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use keys::Keys;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use random::Random;
use traffic::Connection;
use traffic::Traffic;

/// A server that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;
const READERS: usize = 2;

/// The server and who looks after it.
struct Server {
    supervisor: Child,
    address: String,
}

impl Server {
    fn start(flag: Option<&str>) -> io::Result<Server> {
        // A port that nobody has now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let supervisor = Command::new("ckptctl")
            .args(["run", "--store", "chain", "--restart", "on-failure"])
            .args(["--max-restarts", "1000000", "--backoff", "1ms..10ms"])
            .args(["--", "kv", "--listen", &address])
            .args(flag)
            .spawn()?;
        Ok(Server {
            supervisor,
            address,
        })
    }

    /// The process that answers now. Waits until there is one.
    fn process(&mut self) -> io::Result<Pid> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.supervisor.try_wait()? {
                return Err(io::Error::other(format!("the supervisor ended: {status}")));
            }
            let told = Connection::open(&self.address, PATIENCE).and_then(|mut server| {
                server.send(b"INFO\n")?;
                server.line()
            });
            match told {
                Ok(line) => {
                    let pid = line.split(' ').nth(2).and_then(|pid| pid.parse().ok());
                    return pid.map(Pid::from_raw).ok_or_else(|| {
                        io::Error::other(format!("INFO was answered with {line:?}"))
                    });
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Lets it end.
    fn stop(mut self) -> io::Result<()> {
        kill(Pid::from_raw(self.supervisor.id() as i32), Signal::SIGTERM)?;
        self.supervisor.wait().map(drop)
    }
}

/// Kills the server so many times among the traffic.
fn torment(server: &mut Server, kills: u64, random: &mut Random, keys: &Keys) -> io::Result<()> {
    for number in 0..kills {
        // There is something to be lost in each life.
        let (before, deadline) = (keys.acknowledged(), Instant::now() + PATIENCE);
        while keys.acknowledged() < before + 20 && keys.broken() == 0 {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "nobody was told anything after kill {number}: the server hangs"
                )));
            }
            thread::sleep(Duration::from_millis(1));
        }
        if keys.broken() > 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(random.below(100_000)));
        let process = server.process()?;
        thread::sleep(Duration::from_micros(random.below(5_000)));
        kill(process, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Reads all keys, twice, with a kill in between.
fn read_all(server: &mut Server, keys: &Keys) -> io::Result<()> {
    for _ in 0..2 {
        let process = server.process()?;
        let mut connection = Connection::open(&server.address, PATIENCE)?;
        for key in 0..keys.len() {
            connection.get(keys, key)?;
        }
        connection.list(keys)?;
        kill(process, Signal::SIGKILL)?;
    }
    Ok(())
}

fn try_it(kills: u64, seed: u64, flag: Option<&str>) -> io::Result<bool> {
    let keys = Keys::new(WRITERS);
    let mut random = Random::new(seed, 0);
    let mut server = Server::start(flag)?;
    server.process()?;
    let addresses = [server.address.clone()];
    let traffic = Traffic::new(&addresses, PATIENCE, &keys, seed);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let traffic = &traffic;
                scope.spawn(move || traffic.write(writer))
            })
            .chain((0..READERS).map(|reader| {
                let traffic = &traffic;
                scope.spawn(move || traffic.read(reader))
            }))
            .collect();
        let tormented = torment(&mut server, kills, &mut random, &keys);
        traffic.stop();
        for client in clients {
            client
                .join()
                .map_err(|_| io::Error::other("a client panicked"))?;
        }
        tormented
    })?;
    if keys.broken() == 0 {
        read_all(&mut server, &keys)?;
    }
    server.stop()?;
    println!(
        "{} changes were acknowledged and {} reads answered, {} promises were broken",
        keys.acknowledged(),
        keys.reads(),
        keys.broken()
    );
    Ok(keys.broken() == 0)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next() {
        Some(text) => text.parse().expect("a number"),
        None => default,
    };
    let kills = number(25);
    let now = std::time::SystemTime::now();
    let time = now.duration_since(std::time::UNIX_EPOCH);
    let seed = number(u64::from(time.map_or(1, |time| time.subsec_nanos())));
    println!("{kills} kills, seed {seed}");
    match try_it(kills, seed, arguments.next().as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kv-kills: {error}");
            ExitCode::from(2)
        }
    }
}
