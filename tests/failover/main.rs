// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `failover [SCHEDULES [SEED [FAULT]]]`: two hosts that are each other's spare, with etcd, and what
//! can befall them: killed programs, tools and etcd, processes that are stopped for longer than a
//! lease, networks that are cut in one direction or both. Clients write and read through whoever
//! answers, and it finds out whether any of them was told something that is gone afterwards, and
//! whether there were ever two primaries.
//!
//! Needs ckptctl, kv, etcd and ip in the PATH, and namespaces of its own for the network, mounts and
//! processes: see tests/failover.sh. It leaves what it made in the current folder when a promise was
//! broken. Schedule number N is that of the seed SEED + N, so `failover 1 SEED+N` repeats it.
//! FAULT is one that must be found: `durable` acknowledges what no spare has, `early` what is
//! not even committed. Exit codes: 0 all is well, 1 a promise was broken, 2 it could not be tried.
//!
//! What is promised, and why it can be seen, is as with kv-kills; see [`keys::Key`].

mod hosts;
#[path = "../kv/keys.rs"]
mod keys;
mod network;
#[path = "../kv/random.rs"]
mod random;
mod referee;
mod schedule;
#[path = "../kv/traffic.rs"]
mod traffic;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use hosts::Etcd;
use hosts::Host;
use hosts::Settings;
use hosts::Verb;
use hosts::ckptctl;
use keys::Keys;
use network::CABLES;
use network::Cable;
use network::Cut;
use nix::sys::signal::Signal;
use referee::Referee;
use schedule::Blow;
use schedule::Schedule;
use schedule::Whose;
use traffic::Connection;
use traffic::Traffic;

/// For an answer. Who is cut off or stopped does not answer.
const PATIENCE: Duration = Duration::from_millis(700);
/// Everybody works again, and nobody answers for so long: it hangs.
const RECOVERY: Duration = Duration::from_secs(30);
const WRITERS: usize = 2;
const READERS: usize = 1;
/// So many acknowledged changes show that all goes on.
const PROGRESS: u64 = 20;

/// The hosts while a schedule goes on.
struct Stage<'a> {
    hosts: [Host; 2],
    etcd: Etcd,
    referee: &'a Referee<'a>,
    keys: &'a Keys,
    begun: Instant,
    netem: bool,
}

impl Stage<'_> {
    /// Both operators look after their hosts, for so long or until it is as wanted; whether it is.
    fn tend(&mut self, within: Duration, wanted: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline && self.keys.broken() == 0 {
            for (number, host) in self.hosts.iter_mut().enumerate() {
                host.tend(self.referee.is_primary(number))?;
            }
            if wanted(self) {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5).min(within));
        }
        Ok(false)
    }

    /// Waits until clients are told something again.
    fn recover(&mut self) -> io::Result<()> {
        let before = self.keys.acknowledged();
        let goes_on = self.tend(RECOVERY, |stage| {
            stage.keys.acknowledged() >= before + PROGRESS
        })?;
        if !goes_on && self.keys.broken() == 0 {
            self.keys.break_promise(&format!(
                "nobody was told anything for {RECOVERY:?} though all is well"
            ));
        }
        Ok(())
    }

    fn host(&mut self, whose: Whose) -> (usize, &mut Host) {
        let primary = self.referee.primary().unwrap_or(0);
        let number = match whose {
            Whose::Primary => primary,
            Whose::Other => 1 - primary,
        };
        (number, &mut self.hosts[number])
    }

    fn strike(&mut self, blow: &Blow) -> io::Result<()> {
        let primary = self.referee.primary().unwrap_or(0);
        println!(
            "  {:>6} ms, {} is the primary: {blow:?}",
            self.begun.elapsed().as_millis(),
            self.hosts[primary].name
        );
        match blow {
            Blow::KillProgram => self.hosts[primary].signal_program(Signal::SIGKILL),
            Blow::KillTool(whose, after, verb) => {
                let (_, host) = self.host(*whose);
                host.signal(Signal::SIGKILL);
                host.plan(*after, *verb);
            }
            Blow::StopTool(whose) => self.host(*whose).1.signal(Signal::SIGSTOP),
            Blow::StopProgram => self.hosts[primary].signal_program(Signal::SIGSTOP),
            Blow::StopBoth => {
                self.hosts[primary].signal_program(Signal::SIGSTOP);
                self.hosts[primary].signal(Signal::SIGSTOP);
            }
            Blow::GoOn => {
                self.hosts.iter_mut().for_each(Host::go_on);
            }
            Blow::KillEtcd => self.etcd.kill()?,
            Blow::StartEtcd => self.etcd.go_on()?,
            Blow::Cut(cable, cut) => cable.cut(*cut)?,
            Blow::Isolate(whose, cut) => {
                let (number, _) = self.host(*whose);
                let reversed = Cut {
                    from_first: cut.from_second,
                    from_second: cut.from_first,
                };
                // It is the second end of its cable to the hub, and west the first to east.
                let (to_hub, to_other) = match number {
                    0 => (Cable::HubWest, *cut),
                    _ => (Cable::HubEast, reversed),
                };
                to_hub.cut(reversed)?;
                Cable::WestEast.cut(to_other)?;
            }
            Blow::Unplug(cable) => cable.plug(false)?,
            Blow::Disturb(cable, how) => cable.disturb(Some(how))?,
            Blow::Heal => self.heal()?,
        }
        Ok(())
    }

    fn heal(&self) -> io::Result<()> {
        for cable in CABLES {
            cable.plug(true)?;
            if self.netem {
                // There may be nothing to be removed.
                let _ = cable.disturb(None);
            }
        }
        Ok(())
    }

    /// Founds the service, and waits until it has a spare and clients.
    fn begin(&mut self) -> io::Result<()> {
        self.hosts[0].start(Verb::Run)?;
        self.hosts[1].start(Verb::Spare)?;
        let log = self.hosts[0].log();
        let has_spare = move |_: &Stage<'_>| {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("in sync: east"))
        };
        match self.tend(RECOVERY, has_spare)? {
            true => self.recover(),
            false => Err(io::Error::other("the service does not begin")),
        }
    }

    fn go_through(&mut self, schedule: &Schedule) -> io::Result<()> {
        self.begun = Instant::now();
        for (at, blow) in &schedule.blows {
            let left = at.saturating_sub(self.begun.elapsed());
            self.tend(left, |_| false)?;
            if self.keys.broken() > 0 {
                return Ok(());
            }
            self.strike(blow)?;
        }
        self.heal()?;
        self.etcd.go_on()?;
        self.recover()?;
        // What nobody took over was never looked at.
        if self.referee.term() == 1 && self.keys.broken() == 0 {
            self.strike(&Blow::KillTool(Whose::Primary, Duration::ZERO, Verb::Spare))?;
            self.recover()?;
        }
        Ok(())
    }

    /// Reads all keys from whoever answers.
    fn read_all(&mut self) -> io::Result<()> {
        let addresses = [0, 1].map(|number: usize| self.hosts[number].clients_address());
        let keys = self.keys;
        let read = move |_: &Stage<'_>| {
            addresses.iter().any(|address| {
                let connected = Connection::open(address, PATIENCE);
                connected.and_then(|mut server| server.list(keys)).is_ok()
            })
        };
        if !self.tend(RECOVERY, read)? && keys.broken() == 0 {
            keys.break_promise("nobody answers at the end");
        }
        Ok(())
    }
}

