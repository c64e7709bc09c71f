// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that the tool starts, and what it finds in its environment.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::anyhow;
use ckptctl::options;
use ckptctl::sys::child;
use ckptctl::sys::handover::Channel;
use ckptctl::sys::process;
use ckptctl::track::Choice;
use ckptctl::warm::SUPERVISOR;
use clap::ValueEnum;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::exit::Unsupported;
use super::module;

/// What `--tracker` and `CKPT_TRACKER` can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tracker {
    /// The kernel module if it is loaded, else pagemap if the kernel has it, else compare
    Auto,
    /// The kernel module, /dev/ckpt
    Module,
    /// What Linux itself tells of written pages, since 6.7: needs no module, and copies what changed
    /// in every commit
    Pagemap,
    /// A copy of the whole state, compared at every commit: works everywhere, at twice the memory
    Compare,
}

impl Tracker {
    fn name(self) -> &'static str {
        match self {
            Tracker::Auto => "auto",
            Tracker::Module => "module",
            Tracker::Pagemap => "pagemap",
            Tracker::Compare => "compare",
        }
    }
}

/// The program, for every verb that starts one.
#[derive(clap::Args)]
pub struct ProgramArgs {
    /// How the program's changes are tracked; it finds this in CKPT_TRACKER [default: CKPT_TRACKER,
    /// else auto]
    #[arg(long, value_enum, value_name = "TRACKER")]
    tracker: Option<Tracker>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// A program that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: {source}; {}", name.to_string_lossy(), start_advice(source))]
pub struct StartError {
    name: OsString,
    source: io::Error,
}

impl StartError {
    /// True when there is no such program, false when there is and it cannot be run.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

fn start_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "check the name and PATH, and for a script the interpreter in its first line"
        }
        io::ErrorKind::PermissionDenied => {
            "name a file that this user may execute (chmod +x), on a file system without noexec"
        }
        _ => "check that it is an executable for this machine",
    }
}

/// A program that can be started.
#[derive(Debug)]
pub struct Program {
    command: Vec<OsString>,
    store: Option<PathBuf>,
    epoch: Epoch,
    tracker: Option<Tracker>,
    /// The term in which its next start takes over from another host.
    takes_over: Option<u64>,
    /// Variables for every start.
    variables: Vec<(&'static str, OsString)>,
}

/// What the program is told about the epoch to restore.
#[derive(Clone, Copy, Debug)]
enum Epoch {
    /// What this process was told.
    Inherit,
    /// This one.
    Given(u64),
    /// The newest.
    Newest,
}

impl Program {
    /// Prepares starting it on a chain, from an epoch of it; `None` leaves to the environment
    /// what it says. From here on, programs that this process starts have fixed addresses.
    ///
    /// # Errors
    ///
    /// When the module is asked for and cannot be used, or addresses cannot be fixed.
    pub fn prepare(
        args: ProgramArgs,
        store: Option<PathBuf>,
        epoch: Option<u64>,
    ) -> anyhow::Result<Program> {
        let asks_for_module = match args.tracker {
            Some(tracker) => tracker == Tracker::Module,
            None => Choice::from_environment()? == Choice::Module,
        };
        if asks_for_module {
            module::open("; or run with --tracker pagemap")?;
        }
        if let Err(error) = process::fix_addresses() {
            if process::addresses_are_random() {
                return Err(Unsupported(format!(
                    "cannot switch off address randomisation: {error}; a container's seccomp \
                     profile that forbids personality(2) does this: allow that call, or start the \
                     container with another profile"
                ))
                .into());
            }
        }
        let store = store.or_else(|| {
            let variable = env::var_os(options::STORE).filter(|dir| !dir.is_empty());
            variable.map(PathBuf::from)
        });
        let store = store
            .map(|dir| std::path::absolute(&dir))
            .transpose()
            .map_err(|error| anyhow!("cannot tell where the chain's directory is: {error}"))?;
        Ok(Program {
            command: args.command,
            store,
            epoch: epoch.map_or(Epoch::Inherit, Epoch::Given),
            tracker: args.tracker,
            takes_over: None,
            variables: Vec::new(),
        })
    }

    /// Sets a variable for every start.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.variables.push((name, value.into()));
    }

    /// Its next start takes over from another host, in this term.
    pub fn take_over(&mut self, term: u64) {
        self.takes_over = Some(term);
    }

    /// From now on its starts are those of a program that was here before.
    pub fn has_taken_over(&mut self) {
        self.takes_over = None;
    }

    /// The chain's directory, when it is known.
    pub fn store(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// The epoch that it is told to restore; `None` when it goes on from the newest.
    pub fn told_epoch(&self) -> Option<u64> {
        match self.epoch {
            Epoch::Inherit => env::var(options::RESTORE_EPOCH).ok()?.parse().ok(),
            Epoch::Given(epoch) => Some(epoch),
            Epoch::Newest => None,
        }
    }

    /// Its next start goes back to an epoch.
    pub fn go_back_to(&mut self, epoch: u64) {
        self.epoch = Epoch::Given(epoch);
    }

    /// From now on it goes on from the newest epoch.
    pub fn go_on_from_newest(&mut self) {
        self.epoch = Epoch::Newest;
    }

    /// Turns this process into the program. Returns only when that fails.
    pub fn exec(&self) -> StartError {
        let source = child::exec(&mut self.command());
        self.start_error(source)
    }

    /// Starts the program in a process of its own, which blocks these signals and can speak to
    /// its supervisor over this channel.
    pub fn spawn(&self, blocked: SigSet, channel: Option<&Channel>) -> Result<Pid, StartError> {
        let mut command = self.command();
        let spawned = match channel {
            None => child::spawn(&mut command, blocked, None),
            Some(channel) => channel.inherited().and_then(|named| {
                command.env(SUPERVISOR, named.to_string());
                child::spawn(&mut command, blocked, Some(channel.as_fd()))
            }),
        };
        spawned.map_err(|source| self.start_error(source))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_remove(SUPERVISOR)
            .env_remove(options::TAKEOVER)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(term) = self.takes_over {
            command.env(options::TAKEOVER, term.to_string());
        }
        if let Some(dir) = &self.store {
            command.env(options::STORE, dir);
        }
        match self.epoch {
            Epoch::Inherit => {}
            Epoch::Given(epoch) => {
                command.env(options::RESTORE_EPOCH, epoch.to_string());
            }
            Epoch::Newest => {
                command.env_remove(options::RESTORE_EPOCH);
            }
        }
        if let Some(tracker) = self.tracker {
            command.env("CKPT_TRACKER", tracker.name());
        }
        command
    }

    fn start_error(&self, source: io::Error) -> StartError {
        StartError {
            name: self.command[0].clone(),
            source,
        }
    }
}
