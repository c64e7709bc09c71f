// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Outputs come back when what they depend on is durable.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use super::disk::Disk;
use super::disk::Mood;
use super::*;
use crate::outputs::Outputs;
use crate::outputs::Released;
use crate::outputs::Released::Lost;
use crate::outputs::Released::Safe;

fn start(dir: &Path) -> (Context, Outputs<u64>) {
    let context = open(dir);
    let outputs = Outputs::new(&context, 100).unwrap();
    (context, outputs)
}

/// What can be taken without waiting.
fn now(outputs: &Outputs<u64>) -> Vec<Released<u64>> {
    let next = || outputs.released(Some(Duration::ZERO)).ok().flatten();
    std::iter::from_fn(next).collect()
}

fn readable(outputs: &Outputs<u64>) -> bool {
    let mut fds = [PollFd::new(outputs.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn an_output_for_a_durable_epoch_comes_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    assert!(now(&outputs).is_empty() && !readable(&outputs));
    let epoch = context.commit_sync().unwrap().epoch;
    outputs.hold(epoch, 1).unwrap();
    assert!(readable(&outputs));
    assert_eq!(now(&outputs), [Safe(1)]);
    assert!(outputs.is_empty() && !readable(&outputs));
}

#[test]
fn an_output_waits_until_its_epoch_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, outputs) = start(dir.path());
    disk.set(Mood::Held);
    let first = context.commit().unwrap().epoch;
    let second = context.commit().unwrap().epoch;
    outputs.hold(first, 1).unwrap();
    outputs.hold(second, 2).unwrap();
    disk.wait_until_held();
    assert!(now(&outputs).is_empty() && !readable(&outputs));
    disk.set(Mood::Good);
    assert_eq!(outputs.released(None).unwrap(), Some(Safe(1)));
    assert_eq!(outputs.released(None).unwrap(), Some(Safe(2)));
    assert!(context.durable().unwrap() >= Some(second));
}

#[test]
fn an_output_for_the_next_commit_waits_for_one_that_begins_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, outputs) = start(dir.path());
    disk.set(Mood::Held);
    outputs.hold(0, 1).unwrap();
    context.commit().unwrap();
    outputs.hold(0, 2).unwrap();
    disk.wait_until_held();
    assert!(now(&outputs).is_empty());
    disk.set(Mood::Good);
    context.wait(0, None).unwrap();
    assert_eq!(now(&outputs), [Safe(1)], "the second has no commit yet");
    context.commit_sync().unwrap();
    assert_eq!(now(&outputs), [Safe(2)]);
}

#[test]
fn an_output_held_while_a_commit_asks_its_hooks_is_in_that_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let hook = {
        let outputs = outputs.clone();
        Arc::new(move |_: &Context, epoch| {
            outputs.hold(0, epoch).unwrap();
            0
        })
    };
    context.hook(When::BeforeCommit, hook).unwrap();
    for epoch in 1..=3 {
        context.commit().unwrap();
        context.wait(0, None).unwrap();
        assert_eq!(now(&outputs), [Safe(epoch)]);
    }
}

#[test]
fn an_output_held_by_a_hook_behind_a_commit_waits_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let hook = {
        let outputs = outputs.clone();
        Arc::new(move |_: &Context, epoch| {
            outputs.hold(0, epoch).unwrap();
            let waiting = outputs.released(None).unwrap_err();
            assert!(matches!(waiting, Error::FromHook(_)));
            0
        })
    };
    context.hook(When::AfterCommit, hook).unwrap();
    context.commit_sync().unwrap();
    assert!(now(&outputs).is_empty());
    context.commit_sync().unwrap();
    assert_eq!(now(&outputs), [Safe(1)]);
}

#[test]
fn outputs_keep_the_order_in_which_they_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let epoch = context.commit_sync().unwrap().epoch;
    outputs.hold(0, 1).unwrap();
    outputs.hold(epoch, 2).unwrap();
    assert!(now(&outputs).is_empty(), "the second could go, but not yet");
    context.commit_sync().unwrap();
    assert_eq!(now(&outputs), [Safe(1), Safe(2)]);
}

