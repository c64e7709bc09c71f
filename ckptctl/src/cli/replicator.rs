// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sends a chain to several spares, and tells the program what all of them have.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ckptctl::replication::Finished;
use ckptctl::replication::Observer;
use ckptctl::replication::Progress;
use ckptctl::replication::Security;
use ckptctl::replication::Sender;
use ckptctl::replication::SenderError;
use ckptctl::replication::SenderOptions;
use ckptctl::replication::Until;
use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::event::Event;
use ckptctl::sys::thread;

use super::acknowledger::Acknowledger;
use super::figures;
use super::output;

/// How long spares have for the last of a program that has ended.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// What is sent, and to whom.
pub struct Plan<'a> {
    pub dir: &'a Path,
    pub spares: &'a [String],
    pub security: Security,
    pub service: String,
    pub node: String,
    pub term: u64,
    pub limit: Option<u64>,
    /// Ends the program here, when a spare is ready to take over.
    pub ready: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

/// The threads that send.
pub struct Replicator {
    stop: Arc<Event>,
    leave: Arc<Event>,
    ended: Arc<Event>,
    running: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<Finished, SenderError>>>,
}

/// What is known of a spare.
#[derive(Clone, Debug, Default)]
pub struct SpareState {
    pub connected: bool,
    pub progress: Progress,
    pub sent_bytes: u64,
    /// Why there is no link.
    pub lost: Option<String>,
    /// Since when there is none.
    pub since: Option<Instant>,
}

/// What is known of all of them.
pub struct Board {
    spares: Mutex<BTreeMap<String, SpareState>>,
    acknowledger: Acknowledger,
}

impl Board {
    fn new(dir: &Path, spares: &[String]) -> Board {
        let spares = spares.iter().map(|to| (to.clone(), SpareState::default()));
        Board {
            spares: Mutex::new(spares.collect()),
            acknowledger: Acknowledger::new(dir),
        }
    }

    /// By address.
    pub fn spares(&self) -> BTreeMap<String, SpareState> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, SpareState>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, to: &str, change: impl FnOnce(&mut SpareState)) {
        if let Some(state) = self.lock().get_mut(to) {
            change(state);
        }
    }

    /// A spare has come further. What all of them have is what the program may count on.
    fn progress(&self, to: &str, progress: Progress) {
        let mut spares = self.lock();
        let on_all = |spares: &BTreeMap<String, SpareState>| {
            let durable = spares.values().map(|state| state.progress.durable);
            durable.min().unwrap_or(0)
        };
        if let Some(state) = spares.get_mut(to) {
            state.progress = progress;
        }
        let all = on_all(&spares);
        drop(spares);
        if all > 0 {
            self.acknowledger.replicated(all);
        }
    }
}

/// Notes how it goes with one spare, and says what a person should know.
struct Notes {
    to: String,
    board: Arc<Board>,
    /// It was said why there is no link.
    told: Mutex<Option<String>>,
    ready: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Observer for Notes {
    fn connected(&self, spare: &str, missing: u64, bytes: u64) {
        self.board.change(&self.to, |state| {
            state.connected = true;
            state.lost = None;
            state.since = None;
        });
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let what = match missing {
            0 => "which has everything".to_owned(),
            _ => format!(
                "which lacks {}, {}",
                figures::counted(missing, "commit"),
                figures::bytes(bytes)
            ),
        };
        output::say(&format!("replicating to {spare}, {what}"));
    }

    fn progress(&self, progress: Progress) {
        self.board.progress(&self.to, progress);
    }

    fn sent(&self, bytes: u64) {
        self.board
            .change(&self.to, |state| state.sent_bytes += bytes);
    }

    fn ready(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready())
    }

    fn lost(&self, why: &str) {
        self.board.change(&self.to, |state| {
            state.connected = false;
            state.lost = Some(why.to_owned());
            state.since.get_or_insert_with(Instant::now);
        });
        // The same again and again is said once.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_deref() != Some(why) {
            output::say(&format!(
                "no link to spare {}: {why}; trying again",
                self.to
            ));
            *told = Some(why.to_owned());
        }
    }
}

impl Replicator {
    /// Begins to send.
    pub fn start(plan: &Plan<'_>, until: Until) -> anyhow::Result<(Replicator, Arc<Board>)> {
        let board = Arc::new(Board::new(plan.dir, plan.spares));
        let mut replicator = Replicator {
            stop: Arc::new(Event::new()?),
            leave: Arc::new(Event::new()?),
            ended: Arc::new(Event::new()?),
            running: Arc::new(AtomicUsize::new(plan.spares.len())),
            threads: Vec::new(),
        };
        for to in plan.spares {
            let notes = Notes {
                to: to.clone(),
                board: Arc::clone(&board),
                told: Mutex::default(),
                ready: plan.ready.clone(),
            };
            let options = SenderOptions {
                dir: plan.dir.to_owned(),
                to: to.clone(),
                security: plan.security.clone(),
                service: plan.service.clone(),
                node: plan.node.clone(),
                term: plan.term,
                limit: plan.limit,
            };
            let sender = Sender::new(options, Arc::new(notes));
            let sender = sender.leave_when(Arc::clone(&replicator.leave));
            let (stop, ended) = (Arc::clone(&replicator.stop), Arc::clone(&replicator.ended));
            let running = Arc::clone(&replicator.running);
            let thread = thread::spawn("ckpt-send", move || {
                let finished = sender.run(until, stop.as_fd());
                running.fetch_sub(1, Ordering::AcqRel);
                ended.set();
                finished
            })?;
            replicator.threads.push(thread);
        }
        Ok((replicator, board))
    }

    /// Readable when one of the threads has ended.
    pub fn ended(&self) -> &Event {
        &self.ended
    }

    /// How many of the threads have not ended.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// The program has ended by itself: spares get the last of it, if they take it in time, and
    /// learn that there is nothing to take over.
    pub fn leave(self) {
        self.leave.set();
        let deadline = Instant::now() + LEAVE_MAX;
        while self.running() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || wait_readable([self.ended.as_fd()], left).is_err() {
                break;
            }
            self.ended.clear();
        }
    }

    /// Ends those that have not, and returns how the first of all ended.
    pub fn finish(mut self) -> Result<Finished, SenderError> {
        self.stop.set();
        let mut finished = Ok(Finished::Stopped);
        for thread in self.threads.drain(..) {
            let one = thread.join().unwrap_or(Ok(Finished::Stopped));
            match (&finished, &one) {
                (Ok(_), Err(_)) | (Ok(Finished::Stopped), _) => finished = one,
                _ => {}
            }
        }
        finished
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
