// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What counts as replicated: what all spares have that are in sync. The program is told that, and
//! where etcd decides about takeovers, etcd is told who is in sync before anything counts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use ckptctl::store::Chain;
use ckptctl::store::StoreError;
use ckptctl::sys::thread;

use super::acknowledger::Acknowledger;
use super::output;
use super::spare_board::Board;
use super::spare_board::SpareState;
use super::status_file::Peer;
use super::status_file::Status;
use super::status_file::StatusFile;
use super::term::Held;
use super::term::TermError;

/// How often it is looked whether somebody has been away for too long.
const LOOK: Duration = Duration::from_millis(100);

/// How often it is looked for what is durable, while there is no spare to wait for.
const LOOK_ALONE: Duration = Duration::from_millis(5);

/// The thread that settles it.
pub struct Settling {
    stop: Arc<AtomicBool>,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

/// What it needs for that.
struct Settler {
    board: Arc<Board>,
    acknowledger: Acknowledger,
    dir: PathBuf,
    /// This node.
    node: String,
    held: Option<Arc<Held>>,
    /// A spare that has been away for so long is done without.
    alone_after: Option<Duration>,
    /// The highest epoch that counts.
    settled: u64,
    /// The nodes that had everything when etcd was told last, or may have been told.
    in_sync: BTreeSet<String>,
    told: Option<String>,
    chain: Option<Chain>,
    about: About,
    status: StatusFile,
}

/// What is told of it to whoever looks.
#[derive(Clone)]
pub struct About {
    pub service: String,
    pub term: u64,
}

impl Settling {
    /// Begins.
    pub fn start(
        board: &Arc<Board>,
        dir: &Path,
        node: &str,
        about: About,
        held: Option<Arc<Held>>,
        alone_after: Option<Duration>,
    ) -> anyhow::Result<Settling> {
        let stop = Arc::new(AtomicBool::new(false));
        let in_sync = held
            .as_ref()
            .map(|held| held.in_sync().into_iter().collect());
        let mut settler = Settler {
            board: Arc::clone(board),
            acknowledger: Acknowledger::new(dir),
            dir: dir.to_owned(),
            node: node.to_owned(),
            held,
            alone_after,
            settled: 0,
            in_sync: in_sync.unwrap_or_default(),
            told: None,
            chain: None,
            about,
            status: StatusFile::new(),
        };
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn("ckpt-settle", move || {
            let mut look = LOOK;
            while !stopped.load(Ordering::Acquire) {
                let spares = settler.board.wait(look);
                look = settler.settle(&spares);
                settler.publish(&spares);
            }
        })?;
        Ok(Settling {
            stop,
            board: Arc::clone(board),
            thread: Some(thread),
        })
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.board.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Settler {
    /// Looks what counts by now. Returns when to look again at the latest.
    fn settle(&mut self, spares: &BTreeMap<String, SpareState>) -> Duration {
        let members: Vec<&SpareState> = match &self.held {
            None => spares
                .values()
                .filter(|state| !self.is_given_up(state))
                .collect(),
            Some(_) => {
                let wanted = self.wanted(spares);
                if wanted != self.in_sync && !self.tell(&wanted) {
                    // Both may be in etcd, so nothing counts before that is known.
                    return LOOK;
                }
                spares
                    .values()
                    .filter(|state| self.in_sync.contains(&state.node))
                    .collect()
            }
        };
        let all = match members.iter().map(|state| state.progress.durable).min() {
            Some(all) => all,
            // With nobody to wait for it is what this host has, if that is wanted.
            None if self.alone_after.is_some() && !spares.is_empty() => self.own_durable(),
            None => 0,
        };
        if all > self.settled {
            self.settled = all;
            self.acknowledger.replicated(all);
        }
        match members.is_empty() && self.alone_after.is_some() {
            true => LOOK_ALONE,
            false => LOOK,
        }
    }

    fn is_given_up(&self, state: &SpareState) -> bool {
        match (self.alone_after, state.away_since) {
            (Some(after), Some(since)) => since.elapsed() >= after,
            _ => false,
        }
    }

    /// Who is in sync, as things are: those that were and are not given up, and those that have
    /// all that counts. This node is always: nothing is sent before it is durable here.
    fn wanted(&self, spares: &BTreeMap<String, SpareState>) -> BTreeSet<String> {
        let spares = spares.values().filter(|state| !state.node.is_empty());
        let is_in = |state: &&SpareState| match self.in_sync.contains(&state.node) {
            true => !self.is_given_up(state),
            false => {
                let durable = state.progress.durable;
                state.connected && durable > 0 && durable >= self.settled
            }
        };
        let nodes = spares.filter(is_in).map(|state| state.node.clone());
        nodes.chain([self.node.clone()]).collect()
    }

    /// Tells etcd who is in sync; false when it is not known to have heard.
    fn tell(&mut self, wanted: &BTreeSet<String>) -> bool {
        let Some(held) = &self.held else { return true };
        let nodes: Vec<&str> = wanted.iter().map(String::as_str).collect();
        match held.set_in_sync(&nodes) {
            Ok(()) => {
                let others = wanted.iter().filter(|node| **node != self.node);
                let others: Vec<&str> = others.map(String::as_str).collect();
                let who = match others.as_slice() {
                    [] => "no spare is in sync".to_owned(),
                    others => format!("in sync: {}", others.join(", ")),
                };
                output::say(&who);
                self.in_sync.clone_from(wanted);
                self.told = None;
                true
            }
            Err(error @ TermError::Fenced { .. }) => {
                // Whoever watches the term says so.
                self.told = Some(error.to_string());
                false
            }
            Err(error) => {
                let error = error.to_string();
                if self.told.as_ref() != Some(&error) {
                    output::say(&format!("{error}; trying again"));
                    self.told = Some(error);
                }
                false
            }
        }
    }

    /// The chain, as far as it is now.
    fn chain(&mut self) -> Result<&Chain, StoreError> {
        let chain = match self.chain.take() {
            Some(mut chain) => {
                chain.follow()?;
                chain
            }
            None => Chain::open(&self.dir)?,
        };
        Ok(self.chain.insert(chain))
    }

    /// The newest epoch that is on this host's disk.
    fn own_durable(&mut self) -> u64 {
        let settled = self.settled;
        let newest = self.chain().and_then(|chain| {
            let newest = chain.commits().next_back().map_or(0, |info| info.epoch);
            if newest > settled {
                chain.sync_end()?;
            }
            Ok(newest)
        });
        newest.unwrap_or(0)
    }

    /// Tells how it goes.
    fn publish(&mut self, spares: &BTreeMap<String, SpareState>) {
        let mut status = std::mem::replace(&mut self.status, StatusFile::none());
        status.publish(|| {
            let (about, node, dir) = (self.about.clone(), self.node.clone(), self.dir.clone());
            let chain = self.chain().ok();
            let peers = spares.iter().map(|(to, spare)| peer(to, spare, chain));
            Status {
                pid: std::process::id(),
                role: "primary".into(),
                service: about.service,
                node,
                term: about.term,
                dir,
                epoch: chain.and_then(|chain| Some(chain.commits().next_back()?.epoch)),
                peers: peers.collect(),
            }
        });
        self.status = status;
    }
}

/// How far a spare is behind a chain.
fn peer(to: &str, spare: &SpareState, chain: Option<&Chain>) -> Peer {
    let mut peer = Peer {
        node: spare.node.clone(),
        address: to.to_owned(),
        connected: spare.connected,
        durable: spare.progress.durable,
        applied: spare.progress.applied,
        bytes: spare.sent_bytes,
        lost: spare.lost.clone(),
        ..Peer::default()
    };
    let commits = chain.into_iter().flat_map(Chain::commits).rev();
    for info in commits.take_while(|info| info.epoch > spare.progress.durable) {
        peer.lag_epochs += 1;
        peer.lag_bytes += info.stored_bytes;
        let made = UNIX_EPOCH + Duration::from_nanos(info.time_ns);
        peer.lag_s = made.elapsed().unwrap_or_default().as_secs_f64();
    }
    peer
}
