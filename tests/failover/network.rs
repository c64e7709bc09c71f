// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two hosts and what is between them: namespaces, each joined with each by a cable of its own,
//! so that any pair can lose each other in any direction.
//!
//! Nobody hears what is sent to a MAC address that nobody has. That is how one direction is cut: it
//! needs no module of the kernel, and who sends notices nothing, as with a broken switch.

use std::io;
use std::process::Command;
use std::process::Stdio;

/// A pair that has a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    WestEast,
    HubWest,
    HubEast,
}

/// All of them.
pub const CABLES: [Cable; 3] = [Cable::WestEast, Cable::HubWest, Cable::HubEast];

/// What happens to packets in the directions from the first and from the second of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub from_first: bool,
    pub from_second: bool,
}

impl Cable {
    /// The namespaces at its ends; the hub is where this process is.
    fn ends(self) -> [&'static str; 2] {
        match self {
            Cable::WestEast => ["west", "east"],
            Cable::HubWest => ["hub", "west"],
            Cable::HubEast => ["hub", "east"],
        }
    }

    fn number(self) -> usize {
        self as usize + 1
    }

    /// The address of one of its ends.
    pub fn address(self, end: usize) -> String {
        format!("10.99.{}.{}", self.number(), end + 1)
    }

    fn device(self, end: usize) -> String {
        format!("to-{}", self.ends()[1 - end])
    }

    fn mac(self, end: usize) -> String {
        format!("02:00:00:00:{:02}:{:02}", self.number(), end + 1)
    }

    fn make(self) -> io::Result<()> {
        let [first, second] = self.ends();
        let line = format!(
            "link add {} address {} type veth peer name {} address {} netns {second}",
            self.device(0),
            self.mac(0),
            self.device(1),
            self.mac(1)
        );
        ip(first, &line)?;
        for end in 0..2 {
            let host = self.ends()[end];
            ip(
                host,
                &format!(
                    "address add {}/24 dev {}",
                    self.address(end),
                    self.device(end)
                ),
            )?;
        }
        self.plug(true)
    }

    /// Puts it in at both ends, or pulls it out.
    pub fn plug(self, is_in: bool) -> io::Result<()> {
        let state = if is_in { "up" } else { "down" };
        for end in 0..2 {
            ip(
                self.ends()[end],
                &format!("link set {} {state}", self.device(end)),
            )?;
        }
        match is_in {
            true => self.cut(Cut {
                from_first: false,
                from_second: false,
            }),
            false => Ok(()),
        }
    }

    /// Loses what is sent in some directions, and only that.
    pub fn cut(self, cut: Cut) -> io::Result<()> {
        for (end, lost) in [cut.from_first, cut.from_second].into_iter().enumerate() {
            let to = match lost {
                true => "02:00:00:00:99:99".to_owned(),
                false => self.mac(1 - end),
            };
            let (address, device) = (self.address(1 - end), self.device(end));
            let line = format!("neigh replace {address} lladdr {to} nud permanent dev {device}");
            ip(self.ends()[end], &line)?;
        }
        Ok(())
    }

    /// Delays, loses and swaps packets in both directions, as `tc` is told; `None`: no more.
    pub fn disturb(self, netem: Option<&str>) -> io::Result<()> {
        for end in 0..2 {
            let device = self.device(end);
            let line = match netem {
                Some(how) => format!("qdisc replace dev {device} root netem {how}"),
                None => format!("qdisc del dev {device} root"),
            };
            run("tc", self.ends()[end], &line)?;
        }
        Ok(())
    }
}

/// Makes the hosts and the cables, in namespaces that are this process's own.
pub fn build() -> io::Result<()> {
    ip("hub", "link set lo up")?;
    for host in ["west", "east"] {
        ip("hub", &format!("netns add {host}"))?;
        ip(host, "link set lo up")?;
    }
    CABLES.into_iter().try_for_each(Cable::make)
}

/// Whether the kernel has netem.
pub fn has_netem() -> bool {
    let tried = Cable::WestEast.disturb(Some("delay 1ms"));
    tried.and_then(|()| Cable::WestEast.disturb(None)).is_ok()
}

/// A command on a host.
pub fn on(host: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, program]);
    command
}

fn ip(host: &str, line: &str) -> io::Result<()> {
    run("ip", host, line)
}

fn run(tool: &str, host: &str, line: &str) -> io::Result<()> {
    let mut command = Command::new(tool);
    if host != "hub" {
        command.args(["-n", host]);
    }
    let output = command
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{tool} {line}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