#[test]
fn a_commit_that_a_hook_refuses_leaves_outputs_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let refuse = Arc::new(Mutex::new(5));
    let hook = {
        let refuse = Arc::clone(&refuse);
        Arc::new(move |_: &Context, _| *refuse.lock().unwrap())
    };
    context.hook(When::BeforeCommit, hook).unwrap();
    outputs.hold(0, 1).unwrap();
    context.commit_sync().unwrap_err();
    assert!(now(&outputs).is_empty());
    *refuse.lock().unwrap() = 0;
    context.commit_sync().unwrap();
    assert_eq!(now(&outputs), [Safe(1)]);
}

#[test]
fn outputs_of_epochs_that_were_given_up_come_with_the_commit_that_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, outputs) = start(dir.path());
    disk.set(Mood::Held);
    outputs.hold(0, 1).unwrap();
    let epoch = context.commit().unwrap().epoch;
    outputs.hold(epoch, 2).unwrap();
    disk.wait_until_held();
    disk.fail(libc::ENOSPC);
    context.wait(epoch, None).unwrap_err();
    outputs.hold(0, 3).unwrap();
    context.commit().unwrap_err();
    outputs.hold(epoch, 4).unwrap();
    assert!(now(&outputs).is_empty() && !readable(&outputs));
    disk.set(Mood::Good);
    context.commit().unwrap();
    assert_eq!(now(&outputs), [Safe(1), Safe(2), Safe(3), Safe(4)]);
}

#[test]
fn an_output_comes_back_behind_the_hooks_of_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let hook = {
        let outputs = outputs.clone();
        Arc::new(move |_: &Context, _| {
            assert!(now(&outputs).is_empty(), "it came before the hook had run");
            0
        })
    };
    context.hook(When::AfterCommit, hook).unwrap();
    outputs.hold(0, 1).unwrap();
    context.commit().unwrap();
    assert_eq!(outputs.released(None).unwrap(), Some(Safe(1)));
}

#[test]
fn there_are_never_more_outputs_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let outputs = Outputs::new(&context, 2).unwrap();
    outputs.hold(0, 1).unwrap();
    context.commit_sync().unwrap();
    outputs.hold(0, 2).unwrap();
    let refused = outputs.hold(0, 3).unwrap_err();
    assert_eq!(refused.output, 3);
    assert!(matches!(refused.error, Error::OutputsFull(2)));
    assert_eq!(refused.error.errno(), libc::EAGAIN);
    assert_eq!((outputs.len(), now(&outputs)), (2, vec![Safe(1)]));
    outputs.hold(0, 3).unwrap();
}

#[test]
fn an_epoch_that_was_not_committed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let epoch = context.commit_sync().unwrap().epoch;
    let refused = outputs.hold(epoch + 1, 1).unwrap_err();
    assert_eq!(refused.error.errno(), libc::EINVAL);
    assert!(outputs.is_empty());
}

#[test]
fn closing_gives_what_is_safe_then_what_is_lost_then_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, outputs) = start(dir.path());
    disk.set(Mood::Held);
    outputs.hold(0, 1).unwrap();
    context.commit().unwrap();
    outputs.hold(0, 2).unwrap();
    disk.set(Mood::Good);
    drop(context);
    assert!(readable(&outputs));
    assert_eq!(now(&outputs), [Safe(1), Lost(2)]);
    assert!(readable(&outputs), "the end is to be told, too");
    assert_eq!(outputs.released(None).unwrap_err().errno(), libc::ESHUTDOWN);
    let refused = outputs.hold(0, 3).unwrap_err();
    assert_eq!(
        (refused.output, refused.error.errno()),
        (3, libc::ESHUTDOWN)
    );
}

