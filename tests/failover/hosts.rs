// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host of the service, with an operator who starts what has ended, and etcd.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::network;
use crate::network::Cable;

/// What an operator starts on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Run,
    Spare,
}

/// How the service is run, on both hosts.
#[derive(Clone, Debug)]
pub struct Settings {
    pub wait_for: &'static str,
    /// `None`: nobody is done without.
    pub alone_after_ms: Option<u64>,
    /// For the program.
    pub flag: Option<&'static str>,
}

/// A host.
pub struct Host {
    pub name: &'static str,
    /// Its end of the cable to the other.
    end: usize,
    dir: PathBuf,
    settings: Settings,
    tool: Option<(Child, Verb, Instant)>,
    /// When the operator comes, and with what.
    again: Option<(Instant, Verb)>,
    /// Programs that were stopped.
    stopped: Vec<Pid>,
}

/// An operator who waits in vain for a term starts a spare.
const WAIT_FOR_TERM: Duration = Duration::from_secs(1);

impl Host {
    /// West, number 0, or east, with all that it has in `dir`.
    pub fn new(number: usize, dir: &Path, settings: &Settings) -> Host {
        Host {
            name: ["west", "east"][number],
            end: number,
            dir: dir.to_owned(),
            settings: settings.clone(),
            tool: None,
            again: None,
            stopped: Vec::new(),
        }
    }

    /// Its chain.
    pub fn store(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// What its tools and programs say.
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn cable_to_hub(&self) -> Cable {
        [Cable::HubWest, Cable::HubEast][self.end]
    }

    /// Where its program listens.
    pub fn clients_address(&self) -> String {
        format!("{}:7070", self.cable_to_hub().address(1))
    }

    /// Makes its certificate.
    pub fn certify(&self) -> io::Result<()> {
        let address = Cable::WestEast.address(self.end);
        let issue = [
            "pki",
            "issue",
            "pki",
            self.name,
            "--service",
            "kv",
            "--address",
            &address,
        ];
        ckptctl(&self.dir, &issue).map(drop)
    }

    /// Starts the tool.
    pub fn start(&mut self, verb: Verb) -> io::Result<()> {
        let mut log = self.open_log()?;
        writeln!(log, "---- {verb:?}")?;
        let mut command = network::on(self.name, "ckptctl");
        match verb {
            Verb::Run => command.arg("run"),
            Verb::Spare => command
                .args(["spare", "--listen"])
                .arg(format!("{}:7100", Cable::WestEast.address(self.end))),
        };
        let peer = Cable::WestEast.address(1 - self.end);
        let etcd = format!("http://{}:2379", self.cable_to_hub().address(0));
        command
            .arg("--store")
            .arg(self.store())
            .args(["--service", "kv", "--node", self.name])
            .args(["--pki", &format!("pki/{}", self.name)])
            .args(["--replicate-to", &format!("{peer}:7100")])
            .args(["--wait-for", self.settings.wait_for])
            .args(["--etcd", &etcd, "--ttl", "2s"])
            .args(["--restart", "on-failure", "--max-restarts", "1000000"])
            .args(["--backoff", "1ms..10ms"]);
        if let Some(ms) = self.settings.alone_after_ms {
            command.args(["--alone-after", &format!("{ms}ms")]);
        }
        command
            .args(["--", "kv", "--listen", "0.0.0.0:7070"])
            .args(self.settings.flag);
        let child = command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.tool = Some((child, verb, Instant::now()));
        self.again = None;
        Ok(())
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
    }

    /// The operator comes after a while, with this.
    pub fn plan(&mut self, after: Duration, verb: Verb) {
        self.again = Some((Instant::now() + after, verb));
    }

    /// The operator looks after it.
    pub fn tend(&mut self, is_primary: bool) -> io::Result<()> {
        if let Some((child, verb, since)) = &mut self.tool {
            match child.try_wait()? {
                None if *verb == Verb::Run && !is_primary && since.elapsed() > WAIT_FOR_TERM => {
                    // Another has the term: a spare is of use meanwhile, a waiting `run` is not.
                    let log = std::fs::read_to_string(self.log())?;
                    let last = log.rsplit("---- ").next().unwrap_or_default();
                    if last.contains("waiting until its lease") && !last.contains("kv:") {
                        self.signal(Signal::SIGTERM);
                    }
                }
                None => {}
                Some(status) => {
                    writeln!(self.open_log()?, "---- ended: {status}")?;
                    self.tool = None;
                    self.again.get_or_insert((Instant::now(), Verb::Spare));
                }
            }
        }
        match (&self.tool, self.again) {
            (None, Some((at, verb))) if at <= Instant::now() => self.start(verb),
            _ => Ok(()),
        }
    }

    /// Sends a signal to the tool.
    pub fn signal(&self, signal: Signal) {
        if let Some(tool) = self.tool() {
            // It may have ended.
            let _ = kill(tool, signal);
        }
    }

    /// Sends a signal to the program.
    pub fn signal_program(&mut self, signal: Signal) {
        for child in self.tool().map(children).unwrap_or_default() {
            let _ = kill(child, signal);
            if signal == Signal::SIGSTOP {
                self.stopped.push(child);
            }
        }
    }

    /// All that was stopped goes on, also a program whose tool was killed meanwhile.
    pub fn go_on(&mut self) {
        self.signal(Signal::SIGCONT);
        for program in self.stopped.drain(..) {
            let _ = kill(program, Signal::SIGCONT);
        }
    }

    fn tool(&self) -> Option<Pid> {
        let (child, ..) = self.tool.as_ref()?;
        Some(Pid::from_raw(child.id() as i32))
    }

    /// Ends the tool and the program, kindly if that is possible.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGTERM);
        if let Some((mut child, ..)) = self.tool.take() {
            let deadline = Instant::now() + Duration::from_secs(15);
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                    child.wait()?;
                    return Err(io::Error::other(format!(
                        "the tool on {} does not end when it is told to",
                        self.name
                    )));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.signal_program(Signal::SIGKILL);
        if let Some((child, ..)) = &mut self.tool {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The children of a process.
fn children(of: Pid) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may have anything in it.
        stat.rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| parent(pid) == Some(of.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// Runs the tool to its end; what it printed.
pub fn ckptctl(dir: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("ckptctl")
        .args(arguments)
        .current_dir(dir)
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(format!(
            "ckptctl {}: {}, {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// The one member of etcd.
pub struct Etcd {
    dir: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    /// Starts it, with what it has in `dir`.
    pub fn start(dir: &Path) -> io::Result<Etcd> {
        let mut etcd = Etcd {
            dir: dir.to_owned(),
            process: None,
        };
        etcd.go_on()?;
        // Who founds a service does not wait for etcd.
        let address = format!("{}:2379", Cable::HubWest.address(0));
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = std::net::TcpStream::connect(&address) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(etcd)
    }

    /// Starts it again.
    pub fn go_on(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("etcd.log"))?;
        let urls = [Cable::HubWest, Cable::HubEast]
            .map(|cable| format!("http://{}:2379", cable.address(0)));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.join("etcd"))
            .args(["--listen-client-urls", &urls.join(",")])
            .args(["--advertise-client-urls", &urls[0]])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
