// SPDX-License-Identifier: GPL-2.0-only
//! A snapshot of the next commit, for which somebody asked before it is made.

use kernel::bindings;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;

use crate::snapshot::Snapshot;

/// What has become of it.
enum State {
    /// There was no commit yet.
    Waiting,
    /// The arena has the snapshot on its list.
    Made(Arc<Snapshot>),
    /// There is none and will be none.
    Failed(Error),
    /// Nobody wants it any more.
    Closed,
}

/// A place for the snapshot of the next commit.
#[pin_data]
pub(crate) struct Subscription {
    /// The cursor that it is for.
    pub(crate) since: u64,
    /// Pages that may be copied aside; zero for all.
    pub(crate) reserve: u64,
    #[pin]
    state: Mutex<State>,
}

impl Subscription {
    /// A place that is empty.
    pub(crate) fn new(since: u64, reserve: u64) -> impl PinInit<Self> {
        pin_init!(Self {
            since,
            reserve,
            state <- new_mutex!(State::Waiting),
        })
    }

    /// Puts in what the commit made. Gives it back when nobody wants it any more.
    pub(crate) fn settle(&self, made: Result<Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        let mut state = self.state.lock();
        if matches!(*state, State::Closed) {
            return made.ok();
        }
        *state = match made {
            Ok(snapshot) => State::Made(snapshot),
            Err(error) => State::Failed(error),
        };
        None
    }

    /// The snapshot. `EAGAIN` before the commit, and then the reason for which there is none.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        match &*self.state.lock() {
            State::Waiting | State::Closed => Err(EAGAIN),
            State::Made(snapshot) => Ok(snapshot.clone()),
            State::Failed(error) => Err(*error),
        }
    }

    /// Takes the snapshot out, if there is one. None will be put in any more.
    pub(crate) fn close(&self) -> Option<Arc<Snapshot>> {
        match core::mem::replace(&mut *self.state.lock(), State::Closed) {
            State::Made(snapshot) => Some(snapshot),
            _ => None,
        }
    }
}

/// `ESTALE`, which the bindings of the older kernels do not name.
pub(crate) fn stale() -> Error {
    Error::from_errno(-(bindings::ESTALE as c_int))
}