#[test]
fn a_thread_that_waits_for_outputs_ends_with_the_context_and_does_not_keep_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let taker = outputs.clone();
    let taking = thread::spawn(move || {
        let mut taken = Vec::new();
        while let Ok(Some(output)) = taker.released(None) {
            taken.push(output);
        }
        taken
    });
    for number in 0..50 {
        outputs.hold(0, number).unwrap();
        context.commit().unwrap();
    }
    context.close().unwrap();
    let taken = taking.join().unwrap();
    assert_eq!(taken, (0..50).map(Safe).collect::<Vec<_>>());
    // The arena's addresses are free again, and so is the chain.
    drop(open(dir.path()));
}

#[test]
fn waiting_for_an_output_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (_context, outputs) = start(dir.path());
    outputs.hold(0, 1).unwrap();
    let short = Some(Duration::from_millis(1));
    assert_eq!(outputs.released(short).unwrap(), None);
}

#[test]
fn outputs_of_a_state_that_was_taken_back_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    outputs.hold(0, 1).unwrap();
    context.commit_sync().unwrap();
    outputs.hold(0, 2).unwrap();
    context.shared.queue.taken_back();
    outputs.hold(0, 3).unwrap();
    assert_eq!(now(&outputs), [Safe(1), Lost(2)]);
    context.commit_sync().unwrap();
    assert_eq!(now(&outputs), [Safe(3)]);
}

struct End<'a>(&'a Outputs<u64>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[test]
fn what_a_thread_wrote_before_it_held_an_output_is_in_the_chain_when_it_comes_back() {
    const THREADS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let (context, outputs) = start(dir.path());
    let region = context.region(&spec("r", 4 * 4096, 0)).unwrap();
    let numbers = region.as_ptr() as usize;
    let number = move |thread: usize| {
        let at = numbers + thread * 4096;
        // SAFETY: Within the region; used as an atomic number only.
        unsafe { &*(at as *const AtomicU64) }
    };
    let done = &AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let outputs = outputs.clone();
            scope.spawn(move || {
                for value in 1..=200 {
                    number(thread).store(value, Ordering::SeqCst);
                    let hold = || outputs.hold(0, ((thread as u64) << 32) | value);
                    while hold().is_err_and(|refused| refused.error.errno() == libc::EAGAIN) {
                        thread::yield_now();
                    }
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        // Should this thread panic, the others must not wait for it.
        let _end = End(&outputs);
        let mut last = [0; THREADS];
        let mut examined = 0;
        while last != [200; THREADS] {
            context.commit().unwrap();
            for output in now(&outputs) {
                let Safe(output) = output else {
                    panic!("{output:?}")
                };
                let (thread, value) = ((output >> 32) as usize, output & 0xFFFF_FFFF);
                assert_eq!(value, last[thread] + 1, "in order");
                last[thread] = value;
            }
            // Each look into the chain takes a while.
            examined += 1;
            if examined % 10 != 0 {
                continue;
            }
            let chain = Chain::open(dir.path()).unwrap();
            let newest = chain.commits().map(|commit| commit.epoch).max().unwrap();
            let pgoff = (numbers as u64 - chain.find(newest).unwrap().arena_base) / 4096;
            let mut loader = chain.load(newest).unwrap();
            while let Some(run) = loader.next_run().unwrap() {
                for (thread, &said) in last.iter().enumerate() {
                    let page = pgoff + thread as u64;
                    let pages = run.pgoff..run.pgoff + (run.bytes.len() / 4096) as u64;
                    if pages.contains(&page) {
                        let at = (page - run.pgoff) as usize * 4096;
                        let saved = run.bytes[at..at + 8].try_into().unwrap();
                        let saved = u64::from_ne_bytes(saved);
                        assert!(saved >= said, "said {said}, but {saved} is saved");
                    }
                }
            }
        }
        assert!(examined >= 10 || done.load(Ordering::SeqCst) > 0);
    });
}

#[test]
fn failing_to_make_the_descriptor_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let _failing = fake::fail(Call::Event, libc::EMFILE);
    let error = Outputs::<u64>::new(&context, 1).err().unwrap();
    assert_eq!(error.errno(), libc::EMFILE);
}
