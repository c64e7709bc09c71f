// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The gate of the safe points in every order in which threads can come to it, and with every
//! value that their loads may see.

#[path = "../src/safe_point/gate.rs"]
#[expect(dead_code, reason = "what is not tried here")]
mod gate;

/// What the gate is made of here.
mod sync {
    pub use loom::sync::Arc;
    pub use loom::sync::Condvar;
    pub use loom::sync::Mutex;
    pub use loom::sync::MutexGuard;
    pub use loom::sync::atomic::AtomicBool;
    pub use loom::sync::atomic::AtomicU32;
    pub use loom::sync::atomic::Ordering;
    pub use loom::sync::atomic::fence;
}

use gate::Gate;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use sync::Arc;
use sync::AtomicBool;
use sync::Ordering;

/// A state that its threads write without regard to each other, and whoever holds the gate.
/// Loom fails the test when anybody is in it while somebody writes.
struct State {
    gate: Gate,
    parts: [UnsafeCell<u32>; 2],
}

// SAFETY: What is in the cells is for loom to judge, which looks at each access.
unsafe impl Sync for State {}

impl State {
    fn new() -> Arc<State> {
        Arc::new(State {
            gate: Gate::new(),
            parts: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    /// What a thread does inside: both halves of its part, one behind the other.
    fn work(&self, part: usize) {
        // SAFETY: Each thread has a part, and who holds the gate is alone: the claim.
        self.parts[part].with_mut(|at| unsafe { *at += 1 });
        // SAFETY: As above.
        self.parts[part].with_mut(|at| unsafe { *at += 1 });
    }

    /// What a commit sees and does.
    fn commit(&self) {
        self.gate.hold();
        for part in &self.parts {
            part.with_mut(|at| {
                // SAFETY: Who holds the gate is alone: the claim.
                let now = unsafe { &mut *at };
                assert_eq!(*now % 2, 0, "somebody is half way");
                *now += 2;
            });
        }
        self.gate.release();
    }
}

/// All orders with up to so many switches away from a thread that could go on.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn who_holds_the_gate_is_alone_and_sees_whole_work() {
    check(4, || {
        let state = State::new();
        let worker = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let slot = state.gate.join();
                for _ in 0..2 {
                    assert!(state.gate.enter(&slot));
                    state.work(0);
                    state.gate.leave(&slot);
                }
                state.gate.part(&slot);
            })
        };
        state.commit();
        worker.join().unwrap();
        state.commit();
    });
}

#[test]
fn all_who_were_held_go_on() {
    check(2, || {
        let state = State::new();
        let workers = [0, 1].map(|part| {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let slot = state.gate.join();
                assert!(state.gate.enter(&slot));
                state.work(part);
                state.gate.leave(&slot);
            })
        });
        state.commit();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn who_ends_inside_holds_nobody_up() {
    check(4, || {
        let state = State::new();
        let slot = state.gate.join();
        assert!(state.gate.enter(&slot));
        let worker = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                state.work(0);
                state.gate.part(&slot);
            })
        };
        state.commit();
        worker.join().unwrap();
    });
}

#[test]
fn a_gate_that_is_shut_lets_nobody_wait() {
    check(4, || {
        let state = State::new();
        let entered = Arc::new(AtomicBool::new(false));
        let worker = {
            let (state, entered) = (Arc::clone(&state), Arc::clone(&entered));
            thread::spawn(move || {
                let slot = state.gate.join();
                if state.gate.enter(&slot) {
                    entered.store(true, Ordering::Relaxed);
                    state.gate.leave(&slot);
                }
            })
        };
        state.gate.hold();
        state.gate.shut();
        state.gate.release();
        worker.join().unwrap();
        let slot = state.gate.join();
        assert!(!state.gate.enter(&slot));
    });
}
