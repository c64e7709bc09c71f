// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known of the spares that a chain is sent to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ckptctl::replication::Finished;
use ckptctl::replication::Observer;
use ckptctl::replication::Progress;
use ckptctl::replication::SenderError;

use super::figures;
use super::output;

/// Ends a program here, when a spare is ready to take over.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is known of a spare.
#[derive(Clone, Debug, Default)]
pub struct SpareState {
    /// Its name, once it has said it.
    pub node: String,
    pub connected: bool,
    pub progress: Progress,
    pub sent_bytes: u64,
    /// Why there is no link.
    pub lost: Option<String>,
    /// Since when there is none.
    pub away_since: Option<Instant>,
}

/// What is known of all of them.
pub struct Board {
    spares: Mutex<BTreeMap<String, SpareState>>,
    changed: Condvar,
}

impl Board {
    /// Of spares at these addresses, none of which was heard of.
    pub fn new(spares: &[String]) -> Arc<Board> {
        let nothing = || SpareState {
            away_since: Some(Instant::now()),
            ..SpareState::default()
        };
        let spares = spares.iter().map(|to| (to.clone(), nothing()));
        Arc::new(Board {
            spares: Mutex::new(spares.collect()),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SpareState>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All, by address.
    pub fn spares(&self) -> BTreeMap<String, SpareState> {
        self.lock().clone()
    }

    /// One of them.
    pub fn spare(&self, to: &str) -> SpareState {
        self.lock().get(to).cloned().unwrap_or_default()
    }

    /// Waits until something changes, for so long at most; all, by address.
    pub fn wait(&self, timeout: Duration) -> BTreeMap<String, SpareState> {
        let waited = self.changed.wait_timeout(self.lock(), timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn change(&self, to: &str, change: impl FnOnce(&mut SpareState)) {
        if let Some(state) = self.lock().get_mut(to) {
            change(state);
        }
        self.changed.notify_all();
    }

    /// Nothing more is sent to a spare.
    pub fn finished(&self, to: &str, how: &Result<Finished, SenderError>) {
        if let Err(error) = how {
            output::say(&error.to_string());
        }
        self.change(to, |state| {
            state.connected = false;
            state.lost = how.as_ref().err().map(ToString::to_string);
            state.away_since.get_or_insert_with(Instant::now);
        });
    }

    /// Wakes whoever waits.
    pub fn wake(&self) {
        self.changed.notify_all();
    }
}

/// Notes how it goes with one spare, and says what a person should know.
pub struct Notes {
    to: String,
    board: Arc<Board>,
    /// It was said why there is no link.
    told: Mutex<Option<String>>,
    ready: Option<Ready>,
}

impl Notes {
    pub fn new(to: &str, board: &Arc<Board>, ready: Option<Ready>) -> Notes {
        Notes {
            to: to.to_owned(),
            board: Arc::clone(board),
            told: Mutex::default(),
            ready,
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Notes {
    fn connected(&self, node: &str, missing: u64, bytes: u64) {
        self.board.change(&self.to, |state| {
            state.node = node.to_owned();
            state.connected = true;
            state.lost = None;
            state.away_since = None;
        });
        *self.told() = None;
        let what = match missing {
            0 => "which has everything".to_owned(),
            _ => format!(
                "which lacks {}, {}",
                figures::counted(missing, "commit"),
                figures::bytes(bytes)
            ),
        };
        output::say(&format!("replicating to {node} ({}), {what}", self.to));
    }

    fn progress(&self, progress: Progress) {
        self.board
            .change(&self.to, |state| state.progress = progress);
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
            state.away_since.get_or_insert_with(Instant::now);
        });
        // The same again and again is said once.
        let mut told = self.told();
        if told.as_deref() != Some(why) {
            output::say(&format!(
                "no link to spare {}: {why}; trying again",
                self.to
            ));
            *told = Some(why.to_owned());
        }
    }
}
