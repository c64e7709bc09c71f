// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Learning which epochs are on another host, for programs that wait for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::lock;
use crate::control::Elsewhere;
use crate::error::Error;
use crate::options::WaitFor;
use crate::sys::thread;

/// Name of the thread, as the system shows it.
const NAME: &str = "ckpt-elsewhere";

/// How long it may go unnoticed that the context was closed.
const LOOK: Duration = Duration::from_millis(200);

impl Shared {
    /// Starts the thread that learns it, when somebody waits for it.
    pub(super) fn learn_what_is_elsewhere(self: &Arc<Shared>) -> Result<(), Error> {
        if self.wait_for != WaitFor::Replicated {
            return Ok(());
        }
        let failed = |source| Error::System {
            doing: "learn what is on another host",
            source,
        };
        let place = Elsewhere::open(lock(&self.inner).arena.fd(), &self.dir).map_err(failed)?;
        let Some(place) = place else {
            return Err(Error::Invalid(
                "there is no place to learn what is on another host: the chain's directory must be writable".into(),
            ));
        };
        // The context may be gone before the thread is.
        let shared = Arc::downgrade(self);
        let body = move || {
            let mut newest = 0;
            while let Ok(now) = place.wait(newest, LOOK) {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                if now > newest {
                    newest = now;
                    shared.queue.replicated(now);
                }
            }
        };
        thread::spawn(NAME, body).map(drop).map_err(failed)
    }
}
