// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk that the thread that saves meets as a test wants it.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;

use crate::saving::worker;
use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Sharing;
use crate::sys::file::fake::Verdict;

/// What becomes of the calls of the thread that saves.
pub(super) enum Mood {
    /// They work.
    Good,
    /// They are not made before the mood changes.
    Held,
    /// They fail as this says, which is given the calls one after the other.
    Bad(Box<dyn FnMut(&FileCall<'_>) -> Verdict + Send>),
}

struct State {
    mood: Mood,
    /// Calls that wait for another mood.
    held: usize,
}

/// A disk for the contexts that a test opens while it is there.
pub(super) struct Disk {
    state: Arc<(Mutex<State>, Condvar)>,
    _sharing: Sharing,
}

impl Disk {
    pub(super) fn new() -> Disk {
        let state = Arc::new((
            Mutex::new(State {
                mood: Mood::Good,
                held: 0,
            }),
            Condvar::new(),
        ));
        let shared = Arc::clone(&state);
        let sharing = fake::share(move |call| {
            if thread::current().name() != Some(worker::NAME) {
                return Verdict::Go;
            }
            let (state, changed) = &*shared;
            let mut state = state.lock().unwrap();
            state.held += 1;
            changed.notify_all();
            let held = |state: &mut State| matches!(state.mood, Mood::Held);
            state = changed.wait_while(state, held).unwrap();
            state.held -= 1;
            match &mut state.mood {
                Mood::Bad(verdict) => verdict(call),
                _ => Verdict::Go,
            }
        });
        Disk {
            state,
            _sharing: sharing,
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        self.state.0.lock().unwrap().mood = mood;
        self.state.1.notify_all();
    }

    /// Every write fails with this error from now on.
    pub(super) fn fail(&self, errno: i32) {
        self.set(Mood::Bad(Box::new(move |call| match call {
            FileCall::Write(..) => Verdict::Fail(errno),
            _ => Verdict::Go,
        })));
    }

    /// Returns when the thread that saves is held up.
    pub(super) fn wait_until_held(&self) {
        let (state, changed) = &*self.state;
        let none = |state: &mut State| state.held == 0;
        drop(changed.wait_while(state.lock().unwrap(), none).unwrap());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed must not wait for ever for its context to be closed.
        self.set(Mood::Good);
    }
}
