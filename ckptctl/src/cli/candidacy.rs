// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A spare that waits for etcd to make it the primary.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::event::Event;
use ckptctl::sys::thread;

use super::output;
use super::term::Config;
use super::term::Held;
use super::term::Outcome;
use super::term::TermError;
use super::term::campaign;

/// How long it waits until it stands again.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread that campaigns.
pub struct Candidacy {
    won: Arc<Event>,
    stop: Arc<Event>,
    held: Arc<Mutex<Option<Held>>>,
    thread: Option<JoinHandle<()>>,
}

impl Candidacy {
    /// Begins to campaign.
    pub fn begin(config: Config) -> anyhow::Result<Candidacy> {
        config.check()?;
        let (won, stop) = (Arc::new(Event::new()?), Arc::new(Event::new()?));
        let held = Arc::new(Mutex::new(None));
        let (winning, stopped, holding) = (Arc::clone(&won), Arc::clone(&stop), Arc::clone(&held));
        let thread = thread::spawn("ckpt-campaign", move || {
            if let Some(term) = stand(&config, &stopped) {
                *holding.lock().unwrap_or_else(PoisonError::into_inner) = Some(term);
                winning.set();
            }
        })?;
        Ok(Candidacy {
            won,
            stop,
            held,
            thread: Some(thread),
        })
    }

    /// Readable when it has won.
    pub fn won(&self) -> BorrowedFd<'_> {
        self.won.as_fd()
    }

    /// The term that it has won.
    pub fn term(&self) -> Option<u64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(Held::term)
    }

    /// Ends it; the term, if it has won.
    pub fn end(mut self) -> Option<Held> {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take()
    }
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Campaigns until it has won, or is to stop.
fn stand(config: &Config, stop: &Event) -> Option<Held> {
    let mut told: Option<String> = None;
    let mut say = |text: String| {
        if told.as_ref() != Some(&text) {
            output::say(&text);
            told = Some(text);
        }
    };
    loop {
        match campaign(config, stop, |error| say(format!("{error}; trying again"))) {
            Ok(Outcome::Won(held)) => return Some(held),
            Ok(Outcome::Stopped) => return None,
            Ok(Outcome::NotInSync(state)) => say(format!(
                "there is no primary, and this spare does not have everything that was acknowledged: \
                 {} may take over",
                state.in_sync.join(" or ")
            )),
            Err(TermError::NoService(service)) => {
                say(format!(
                    "the service {service} has had no primary yet: waiting for it"
                ));
            }
            Err(error) => say(format!("{error}; trying again")),
        }
        if wait_readable([stop.as_fd()], PAUSE).ok() != Some([false]) {
            return None;
        }
    }
}
