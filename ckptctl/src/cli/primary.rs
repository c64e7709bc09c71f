// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program whose commits are sent to spares, with who looks after it.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ckptctl::options;
use ckptctl::replication::Until;
use ckptctl::replication::known_term;
use ckptctl::store;
use ckptctl::store::Writer;
use ckptctl::sys::signals::Signals;

use super::keeper::Keeper;
use super::output;
use super::program::Program;
use super::reign;
use super::reign::EtcdArgs;
use super::reign::Reign;
use super::replication_args::IdentityArgs;
use super::replication_args::SendArgs;
use super::replication_args::WaitFor;
use super::replicator::Plan;
use super::replicator::Replicator;
use super::restarts::RestartArgs;
use super::restarts::Restarts;
use super::settling::About;
use super::settling::Settling;
use super::spare_board::Board;
use super::supervisor::supervise;
use super::term::Held;
use super::times;

/// To whom a program's commits are sent, and what that means for it.
#[derive(clap::Args, Clone, Debug)]
pub struct SparesArgs {
    /// Send each commit to a spare (`ckptctl spare`) at HOST:PORT; may be given several times
    #[arg(long, value_name = "ADDR")]
    replicate_to: Vec<String>,
    /// When commits count as safe for the program, so that it says what depends on them; it finds
    /// this in CKPT_WAIT_FOR [default: CKPT_WAIT_FOR, else durable]
    #[arg(long, value_enum, value_name = "WHAT")]
    wait_for: Option<WaitFor>,
    /// With --wait-for replicated: go on without a spare that has been away for TIME. Without this the
    /// program says nothing until it is back
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    alone_after: Option<Duration>,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// The same, and who this node is.
#[derive(clap::Args, Clone, Debug)]
pub struct ReplicationArgs {
    #[command(flatten)]
    pub spares: SparesArgs,
    #[command(flatten)]
    pub identity: IdentityArgs,
}

impl ReplicationArgs {
    /// Whether anything is to be sent, or decided.
    pub fn is_wanted(&self) -> bool {
        let spares = &self.spares;
        !spares.replicate_to.is_empty() || spares.etcd.is_wanted() || spares.wait_for.is_some()
    }
}

impl SparesArgs {
    /// Where it is decided who is the primary.
    pub fn etcd(&self) -> &EtcdArgs {
        &self.etcd
    }
}

/// A program that is about to run as the primary.
pub struct Primary<'a> {
    program: Program,
    args: &'a ReplicationArgs,
    dir: PathBuf,
    reign: Option<Reign>,
}

impl<'a> Primary<'a> {
    /// Becomes the primary, where etcd decides about that.
    ///
    /// `None` when a signal came first.
    pub fn begin(
        program: Program,
        args: &'a ReplicationArgs,
        signals: &Signals,
    ) -> anyhow::Result<Option<Primary<'a>>> {
        let dir = program.store().map(Path::to_owned);
        let dir = dir.context("which chain is to be replicated? give --store DIR")?;
        // A program that has not begun has a chain as well: an empty one.
        drop(Writer::open_or_create(&dir, store::Options::default())?);
        let config = args
            .spares
            .etcd
            .config(&args.identity.service, &args.identity.node()?);
        let held = match &config {
            None => None,
            Some(config) => match reign::become_primary(config, signals)? {
                None => return Ok(None),
                held => held,
            },
        };
        Primary::with(program, args, dir, held).map(Some)
    }

    /// Goes on as the primary, in a term that was won if etcd decides.
    pub fn with(
        mut program: Program,
        args: &'a ReplicationArgs,
        dir: PathBuf,
        held: Option<Held>,
    ) -> anyhow::Result<Primary<'a>> {
        if let Some(what) = args.spares.wait_for {
            program.set(options::WAIT_FOR, what.name());
        }
        let reign = match held {
            None => None,
            Some(held) => Some(Reign::begin(held, &dir, &mut program)?),
        };
        Ok(Primary {
            program,
            args,
            dir,
            reign,
        })
    }

    /// Runs it.
    pub fn run(
        self,
        restart: &RestartArgs,
        keeper: Keeper,
        signals: &Signals,
    ) -> anyhow::Result<ExitCode> {
        let Primary {
            program,
            args,
            dir,
            reign,
        } = self;
        let spares = &args.spares.replicate_to;
        let term = match &reign {
            Some(reign) => reign.term(),
            None => known_term(&dir)?.max(1),
        };
        let node = args.identity.node()?;
        let name = node.clone();
        let board = Board::new(spares);
        let held = reign.as_ref().map(|reign| Arc::clone(reign.held()));
        let alone_after = args.spares.alone_after;
        let about = About {
            service: args.identity.service.clone(),
            term,
        };
        let settling = Settling::start(&board, &dir, &node, about, held, alone_after)?;
        let replicator = match spares.is_empty() {
            true => None,
            false => {
                let plan = Plan {
                    dir: &dir,
                    spares,
                    security: args.identity.security()?,
                    service: args.identity.service.clone(),
                    node,
                    term,
                    limit: args.spares.send.limit,
                    ready: None,
                };
                Some(Replicator::start(&plan, &board, Until::Stopped)?)
            }
        };
        let fence = reign.as_ref().map(Reign::fence);
        let code = supervise(program, Restarts::or_none(restart), keeper, signals, fence)?;
        let is_done = code == ExitCode::SUCCESS;
        if let (Some(replicator), true) = (replicator, is_done) {
            replicator.leave();
        }
        drop(settling);
        if let Some(reign) = reign {
            if is_done {
                // There is nothing to take over; only here it can begin again.
                if let Err(error) = reign.held().set_in_sync(&[&name]) {
                    output::say(&format!("{error}; a spare may start the program again"));
                }
            }
            reign.resign();
        }
        Ok(code)
    }
}