/// Goes through a schedule in a folder of its own; whether all promises were kept.
fn try_one(dir: &Path, seed: u64, settings: Settings, netem: bool) -> io::Result<bool> {
    let schedule = Schedule::of(seed, settings, netem);
    fs::create_dir(dir)?;
    ckptctl(dir, &["pki", "init", "pki", "--name", "failover"])?;
    let hosts = [0, 1].map(|number| Host::new(number, dir, &schedule.settings));
    hosts.iter().try_for_each(Host::certify)?;
    let addresses = [hosts[0].clients_address(), hosts[1].clients_address()];
    let keys = Keys::new(WRITERS);
    let referee = Referee::new([hosts[0].store(), hosts[1].store()], &keys);
    let traffic = Traffic::new(&addresses, PATIENCE, &keys, seed);
    let mut stage = Stage {
        hosts,
        etcd: Etcd::start(dir)?,
        referee: &referee,
        keys: &keys,
        begun: Instant::now(),
        netem,
    };
    thread::scope(|scope| {
        scope.spawn(|| referee.watch());
        for writer in 0..WRITERS {
            let traffic = &traffic;
            scope.spawn(move || traffic.write(writer));
        }
        for reader in 0..READERS {
            let traffic = &traffic;
            scope.spawn(move || traffic.read(reader));
        }
        let gone = stage.begin().and_then(|()| stage.go_through(&schedule));
        traffic.stop();
        let read = match keys.broken() {
            0 => gone.and_then(|()| stage.read_all()),
            _ => gone,
        };
        referee.stop();
        read
    })?;
    if keys.broken() == 0 {
        stage.hosts.iter_mut().try_for_each(Host::stop)?;
        referee::compare(dir, &keys)?;
    }
    println!(
        "  {} changes were acknowledged and {} reads answered in {} terms, {} promises were broken",
        keys.acknowledged(),
        keys.reads(),
        referee.term(),
        keys.broken()
    );
    stage.heal()?;
    Ok(keys.broken() == 0)
}

fn try_all(schedules: u64, seed: u64, settings: &Settings) -> io::Result<bool> {
    network::build()?;
    let netem = network::has_netem();
    if !netem {
        println!(
            "WARNING: this kernel has no netem: nothing is delayed, lost at random or swapped"
        );
    }
    for number in 0..schedules {
        let seed = seed.wrapping_add(number);
        println!("schedule {} of {schedules}, seed {seed}", number + 1);
        let dir = std::env::current_dir()?.join(seed.to_string());
        if !try_one(&dir, seed, settings.clone(), netem)? {
            println!(
                "`failover 1 {seed}` repeats it; what is left is in {}",
                dir.display()
            );
            return Ok(false);
        }
        fs::remove_dir_all(&dir)?;
    }
    Ok(true)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next() {
        Some(text) => text.parse().expect("a number"),
        None => default,
    };
    let schedules = number(24);
    let now = std::time::SystemTime::now();
    let time = now.duration_since(std::time::UNIX_EPOCH);
    let seed = number(u64::from(time.map_or(1, |time| time.subsec_nanos())));
    let right = Settings {
        wait_for: "replicated",
        alone_after_ms: None,
        flag: None,
    };
    let settings = match arguments.next().as_deref() {
        None => right,
        Some("durable") => Settings {
            wait_for: "durable",
            ..right
        },
        Some("early") => Settings {
            flag: Some("--answer-early"),
            ..right
        },
        Some(other) => {
            eprintln!("failover: there is no fault {other}");
            return ExitCode::from(2);
        }
    };
    match try_all(schedules, seed, &settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover: {error}");
            ExitCode::from(2)
        }
    }
}
