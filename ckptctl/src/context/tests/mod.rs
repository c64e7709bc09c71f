// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts over the comparing tracker, or another in CKPT_TRACKER: the same claims hold for any.

mod adopting;
mod background;
mod compacting;
mod disk;
mod failing_saves;
mod heap;
mod outputs;
mod power_failure;
mod rollback;
mod safe_points;

use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use nix::libc;

use super::*;
use crate::options::Options;
use crate::options::Restore;
use crate::store::Chain;
use crate::sys::fake;
use crate::sys::fake::Call;
use crate::sys::file::FileCall;
use crate::sys::file::fake::Verdict;
use crate::sys::file::fake::with;
use crate::track::Choice;

/// Arenas of tests that run side by side are at different addresses.
fn options(dir: &Path) -> Options {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static BASE: u64 = (1 << 44) + (NEXT.fetch_add(1, Ordering::Relaxed) << 32);
    }
    Options::new()
        .dir(dir)
        .name("test")
        .base(BASE.with(|base| *base))
        .arena_bytes(1 << 30)
        .tracker(match Choice::from_environment() {
            Ok(Choice::Auto) => Choice::Compare,
            choice => choice.unwrap(),
        })
}

fn open(dir: &Path) -> Context {
    Context::open(options(dir)).expect("a context")
}

fn spec(name: &str, len_bytes: u64, reserve_bytes: u64) -> RegionSpec<'_> {
    RegionSpec {
        name,
        kind: 1,
        len_bytes,
        reserve_bytes,
    }
}

fn put(at: NonNull<u8>, offset: usize, value: u64) {
    // SAFETY: Tests write within the regions they made.
    unsafe { at.add(offset).cast::<u64>().write(value) }
}

fn get(at: NonNull<u8>, offset: usize) -> u64 {
    // SAFETY: Tests read within the regions they made.
    unsafe { at.add(offset).cast::<u64>().read() }
}

#[test]
fn a_committed_state_comes_back_at_the_same_addresses_and_the_rest_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    assert_eq!(context.restored_epoch(), None);
    assert_eq!(context.epoch().unwrap(), None);
    let region = context.region(&spec("numbers", 3 * 4096, 0)).unwrap();
    put(region, 8, 42);
    put(region, 2 * 4096, 43);
    context.set_root(Some(region)).unwrap();
    let report = context.commit().unwrap();
    assert_eq!((report.epoch, context.epoch().unwrap()), (1, Some(1)));
    put(region, 8, 99);
    let generation = context.generation();
    drop(context);

    let context = open(dir.path());
    assert_eq!(context.restored_epoch(), Some(1));
    assert_ne!(context.generation(), generation);
    assert_eq!(context.root().unwrap(), Some(region));
    assert_eq!(context.region(&spec("numbers", 1, 0)).unwrap(), region);
    assert_eq!(context.region_len("numbers").unwrap(), Some(3 * 4096));
    assert_eq!((get(region, 8), get(region, 2 * 4096)), (42, 43));
}

#[test]
fn a_commit_saves_the_pages_that_changed_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 100 * 4096, 0)).unwrap();
    (0..100).for_each(|page| put(region, page * 4096, page as u64 + 1));
    assert!(context.commit().unwrap().pages >= 100);
    put(region, 5 * 4096, 7);
    put(region, 70 * 4096, 7);
    assert_eq!(context.commit().unwrap().pages, 2);
    assert_eq!(context.commit().unwrap().pages, 0);
}

#[test]
fn epochs_go_on_behind_the_newest_when_an_older_one_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    for value in 1..=5 {
        put(region, 0, value);
        assert_eq!(context.commit().unwrap().epoch, value);
    }
    drop(context);

    let context = Context::open(options(dir.path()).restore(Restore::Epoch(2))).unwrap();
    assert_eq!(context.restored_epoch(), Some(2));
    assert_eq!(get(region, 0), 2);
    assert_eq!(
        context.epoch().unwrap(),
        Some(6),
        "the restore has an epoch of its own"
    );
    put(region, 0, 200);
    assert_eq!(context.commit().unwrap().epoch, 7);
    drop(context);

    let restored = |restore| {
        let context = Context::open(options(dir.path()).restore(restore)).unwrap();
        (context.restored_epoch(), get(region, 0))
    };
    assert_eq!(
        restored(Restore::Epoch(4)),
        (Some(4), 4),
        "the branch left behind is there"
    );
    assert_eq!(restored(Restore::Epoch(7)), (Some(7), 200));
    let (newest, value) = restored(Restore::Newest);
    assert_eq!(
        (newest, value),
        (Some(9), 200),
        "the newest is the restore of 7"
    );
}

