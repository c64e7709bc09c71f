// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for the next term.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use ckptctl::sys::event::Event;
use ckptctl::sys::event::first_readable;

use super::Config;
use super::Held;
use super::State;
use super::TermError;
use super::gateway::Gateway;
use super::held::new_token;
use super::held::now_ns;
use super::state::Keys;
use super::store::PATIENCE;
use super::wire::Do;
use super::wire::If;

/// How long to wait when etcd cannot be asked.
const PAUSE: Duration = Duration::from_millis(500);

/// How a campaign ends.
#[derive(Debug)]
pub enum Outcome {
    /// A term is ours.
    Won(Held),
    /// Nobody holds the lease, and this node may not take it: it does not have everything that was
    /// acknowledged as replicated. Those that may are in the state; one of them has to come back.
    NotInSync(State),
    /// It was to stop. Should that have been while a term was being taken and etcd did not
    /// answer, the term may be this node's, and its lease runs out.
    Stopped,
}

/// Waits until nobody is the primary, and becomes it.
///
/// Ends when `stop` is readable. While etcd cannot be asked it goes on trying; `trouble` is told
/// why, once for each time that it begins.
///
/// # Errors
///
/// [`TermError::NoService`] when the service was never founded, and what cannot become better by waiting.
pub fn campaign(
    config: &Config,
    stop: impl AsFd,
    trouble: impl FnMut(&TermError),
) -> Result<Outcome, TermError> {
    campaign_while(config, stop, trouble, |_| true)
}

/// The same for a node that does not serve as a spare meanwhile: it ends as soon as the node is not in
/// sync, also while somebody is the primary, as by waiting it would never be again.
pub fn campaign_in_sync(
    config: &Config,
    stop: impl AsFd,
    trouble: impl FnMut(&TermError),
) -> Result<Outcome, TermError> {
    campaign_while(config, stop, trouble, |state| {
        state.is_in_sync(&config.node)
    })
}

/// The same, while waiting for a lease to be gone may help, by the state.
fn campaign_while(
    config: &Config,
    stop: impl AsFd,
    mut trouble: impl FnMut(&TermError),
    may_wait: impl Fn(&State) -> bool,
) -> Result<Outcome, TermError> {
    config.check()?;
    let campaign = Campaign {
        config,
        keys: Keys::of(&config.service),
        gateway: Gateway::new(config, PATIENCE)?,
        token: new_token(config)?,
    };
    let stop = stop.as_fd();
    let mut answered = true;
    loop {
        match campaign.round(stop, &may_wait) {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => answered = true,
            Err(error @ TermError::NoAnswer(_)) => {
                if answered {
                    trouble(&error);
                }
                answered = false;
                if is_readable(stop, PAUSE)? {
                    return Ok(Outcome::Stopped);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

struct Campaign<'a> {
    config: &'a Config,
    keys: Keys,
    gateway: Gateway,
    token: String,
}

impl Campaign<'_> {
    /// Looks, and does what is to be done. `None` when it is to be looked again.
    fn round(
        &self,
        stop: BorrowedFd<'_>,
        may_wait: &impl Fn(&State) -> bool,
    ) -> Result<Option<Outcome>, TermError> {
        let keys = [self.keys.state.as_str(), &self.keys.lease];
        let (revision, [state, lease]) = self.gateway.read(keys)?;
        let Some(state) = state else {
            return Err(TermError::NoService(self.config.service.clone()));
        };
        let state = State::from_json(&self.keys.state, &state.value, state.revision)?;
        // A term was taken and the answer was lost.
        if lease
            .as_ref()
            .is_some_and(|lease| lease.value == self.token)
        {
            return self.won(state, None).map(Some);
        }
        if is_readable(stop, Duration::ZERO)? {
            return Ok(Some(Outcome::Stopped));
        }
        if lease.is_some() && may_wait(&state) {
            self.wait(stop, revision)?;
            return Ok(None);
        }
        if !state.is_in_sync(&self.config.node) {
            return Ok(Some(Outcome::NotInSync(state)));
        }
        self.take(&state)
    }

    /// Takes the next term, if nothing has changed.
    fn take(&self, state: &State) -> Result<Option<Outcome>, TermError> {
        let mut next = State::beginning(state.term + 1, &self.config.node);
        let began_ns = now_ns()?;
        let lease = self.gateway.grant(self.config.ttl)?;
        let outcome = self.gateway.transaction(
            &[
                If::Absent(&self.keys.lease),
                If::Revision(&self.keys.state, state.revision),
            ],
            &[
                Do::Put(&self.keys.state, &next.to_json()),
                Do::PutLeased(&self.keys.lease, &self.token, lease),
            ],
            &[],
        )?;
        if !outcome.done {
            return Ok(None);
        }
        next.revision = outcome.revision;
        self.won(next, Some(began_ns)).map(Some)
    }

    fn won(&self, state: State, began_ns: Option<u64>) -> Result<Outcome, TermError> {
        Held::begin(self.config, &self.token, state, began_ns).map(Outcome::Won)
    }

    /// Waits until the lease key may be gone, or it is to stop.
    fn wait(&self, stop: BorrowedFd<'_>, revision: i64) -> Result<(), TermError> {
        let over = Event::new().map_err(system("make an event"))?;
        // Of its own: who interrupts it ends it, and a term that is being taken is never interrupted.
        let gateway = Gateway::new(self.config, PATIENCE)?;
        thread::scope(|scope| {
            let watch = thread::Builder::new().name("ckpt-watch".into());
            let watch = watch.spawn_scoped(scope, || {
                let waited =
                    gateway.wait_until_removed(&self.keys.lease, revision, self.config.watch());
                over.set();
                waited
            });
            let watch = watch.map_err(system("start a thread"))?;
            let first = first_readable(&[over.as_fd(), stop], None);
            gateway.interrupt();
            let waited = watch
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match first.map_err(system("wait"))? {
                Some(0) => waited,
                // The next round ends it.
                _ => Ok(()),
            }
        })
    }
}

fn is_readable(fd: BorrowedFd<'_>, within: Duration) -> Result<bool, TermError> {
    let first = first_readable(&[fd], Some(within)).map_err(system("wait"))?;
    Ok(first.is_some())
}

fn system(doing: &'static str) -> impl Fn(std::io::Error) -> TermError {
    move |source| TermError::System {
        doing: doing.into(),
        source,
    }
}
