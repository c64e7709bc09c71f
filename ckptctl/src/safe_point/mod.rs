// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Safe points of programs with threads: each says when it works on the state, and a commit
//! waits until none does.

mod gate;

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::context::Callers;
use crate::error::Error;
use gate::Gate;
use gate::Slot;

/// What the gate is made of.
mod sync {
    pub use std::sync::Arc;
    pub use std::sync::Condvar;
    pub use std::sync::Mutex;
    pub use std::sync::MutexGuard;
    pub use std::sync::atomic::AtomicBool;
    pub use std::sync::atomic::AtomicU32;
    pub use std::sync::atomic::Ordering;
    pub use std::sync::atomic::fence;
}

/// The gate that the threads of a context go through.
pub(crate) struct Threads {
    gate: Arc<Gate>,
    callers: Arc<Callers>,
}

/// A thread at a gate.
struct Local {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    callers: Arc<Callers>,
    /// How often it has entered without leaving.
    depth: Cell<u32>,
    /// It holds the gate, so it is alone.
    holds: Cell<bool>,
    /// It runs hooks behind a commit.
    tells: Cell<bool>,
}

thread_local! {
    /// Where this thread has been at gates.
    static LOCALS: RefCell<Vec<Rc<Local>>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Local {
    fn drop(&mut self) {
        self.gate.part(&self.slot);
    }
}

impl Local {
    fn enter(&self) -> Result<(), Error> {
        self.callers.check_process()?;
        if self.depth.get() == 0 && !self.holds.get() {
            if self.tells.get() {
                return Err(Error::FromHook("entering"));
            }
            if !self.gate.enter(&self.slot) {
                return Err(Error::Invalid(
                    "the context was closed: open it again".into(),
                ));
            }
        }
        self.depth.set(self.depth.get() + 1);
        Ok(())
    }

    fn leave(&self) -> Result<(), Error> {
        self.callers.check_process()?;
        let Some(depth) = self.depth.get().checked_sub(1) else {
            return Err(Error::Invalid(
                "this thread has left as often as it had entered: enter first".into(),
            ));
        };
        self.depth.set(depth);
        if depth == 0 && !self.holds.get() {
            self.gate.leave(&self.slot);
        }
        Ok(())
    }
}

impl Threads {
    pub(crate) fn new(callers: Arc<Callers>) -> Threads {
        Threads {
            gate: Arc::new(Gate::new()),
            callers,
        }
    }

    fn local(&self) -> Result<Rc<Local>, Error> {
        let of_thread = |locals: &RefCell<Vec<Rc<Local>>>| {
            let mut locals = locals.borrow_mut();
            let found = locals
                .iter()
                .find(|local| Arc::ptr_eq(&local.gate, &self.gate));
            if let Some(local) = found {
                return Rc::clone(local);
            }
            locals.retain(|local| !local.gate.is_shut());
            let local = Rc::new(Local {
                gate: Arc::clone(&self.gate),
                slot: self.gate.join(),
                callers: Arc::clone(&self.callers),
                depth: Cell::new(0),
                holds: Cell::new(false),
                tells: Cell::new(false),
            });
            locals.push(Rc::clone(&local));
            local
        };
        let ending = |_| Error::Invalid("this thread is ending: enter and commit before".into());
        LOCALS.try_with(of_thread).map_err(ending)
    }

    /// The safe point of this thread.
    pub(crate) fn safe_point(&self) -> Result<SafePoint, Error> {
        let local = self.local()?;
        Ok(SafePoint { local })
    }

    /// Refuses what a thread that is inside would wait for itself with.
    pub(crate) fn refuse_inside(&self, what: &'static str) -> Result<(), Error> {
        match self.local()?.depth.get() {
            0 => Ok(()),
            _ => Err(Error::Inside(what)),
        }
    }

    /// Refuses what cannot be done in a hook behind a commit.
    pub(crate) fn refuse_while_telling(&self, what: &'static str) -> Result<(), Error> {
        match self.local()?.tells.get() {
            false => Ok(()),
            true => Err(Error::FromHook(what)),
        }
    }

    /// Whether this thread has made all others wait outside.
    pub(crate) fn is_held_here(&self) -> Result<bool, Error> {
        Ok(self.local()?.holds.get())
    }

    /// Waits until no other thread is inside, and holds those that come. Who calls has the turn,
    /// and is not inside.
    pub(crate) fn hold(&self) -> Result<Held, Error> {
        let local = self.local()?;
        assert!(local.depth.get() == 0 && !local.holds.get());
        local.gate.hold();
        local.holds.set(true);
        Ok(Held { local })
    }

    /// Runs hooks behind a commit. A commit may wait for them, so they must not wait for one.
    pub(crate) fn while_telling<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Told(Option<Rc<Local>>);
        impl Drop for Told {
            fn drop(&mut self) {
                if let Some(local) = &self.0 {
                    local.tells.set(false);
                }
            }
        }
        // In a thread that is ending nobody enters.
        let told = Told(self.local().ok());
        if let Some(local) = &told.0 {
            local.tells.set(true);
        }
        run()
    }

    /// Nobody enters any more.
    pub(crate) fn shut(&self) {
        self.gate.shut();
    }
}

/// As long as it lives, no other thread is inside.
pub(crate) struct Held {
    local: Rc<Local>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // A hook that has entered, and did not leave, is over.
        self.local.depth.set(0);
        self.local.holds.set(false);
        self.local.gate.release();
    }
}

/// The place where a thread enters and leaves a context's state, looked up once. It belongs to
/// the thread that asked for it.
#[derive(Clone)]
pub struct SafePoint {
    local: Rc<Local>,
}

impl SafePoint {
    /// Begins to work on the state: no commit closes an epoch before [`SafePoint::leave`]. Waits
    /// while one does. Inside it may be called again, and is then left as often.
    ///
    /// Who is inside must not wait for somebody who wants to enter.
    ///
    /// # Errors
    ///
    /// [`Error::FromHook`] in a hook behind a commit, for which commits may wait;
    /// [`Error::Forked`]; [`Error::Invalid`] when the context was closed.
    pub fn enter(&self) -> Result<(), Error> {
        self.local.enter()
    }

    /// Leaves. A thread that ends has left.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when this thread is not inside; [`Error::Forked`].
    pub fn leave(&self) -> Result<(), Error> {
        self.local.leave()
    }

    /// The same as a guard, which leaves when it is dropped.
    pub fn inside(&self) -> Result<Inside, Error> {
        self.enter()?;
        Ok(Inside {
            local: Rc::clone(&self.local),
        })
    }

    /// Whether the context was closed.
    pub fn is_closed(&self) -> bool {
        self.local.gate.is_shut()
    }
}

/// As long as it lives, the thread that made it is inside.
#[must_use = "who drops it has left"]
pub struct Inside {
    local: Rc<Local>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It has entered; or in a hook that is over, with which it has left.
        let _ = self.local.leave();
    }
}