#[test]
fn a_fresh_start_leaves_the_chain_and_begins_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    drop(context);

    let context = Context::open(options(dir.path()).restore(Restore::Nothing)).unwrap();
    assert_eq!(context.root().unwrap(), None);
    assert_eq!(context.region_len("r").unwrap(), None);
    context.region(&spec("other", 4096, 0)).unwrap();
    assert_eq!(context.commit().unwrap().epoch, 2);
    drop(context);

    let chain = Chain::open(dir.path()).unwrap();
    assert_eq!(chain.find(2).unwrap().parent, None);
    let context = Context::open(options(dir.path()).restore(Restore::Epoch(1))).unwrap();
    assert_eq!(context.region_len("r").unwrap(), Some(4096));
}

#[test]
fn an_epoch_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    context.commit().unwrap();
    drop(context);
    let error = Context::open(options(dir.path()).restore(Restore::Epoch(9)))
        .err()
        .unwrap();
    assert_eq!(error.errno(), libc::ENOENT);
}

#[test]
fn two_contexts_on_one_chain_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _context = open(dir.path());
    let error = Context::open(options(dir.path()).base(1 << 43))
        .err()
        .unwrap();
    assert_eq!(error.errno(), libc::EBUSY);
}

#[test]
fn a_region_grows_in_place_and_its_new_part_is_zero() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 10 * 4096)).unwrap();
    let next = context.region(&spec("next", 4096, 0)).unwrap();
    assert_eq!(next.as_ptr() as usize - region.as_ptr() as usize, 10 * 4096);
    put(region, 0, 1);
    context.commit().unwrap();
    context.grow_region("r", 9 * 4096 + 1).unwrap();
    assert_eq!(context.region_len("r").unwrap(), Some(10 * 4096));
    assert_eq!(get(region, 9 * 4096), 0);
    put(region, 9 * 4096, 2);
    context.commit().unwrap();
    drop(context);

    let context = open(dir.path());
    assert_eq!(context.region_len("r").unwrap(), Some(10 * 4096));
    assert_eq!((get(region, 0), get(region, 9 * 4096)), (1, 2));
}

#[test]
fn regions_that_cannot_be_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let refused = |spec: RegionSpec<'_>| context.region(&spec).unwrap_err().errno();
    assert_eq!(refused(spec("", 4096, 0)), libc::EINVAL);
    assert_eq!(refused(spec("tab\t", 4096, 0)), libc::EINVAL);
    assert_eq!(refused(spec(&"n".repeat(48), 4096, 0)), libc::EINVAL);
    assert_eq!(refused(spec("empty", 0, 0)), libc::EINVAL);
    assert_eq!(refused(spec("small", 8192, 4096)), libc::EINVAL);
    assert_eq!(refused(spec("large", 4096, 2 << 30)), libc::ENOSPC);
    let longest = "n".repeat(47);
    context.region(&spec(&longest, 4096, 0)).unwrap();
    let other = RegionSpec {
        kind: 2,
        ..spec(&longest, 4096, 0)
    };
    assert_eq!(context.region(&other).unwrap_err().errno(), libc::EEXIST);
    assert_eq!(
        context.grow_region("none", 1).unwrap_err().errno(),
        libc::ENOENT
    );
    let grown = context.grow_region(&longest, 4097);
    assert_eq!(grown.unwrap_err().errno(), libc::ENOSPC);
}

#[test]
fn the_table_takes_512_regions_and_refuses_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    for number in 0..512 {
        context
            .region(&spec(&format!("region {number}"), 1, 0))
            .unwrap();
    }
    let error = context.region(&spec("one more", 1, 0)).unwrap_err();
    assert!(matches!(error, Error::TooManyRegions(512)));
    context.commit().unwrap();
    drop(context);
    assert!(open(dir.path()).region_len("region 511").unwrap().is_some());
}

#[test]
fn a_root_outside_of_the_arena_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let mut local = 0u8;
    let error = context.set_root(NonNull::new(&raw mut local)).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    context.set_root(None).unwrap();
}

#[test]
fn hooks_run_in_order_behind_a_commit_in_reverse_and_one_may_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let told: Arc<Mutex<Vec<(&str, u64)>>> = Arc::default();
    let note = |name: &'static str, code: i32| {
        let told = told.clone();
        Arc::new(move |_: &Context, epoch: u64| {
            told.lock().unwrap().push((name, epoch));
            code
        })
    };
    context
        .hook(When::BeforeCommit, note("before 1", 0))
        .unwrap();
    context
        .hook(When::BeforeCommit, note("before 2", 0))
        .unwrap();
    context.hook(When::AfterCommit, note("after 1", 5)).unwrap();
    context.hook(When::AfterCommit, note("after 2", 0)).unwrap();
    context.commit().unwrap();
    context.wait(1, None).unwrap();
    let order = [
        ("before 1", 1),
        ("before 2", 1),
        ("after 2", 1),
        ("after 1", 1),
    ];
    assert_eq!(*told.lock().unwrap(), order);

    context.hook(When::BeforeCommit, note("no", 7)).unwrap();
    let error = context.commit().unwrap_err();
    assert!(matches!(error, Error::Hook { code: 7, .. }));
    assert_eq!(error.errno(), libc::ECANCELED);
    assert_eq!(context.epoch().unwrap(), Some(1));
}

