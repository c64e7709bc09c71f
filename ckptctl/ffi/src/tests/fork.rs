// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a forked child may do with what it inherited: nothing, and that it is told.

use std::sync::atomic::AtomicBool;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::alarm;
use nix::unistd::fork;

use super::outputs::open_outputs;
use super::refusals::refusals;
use super::state::Sent;
use super::*;

/// How a child ended that ran this and exited with its result; by a signal if it got stuck.
fn in_child(body: impl FnOnce() -> c_int) -> WaitStatus {
    // SAFETY: The child runs nothing of other threads, and ends without running destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            alarm::set(30);
            let result = body();
            // SAFETY: Ends the child.
            unsafe { libc::_exit(result) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

#[test]
fn every_function_refuses_in_children_forked_at_any_moment_and_the_parent_goes_on() {
    let place = Place::new();
    let sent = &Sent(place.open());
    let ctx = sent.0;
    let outputs = open_outputs(ctx, 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // What these have locked when a child is forked stays locked in the child.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let ctx = { sent }.0;
                let block = ckpt_malloc(ctx, 100);
                // SAFETY: The block is new, or null.
                unsafe { ckpt_free(ctx, block) };
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(commit({ sent }.0), 0, "{}", message());
                let other = Place::new();
                assert_eq!(ckpt_close(other.open()), 0);
            }
        });
        let first_wrong = |names: Vec<(&str, bool)>| {
            let wrong = names.iter().position(|(_, refused)| !refused);
            wrong.map_or(0, |at| at as c_int + 1)
        };
        let ended: Vec<WaitStatus> = (0..40)
            .map(|_| in_child(|| first_wrong(refusals(ctx, outputs, libc::EPERM))))
            .collect();
        // First, for a panic would wait for them.
        done.store(true, Ordering::Relaxed);
        let names = refusals(null_mut(), null_mut(), libc::EINVAL);
        for child in ended {
            match child {
                WaitStatus::Exited(_, 0) => (),
                WaitStatus::Exited(_, at) => panic!("{} did not refuse", names[at as usize - 1].0),
                other => panic!("a child ended by {other:?}"),
            }
        }
    });
    assert_eq!(commit(ctx), 0, "{}", message());
    assert_eq!((ckpt_close(ctx), ckpt_output_close(outputs)), (0, 0));
}

#[test]
fn a_forked_child_does_not_have_the_arena() {
    let place = Place::new();
    let ctx = place.open();
    let number = ckpt_malloc(ctx, 8).cast::<u64>();
    // SAFETY: The block is so long; the child is meant to end by it.
    let ended = in_child(|| unsafe { number.read_volatile() } as c_int);
    assert!(
        matches!(ended, WaitStatus::Signaled(_, Signal::SIGSEGV, _)),
        "{ended:?}"
    );
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn a_forked_child_can_open_a_context_of_its_own_at_the_same_address() {
    if !alone("tests::fork::a_forked_child_can_open_a_context_of_its_own_at_the_same_address") {
        return;
    }
    let (of_parent, mut of_child) = (Place::new(), Place::new());
    let ctx = of_parent.open();
    of_child.base = of_parent.base;
    let ended = in_child(|| match open_with(&of_child.options()) {
        Ok(own) => {
            let refused = commit(ctx) == -libc::EPERM;
            commit(own) | ckpt_close(own) | c_int::from(!refused)
        }
        Err(error) => -error,
    });
    assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    let restored = open_with(&of_child.options());
    assert_eq!(restored, Err(-libc::EADDRINUSE), "the parent is there");
    assert_eq!(ckpt_close(ctx), 0);
    let restored = of_child.open();
    assert_eq!(ckpt_restored_epoch(restored), 1);
    assert_eq!(ckpt_close(restored), 0);
}

#[test]
fn what_is_on_its_way_when_a_child_is_forked_is_saved_by_the_parent() {
    let place = Place::new();
    let ctx = place.open();
    let number = region(ctx, c"number", 8);
    let children: Vec<WaitStatus> = (1..=8)
        .map(|value| {
            // SAFETY: The region is so long.
            unsafe { number.write(value) };
            assert_eq!(commit(ctx), 0, "{}", message());
            // A child that ends in order closes nothing and waits for nothing.
            in_child(|| c_int::from(ckpt_close(ctx) != -libc::EPERM))
        })
        .collect();
    assert!(
        children
            .iter()
            .all(|child| matches!(child, WaitStatus::Exited(_, 0))),
        "{children:?}"
    );
    assert_eq!(ckpt_close(ctx), 0, "{}", message());
    let ctx = place.open();
    assert_eq!(ckpt_restored_epoch(ctx), 8);
    // SAFETY: As above.
    assert_eq!(unsafe { region(ctx, c"number", 8).read() }, 8);
    assert_eq!(ckpt_close(ctx), 0);
}
