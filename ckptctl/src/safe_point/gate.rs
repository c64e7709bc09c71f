// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A gate that many threads go in and out of all the time, and that somebody closes now and then
//! when all are out.
//!
//! Who goes in says so in a slot of its own and then looks whether the gate is held; who holds
//! it says so and then looks into all slots. Between saying and looking both have a sequentially
//! consistent fence, so that one of the two sees the other. Nobody who goes in or out writes to
//! memory that another thread writes to, unless the gate is held.
//!
//! Made of what the parent module calls `sync`: that of `std`, or of `loom` in
//! `tests/interleavings.rs`.

use super::sync::Arc;
use super::sync::AtomicBool;
use super::sync::AtomicU32;
use super::sync::Condvar;
use super::sync::Mutex;
use super::sync::MutexGuard;
use super::sync::Ordering;
use super::sync::fence;

/// Somebody holds the gate.
const HELD: u32 = 1;
/// Nobody goes in any more.
const SHUT: u32 = 2;

/// Where a thread says that it is inside. No two share a cache line, nor the pair of lines that
/// processors fetch together.
#[repr(align(128))]
pub struct Slot {
    inside: AtomicBool,
}

/// The gate.
pub struct Gate {
    /// [`HELD`] and [`SHUT`]. Changes under the lock.
    state: AtomicU32,
    /// The slots of all threads.
    slots: Mutex<Vec<Arc<Slot>>>,
    /// The state has changed, or somebody has gone out while it was held.
    changed: Condvar,
}

impl Gate {
    /// Open, and nobody inside.
    pub fn new() -> Gate {
        Gate {
            state: AtomicU32::new(0),
            slots: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        // Nothing under the lock can panic half way.
        self.slots
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, slots: MutexGuard<'a, Vec<Arc<Slot>>>) -> MutexGuard<'a, Vec<Arc<Slot>>> {
        self.changed
            .wait(slots)
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A slot for a thread, which is outside.
    pub fn join(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            inside: AtomicBool::new(false),
        });
        self.lock().push(Arc::clone(&slot));
        slot
    }

    /// The thread of a slot is gone, and outside if it was not before.
    pub fn part(&self, slot: &Arc<Slot>) {
        let mut slots = self.lock();
        slots.retain(|other| !Arc::ptr_eq(other, slot));
        self.changed.notify_all();
    }

    /// Goes in, when nobody holds the gate any more. False if it is shut. The slot's thread is
    /// outside.
    pub fn enter(&self, slot: &Slot) -> bool {
        loop {
            slot.inside.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            match self.state.load(Ordering::Acquire) {
                0 => return true,
                _ => {
                    if !self.step_back(slot) {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits outside. False if the gate is shut.
    #[cold]
    fn step_back(&self, slot: &Slot) -> bool {
        let mut slots = self.lock();
        slot.inside.store(false, Ordering::Release);
        self.changed.notify_all();
        loop {
            match self.state.load(Ordering::Acquire) {
                0 => return true,
                HELD => slots = self.wait(slots),
                _ => return false,
            }
        }
    }

    /// Goes out.
    pub fn leave(&self, slot: &Slot) {
        slot.inside.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) != 0 {
            self.tell();
        }
    }

    #[cold]
    fn tell(&self) {
        let _slots = self.lock();
        self.changed.notify_all();
    }

    /// Lets nobody in any more and waits until all are out. What they did is seen from here on,
    /// until [`Gate::release`]. One thread at a time, which is outside.
    pub fn hold(&self) {
        let mut slots = self.lock();
        self.state.fetch_or(HELD, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while slots.iter().any(|slot| slot.inside.load(Ordering::Acquire)) {
            slots = self.wait(slots);
        }
    }

    /// Lets those in who wait. They see what was done meanwhile.
    pub fn release(&self) {
        let _slots = self.lock();
        self.state.fetch_and(!HELD, Ordering::Release);
        self.changed.notify_all();
    }

    /// Whether nobody will be let in any more.
    pub fn is_shut(&self) -> bool {
        self.state.load(Ordering::Relaxed) & SHUT != 0
    }

    /// Lets nobody in any more, ever.
    pub fn shut(&self) {
        let _slots = self.lock();
        self.state.fetch_or(SHUT, Ordering::Release);
        self.changed.notify_all();
    }
}
