// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits that are saved while the program goes on, and what is told of them.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use super::*;

#[test]
fn a_commit_is_waited_for_by_its_epoch() {
    let place = Place::new();
    let ctx = place.open();
    assert_eq!(ckpt_wait(ctx, 0, 0), 0, "nothing was committed");
    assert_eq!(ckpt_wait(ctx, 1, -1), -libc::EINVAL);
    assert!(message().contains("not committed yet"), "{}", message());
    for epoch in 1..=20 {
        assert_eq!(commit(ctx), 0, "{}", message());
        assert_eq!(ckpt_epoch(ctx), epoch);
        let in_time = ckpt_wait(ctx, epoch, 0);
        assert!([0, -libc::ETIMEDOUT].contains(&in_time), "{}", message());
    }
    assert_eq!(ckpt_wait(ctx, 20, 60_000), 0, "{}", message());
    assert_eq!((ckpt_durable(ctx), ckpt_wait(ctx, 0, 0)), (20, 0));
    let told = stats(ctx);
    assert_eq!((told.commits, told.saved, told.given_up), (20, 20, 0));
    assert_eq!((told.fallbacks, told.in_flight), (0, 0));
    assert!(told.durable_ns_max > 0 && told.durable_ns >= told.durable_ns_max);
    assert!(told.pause_ns >= told.pause_ns_max && told.pause_ns_max >= told.pause_ns_last);
    assert!(told.pages >= 1 && told.stored_bytes >= 20 * 4096);
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn a_synchronous_commit_is_durable_when_it_returns() {
    let place = Place::new();
    let options = ckpt_options {
        flags: CKPT_SYNC,
        ..place.options()
    };
    let ctx = open_with(&options).unwrap();
    assert_eq!(commit(ctx), 0);
    assert_eq!(ckpt_durable(ctx), 1);
    assert_eq!(ckpt_close(ctx), 0);
    let ctx = place.open();
    assert_eq!(commit(ctx), 0);
    // SAFETY: Null is allowed.
    assert_eq!(unsafe { ckpt_commit_sync(ctx, null_mut()) }, 0);
    assert_eq!(ckpt_durable(ctx), 4, "a restore is an epoch, too");
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn closing_waits_for_what_is_on_its_way() {
    let place = Place::new();
    let ctx = place.open();
    for _ in 0..CKPT_IN_FLIGHT_MAX {
        assert_eq!(commit(ctx), 0);
    }
    assert_eq!(ckpt_close(ctx), 0);
    let ctx = place.open();
    assert_eq!(ckpt_restored_epoch(ctx), CKPT_IN_FLIGHT_MAX.into());
    assert_eq!(ckpt_close(ctx), 0);
}

/// Lets no file of this process grow beyond `bytes`.
fn limit_files(bytes: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).unwrap();
}

#[test]
fn a_disk_that_is_full_is_told_by_wait_and_by_commit_and_nothing_is_lost() {
    const TEST: &str =
        "tests::saving::a_disk_that_is_full_is_told_by_wait_and_by_commit_and_nothing_is_lost";
    if !alone(TEST) {
        return;
    }
    // SAFETY: No handler is installed. Writing beyond the limit is an error then, and no signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let place = Place::new();
    let ctx = place.open();
    let numbers = region(ctx, c"numbers", 1 << 20);
    // SAFETY: Within the region.
    let put = |at: usize, value: u64| unsafe { numbers.add(at * 512).write(value) };
    put(0, 1);
    assert_eq!(commit(ctx), 0);
    assert_eq!(ckpt_wait(ctx, 0, -1), 0, "{}", message());

    limit_files(4096);
    put(1, 2);
    assert_eq!(commit(ctx), 0, "it does not wait for the disk");
    assert_eq!(ckpt_wait(ctx, 2, -1), -libc::EFBIG);
    assert!(
        message().contains("epoch 2 is not durable"),
        "{}",
        message()
    );
    put(2, 3);
    assert_eq!(commit(ctx), -libc::EFBIG, "the next one says so itself");
    assert_eq!(ckpt_wait(ctx, 0, -1), -libc::EFBIG);
    assert_eq!((ckpt_epoch(ctx), ckpt_durable(ctx)), (1, 1));

    limit_files(u64::MAX);
    assert_eq!(
        ckpt_wait(ctx, 0, -1),
        -libc::EFBIG,
        "nobody has tried again"
    );
    put(3, 4);
    assert_eq!(commit(ctx), 0, "{}", message());
    assert_eq!((ckpt_epoch(ctx), ckpt_durable(ctx)), (4, 4));
    assert_eq!(ckpt_wait(ctx, 2, 0), 0, "epoch 4 has what epoch 2 had");
    let told = stats(ctx);
    assert_eq!((told.commits, told.saved, told.given_up), (4, 2, 2));

    limit_files(4096);
    put(0, 9);
    assert_eq!(commit(ctx), 0);
    assert_eq!(ckpt_close(ctx), -libc::EFBIG, "closing tells it");
    assert!(
        message().contains("epoch 5 is not durable"),
        "{}",
        message()
    );
    limit_files(u64::MAX);
    let ctx = place.open();
    assert_eq!(ckpt_restored_epoch(ctx), 4);
    // SAFETY: Within the region.
    let restored = [0, 1, 2, 3].map(|at| unsafe { numbers.add(at * 512).read() });
    assert_eq!(restored, [1, 2, 3, 4]);
    assert_eq!(ckpt_close(ctx), 0);
}

/// What the hooks of the test below note.
#[derive(Default)]
struct Noted {
    /// The thread that tells, and what it was told.
    after: Mutex<Vec<(thread::ThreadId, u64)>>,
}

extern "C" fn note_thread(ctx: *mut ckpt_t, epoch: u64, user: *mut c_void) -> c_int {
    // SAFETY: The test points at what it keeps until the context is closed.
    let noted = unsafe { &*user.cast::<Noted>() };
    assert!(ckpt_durable(ctx) >= epoch && !ckpt_malloc(ctx, 8).is_null());
    noted
        .after
        .lock()
        .unwrap()
        .push((thread::current().id(), epoch));
    0
}

#[test]
fn hooks_behind_a_commit_run_in_order_in_one_other_thread_before_wait_returns() {
    let place = Place::new();
    let noted = Noted::default();
    let ctx = place.open();
    let user = (&raw const noted).cast_mut().cast();
    let when = CKPT_AFTER_COMMIT as i32;
    assert_eq!(ckpt_hook(ctx, when, Some(note_thread), user), 0);
    for epoch in 1..=10 {
        assert_eq!(commit(ctx), 0);
        if epoch % 3 == 0 {
            assert_eq!(ckpt_wait(ctx, epoch, -1), 0);
            assert_eq!(noted.after.lock().unwrap().len() as u64, epoch);
        }
    }
    assert_eq!(ckpt_close(ctx), 0);
    let after = noted.after.into_inner().unwrap();
    let epochs: Vec<u64> = after.iter().map(|(_, epoch)| *epoch).collect();
    assert_eq!(epochs, (1..=10).collect::<Vec<_>>());
    assert!(after.iter().all(|(thread, _)| *thread == after[0].0));
    assert_ne!(after[0].0, thread::current().id());
}
