// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sends a chain to several spares.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ckptctl::replication::Finished;
use ckptctl::replication::Security;
use ckptctl::replication::Sender;
use ckptctl::replication::SenderError;
use ckptctl::replication::SenderOptions;
use ckptctl::replication::Until;
use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::event::Event;
use ckptctl::sys::thread;

use super::spare_board::Board;
use super::spare_board::Notes;
use super::spare_board::Ready;

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
    pub ready: Option<Ready>,
}

/// The threads that send.
pub struct Replicator {
    stop: Arc<Event>,
    leave: Arc<Event>,
    ended: Arc<Event>,
    running: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<Finished, SenderError>>>,
}

impl Replicator {
    /// Begins to send.
    pub fn start(plan: &Plan<'_>, board: &Arc<Board>, until: Until) -> anyhow::Result<Replicator> {
        let mut replicator = Replicator {
            stop: Arc::new(Event::new()?),
            leave: Arc::new(Event::new()?),
            ended: Arc::new(Event::new()?),
            running: Arc::new(AtomicUsize::new(plan.spares.len())),
            threads: Vec::new(),
        };
        for to in plan.spares {
            let notes = Notes::new(to, board, plan.ready.clone());
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
            let board = Arc::clone(board);
            let to = to.clone();
            let thread = thread::spawn("ckpt-send", move || {
                let finished = sender.run(until, stop.as_fd());
                board.finished(&to, &finished);
                running.fetch_sub(1, Ordering::AcqRel);
                ended.set();
                finished
            })?;
            replicator.threads.push(thread);
        }
        Ok(replicator)
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
