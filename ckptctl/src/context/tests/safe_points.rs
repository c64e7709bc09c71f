// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that say when they work on the state.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::disk::Disk;
use super::disk::Mood;
use super::*;

#[test]
fn a_commit_inside_is_refused_and_succeeds_outside() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let outer = context.enter().unwrap();
    let inner = context.enter().unwrap();
    for guard in [outer, inner] {
        let error = context.commit().unwrap_err();
        assert!(matches!(error, Error::Inside("commit")), "{error}");
        assert_eq!(error.errno(), libc::EDEADLK);
        assert!(context.commit_sync().is_err());
        drop(guard);
    }
    assert_eq!(context.commit().unwrap().epoch, 1);
}

#[test]
fn a_commit_waits_for_who_is_inside_and_takes_what_he_did() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    let at = region.as_ptr() as usize;
    let (entered, wait) = mpsc::channel();
    let (go, begun) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let other = context.clone();
        scope.spawn(move || {
            let guard = other.enter().unwrap();
            entered.send(()).unwrap();
            begun.recv().unwrap();
            // SAFETY: The region has a page.
            unsafe { (at as *mut u64).write_volatile(7) };
            drop(guard);
        });
        wait.recv().unwrap();
        // The hook would run when the other is out, which he is not before it is told.
        scope.spawn(move || go.send(()).unwrap());
        assert_eq!(context.commit_sync().unwrap().epoch, 1);
    });
    drop(context);
    let context = open(dir.path());
    assert_eq!(get(context.region(&spec("r", 4096, 0)).unwrap(), 0), 7);
}

#[test]
fn who_comes_during_a_synchronous_commit_goes_on_when_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let (begun, comes) = mpsc::channel();
    let hook = move |_: &Context, epoch: u64| {
        begun.send(epoch).unwrap();
        0
    };
    context.hook(When::BeforeCommit, Arc::new(hook)).unwrap();
    thread::scope(|scope| {
        let other = context.clone();
        let came = scope.spawn(move || {
            let epoch = comes.recv().unwrap();
            let _guard = other.enter().unwrap();
            (epoch, other.durable().unwrap())
        });
        assert_eq!(context.commit_sync().unwrap().epoch, 1);
        assert_eq!(came.join().unwrap(), (1, Some(1)));
    });
}

#[test]
fn who_comes_during_a_commit_goes_on_while_it_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let context = open(dir.path());
    disk.set(Mood::Held);
    let epoch = context.commit().unwrap().epoch;
    drop(context.enter().unwrap());
    assert_eq!(context.durable().unwrap(), None);
    disk.set(Mood::Good);
    context.wait(epoch, None).unwrap();
}

#[test]
fn hooks_before_a_commit_may_enter_and_hooks_behind_it_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let (tell, told) = mpsc::channel();
    let before = |context: &Context, _: u64| {
        // It is over with the hook, even if the hook forgets.
        std::mem::forget(context.enter().unwrap());
        drop(context.enter().unwrap());
        0
    };
    let behind = move |context: &Context, _: u64| {
        tell.send(context.enter().err().map(|error| error.errno()))
            .unwrap();
        0
    };
    context.hook(When::BeforeCommit, Arc::new(before)).unwrap();
    context.hook(When::AfterCommit, Arc::new(behind)).unwrap();
    context.commit().unwrap();
    context.commit_sync().unwrap();
    for _ in 0..2 {
        assert_eq!(told.recv().unwrap(), Some(libc::EDEADLK));
    }
    drop(context.enter().unwrap());
    context.commit().unwrap();
}

#[test]
fn a_commit_that_fails_lets_everybody_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    context
        .hook(When::BeforeCommit, Arc::new(|_: &Context, _: u64| 5))
        .unwrap();
    assert!(context.commit().is_err());
    let other = context.clone();
    thread::spawn(move || drop(other.enter().unwrap()))
        .join()
        .unwrap();
}

#[test]
fn a_closed_context_is_entered_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let point = context.safe_point().unwrap();
    point.enter().unwrap();
    point.leave().unwrap();
    assert!(!point.is_closed());
    drop(context);
    assert!(point.is_closed());
    assert_eq!(point.enter().unwrap_err().errno(), libc::EINVAL);
    assert_eq!(point.leave().unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn a_rollback_inside_is_refused_and_one_outside_waits_for_who_is_inside() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    let guard = context.enter().unwrap();
    let error = context.rollback(0).unwrap_err();
    assert!(matches!(error, Error::Inside("rollback")), "{error}");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let back = scope.spawn(|| {
            let report = context.rollback(1).unwrap();
            done.store(true, Ordering::SeqCst);
            report
        });
        // Whenever it has begun, it waits.
        for value in 2..2000 {
            put(region, 0, value);
            thread::yield_now();
        }
        assert!(!done.load(Ordering::SeqCst));
        drop(guard);
        assert_eq!(back.join().unwrap().to, 1);
    });
    assert_eq!(get(region, 0), 1);
}