#[test]
fn a_hook_may_use_the_context_but_not_commit() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let seen: Arc<Mutex<Option<i32>>> = Arc::default();
    let hook = {
        let seen = seen.clone();
        Arc::new(move |context: &Context, _| {
            let region = context.region(&spec("from the hook", 4096, 0)).unwrap();
            put(region, 0, 5);
            *seen.lock().unwrap() = context.commit().err().map(|error| error.errno());
            0
        })
    };
    context.hook(When::BeforeCommit, hook).unwrap();
    context.commit().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(libc::EDEADLK));
    drop(context);
    let context = open(dir.path());
    let region = context.region(&spec("from the hook", 4096, 0)).unwrap();
    assert_eq!(get(region, 0), 5, "what the hook wrote is in the commit");
}

#[test]
fn the_hook_behind_a_restore_sees_the_state_and_can_fail_the_opening() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 3);
    context.commit().unwrap();
    drop(context);
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let hook = {
        let seen = seen.clone();
        move |context: &Context, epoch| {
            let region = context.region(&spec("r", 4096, 0)).unwrap();
            seen.lock().unwrap().push((epoch, get(region, 0)));
            0
        }
    };
    drop(Context::open(options(dir.path()).hook(When::AfterRestore, hook)).unwrap());
    assert_eq!(*seen.lock().unwrap(), [(1, 3)]);
    let refuse = options(dir.path()).hook(When::AfterRestore, |_, _| -1);
    assert!(matches!(
        Context::open(refuse),
        Err(Error::Hook { code: -1, .. })
    ));
}

/// Commits while a call of the file system fails, then again without.
fn commit_through(fail: impl Fn(&FileCall<'_>) -> bool + 'static, errno: i32) {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 50 * 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    put(region, 4096, 2);
    let verdict = move |call: &FileCall<'_>| match fail(call) {
        true => Verdict::Fail(errno),
        false => Verdict::Go,
    };
    let failed = with(verdict, || context.commit_sync());
    assert_eq!(failed.unwrap_err().errno(), errno);
    assert_eq!(context.epoch().unwrap(), Some(1));
    put(region, 8192, 3);
    let report = context.commit().unwrap();
    assert!(
        report.durable,
        "the commit behind a failed one is waited for"
    );
    assert!(
        report.pages >= 2,
        "the page of the failed commit is saved, too"
    );
    drop(context);
    let context = open(dir.path());
    assert_eq!(context.restored_epoch(), Some(report.epoch));
    assert_eq!([0, 4096, 8192].map(|at| get(region, at)), [1, 2, 3]);
}

#[test]
fn a_full_disk_loses_nothing_and_the_next_commit_catches_up() {
    commit_through(|call| matches!(call, FileCall::Write(..)), libc::ENOSPC);
}

#[test]
fn a_failed_sync_loses_nothing_and_the_next_commit_catches_up() {
    commit_through(|call| matches!(call, FileCall::SyncData(..)), libc::EIO);
}

#[test]
fn taken_addresses_are_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _first = open(one.path());
    let error = Context::open(options(two.path())).err().unwrap();
    assert!(matches!(error, Error::AddressTaken { .. }), "{error}");
    assert_eq!(error.errno(), libc::EADDRINUSE);
}

#[test]
fn failing_system_calls_are_told_and_leave_the_chain_usable() {
    let dir = tempfile::tempdir().unwrap();
    for (call, errno) in [(Call::Map, libc::ENOMEM), (Call::Random, libc::EIO)] {
        let _failing = fake::fail(call, errno);
        assert_eq!(
            Context::open(options(dir.path())).err().unwrap().errno(),
            errno
        );
    }
    let module = options(dir.path()).tracker(Choice::Module);
    {
        let _failing = fake::fail(Call::OpenDevice, libc::ENOENT);
        let error = Context::open(module.clone()).err().unwrap();
        assert!(matches!(error, Error::NoDevice), "{error}");
    }
    let _failing = fake::fail(Call::OpenDevice, libc::EACCES);
    let error = Context::open(module).err().unwrap();
    assert!(matches!(error, Error::DeviceAccess(_)), "{error}");
    drop(open(dir.path()));
}

#[test]
fn an_arena_can_be_larger_after_a_restore_but_not_smaller_or_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    context.commit().unwrap();
    drop(context);
    let reopened = |options: Options| Context::open(options);
    let context = reopened(options(dir.path()).arena_bytes(2 << 30)).unwrap();
    context.region(&spec("big", 4096, 3 << 29)).unwrap();
    context.commit().unwrap();
    drop(context);
    let context = reopened(options(dir.path()).arena_bytes(1 << 20)).unwrap();
    assert!(context.region_len("big").unwrap().is_some());
    drop(context);
    let moved = reopened(options(dir.path()).base(1 << 43));
    assert_eq!(moved.err().unwrap().errno(), libc::EINVAL);
}
