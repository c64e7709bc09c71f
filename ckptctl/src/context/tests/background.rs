// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits that are saved while the program goes on.

use std::time::Duration;

use super::disk::Disk;
use super::disk::Mood;
use super::*;
use crate::saving::IN_FLIGHT_MAX;

const NO_TIME: Option<Duration> = Some(Duration::ZERO);

/// A context with a region of 100 pages.
fn start(dir: &Path) -> (Context, NonNull<u8>) {
    let context = open(dir);
    let region = context.region(&spec("r", 100 * 4096, 0)).unwrap();
    (context, region)
}

#[test]
fn a_commit_returns_before_its_epoch_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    put(region, 0, 1);
    disk.set(Mood::Held);
    let report = context.commit().unwrap();
    assert_eq!((report.epoch, report.durable), (1, false));
    assert!(report.pages >= 2 && report.stored_bytes == 0);
    assert_eq!(context.epoch().unwrap(), Some(1));
    assert_eq!(context.durable().unwrap(), None);
    let waited = context.wait(1, NO_TIME).unwrap_err();
    assert_eq!(waited.errno(), libc::ETIMEDOUT);
    let soon = context.wait(0, Some(Duration::from_millis(5)));
    assert!(matches!(soon, Err(Error::TimedOut { epoch: 1 })));
    assert_eq!(Chain::open(dir.path()).unwrap().newest().unwrap(), None);
    assert_eq!(context.stats().unwrap().in_flight, 1);

    disk.set(Mood::Good);
    context.wait(0, None).unwrap();
    assert_eq!(context.durable().unwrap(), Some(1));
    let newest = Chain::open(dir.path()).unwrap();
    let newest = newest.newest().unwrap().unwrap();
    assert_eq!(
        (newest.epoch, newest.pause_ns),
        (1, report.pause_ns),
        "the pause is the commit's, not that of saving"
    );
    context.wait(1, NO_TIME).unwrap();
}

#[test]
fn an_epoch_is_what_the_program_had_when_it_committed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    disk.set(Mood::Held);
    for value in 1..=3 {
        put(region, 0, value);
        put(region, value as usize * 4096, value);
        let name = format!("region {value}");
        context.region(&spec(&name, 4096 * value, 0)).unwrap();
        context
            .set_root(NonNull::new(region.as_ptr().wrapping_add(value as usize)))
            .unwrap();
        assert_eq!(context.commit().unwrap().epoch, value);
    }
    // The rest of the program's life has nothing to do with what is on its way.
    (0..100).for_each(|page| put(region, page * 4096, 99));
    context.region(&spec("late", 4096, 0)).unwrap();
    context.set_root(None).unwrap();
    disk.set(Mood::Good);
    drop(context);

    for epoch in 1..=3 {
        let context = Context::open(options(dir.path()).restore(Restore::Epoch(epoch))).unwrap();
        let values = [0, 1, 2, 3, 4].map(|page| get(region, page * 4096));
        let at_most = |value: u64| if value <= epoch { value } else { 0 };
        assert_eq!(values, [epoch, at_most(1), at_most(2), at_most(3), 0]);
        let root = context.root().unwrap().unwrap();
        assert_eq!(
            root.as_ptr().addr() - region.as_ptr().addr(),
            epoch as usize
        );
        for value in 1..=3 {
            let len = context.region_len(&format!("region {value}")).unwrap();
            assert_eq!(len, (value <= epoch).then_some(4096 * value));
        }
        assert_eq!(context.region_len("late").unwrap(), None);
    }
    let chain = Chain::open(dir.path()).unwrap();
    for epoch in 1..=3 {
        let names: Vec<String> = chain
            .get(epoch)
            .unwrap()
            .regions
            .into_iter()
            .map(|region| region.name)
            .collect();
        assert_eq!(
            names.len() as u64,
            1 + epoch,
            "the region table is the commit's: {names:?}"
        );
    }
    let pages: Vec<u64> = chain
        .commits()
        .take(3)
        .map(|commit| commit.pages())
        .collect();
    // The head, and in the region the first page and the epoch's own.
    assert_eq!(
        pages[1..],
        [3, 3],
        "each has what changed since the one before"
    );
}

#[test]
fn a_program_that_commits_faster_than_the_disk_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    disk.set(Mood::Held);
    for value in 1..=IN_FLIGHT_MAX as u64 {
        put(region, 0, value);
        context.commit().unwrap();
    }
    assert_eq!(context.stats().unwrap().queue_waits, 0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| context.commit().unwrap());
        while context.stats().unwrap().queue_waits == 0 {
            thread::yield_now();
        }
        assert_eq!(
            context.epoch().unwrap(),
            Some(IN_FLIGHT_MAX as u64),
            "it has not begun"
        );
        // The program is not held up by who waits.
        context.allocate(100, 16).unwrap();
        put(region, 0, 77);
        disk.set(Mood::Good);
        let report = waiting.join().unwrap();
        assert_eq!(report.epoch, IN_FLIGHT_MAX as u64 + 1);
    });
    for value in 0..200 {
        put(region, 0, value);
        context.commit().unwrap();
    }
    context.wait(0, None).unwrap();
    let stats = context.stats().unwrap();
    assert_eq!(
        (stats.saved, stats.given_up, stats.in_flight),
        (stats.commits, 0, 0)
    );
    assert!(stats.queue_wait_ns > 0);
    drop(context);
    assert_eq!(get_restored(dir.path(), region), 199);
}

/// The first number of a region in the newest commit.
fn get_restored(dir: &Path, region: NonNull<u8>) -> u64 {
    let _context = open(dir);
    get(region, 0)
}

#[test]
fn who_waits_is_told_what_cannot_be_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (context, _) = start(dir.path());
    context.wait(0, None).unwrap();
    let error = context.wait(1, None).unwrap_err();
    assert_eq!(
        error.errno(),
        libc::EINVAL,
        "nobody has committed it: {error}"
    );
    context.commit().unwrap();
    context.wait(1, Some(Duration::MAX)).unwrap();
    assert_eq!(context.wait(2, None).unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn a_save_that_fails_is_told_by_wait_and_made_good_by_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    put(region, 0, 1);
    context.commit().unwrap();
    context.wait(1, None).unwrap();

    disk.set(Mood::Held);
    for value in 2..=4 {
        put(region, value as usize * 4096, value);
        context.commit().unwrap();
    }
    assert_eq!(context.epoch().unwrap(), Some(4));
    disk.fail(libc::ENOSPC);
    for epoch in [0, 2, 3, 4] {
        let error = context.wait(epoch, None).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC, "{error}");
        let named = if epoch == 0 { 4 } else { epoch };
        assert!(
            error
                .to_string()
                .contains(&format!("epoch {named} is not durable")),
            "{error}"
        );
    }
    context.wait(1, NO_TIME).unwrap();
    assert_eq!(
        (context.epoch().unwrap(), context.durable().unwrap()),
        (Some(1), Some(1))
    );
    // The program goes on, and each commit says that it is not saved.
    for value in 5..=6 {
        put(region, value as usize * 4096, value);
        let error = context.commit().unwrap_err();
        assert!(
            matches!(error, Error::NotDurable { epoch, .. } if epoch == value),
            "{error}"
        );
    }

    disk.set(Mood::Good);
    put(region, 7 * 4096, 7);
    let report = context.commit().unwrap();
    assert_eq!((report.epoch, report.durable), (7, true));
    for epoch in 2..=7 {
        context.wait(epoch, NO_TIME).unwrap();
    }
    put(region, 8 * 4096, 8);
    assert!(!context.commit().unwrap().durable, "all is as before");
    let stats = context.stats().unwrap();
    assert_eq!((stats.commits, stats.given_up), (8, 5));
    context.close().unwrap();

    let chain = Chain::open(dir.path()).unwrap();
    let parents: Vec<_> = chain
        .commits()
        .map(|commit| (commit.epoch, commit.parent))
        .collect();
    assert_eq!(parents, [(1, None), (7, Some(1)), (8, Some(7))]);
    let _context = open(dir.path());
    let values = [0, 2, 3, 4, 5, 6, 7, 8].map(|page| get(region, page * 4096));
    assert_eq!(values, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_failure_while_a_commit_asks_its_hooks_is_made_good_by_that_commit() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::new());
    let (context, region) = start(dir.path());
    put(region, 0, 1);
    disk.set(Mood::Held);
    context.commit().unwrap();
    disk.wait_until_held();
    let breaks = {
        let disk = Arc::clone(&disk);
        move |context: &Context, _| {
            disk.fail(libc::EIO);
            while context.stats().unwrap().given_up == 0 {
                thread::yield_now();
            }
            disk.set(Mood::Good);
            0
        }
    };
    context.hook(When::BeforeCommit, Arc::new(breaks)).unwrap();
    put(region, 8, 2);
    let report = context.commit().unwrap();
    assert_eq!((report.epoch, report.durable), (2, true));
    context.close().unwrap();
    let _context = open(dir.path());
    assert_eq!((get(region, 0), get(region, 8)), (1, 2));
}

#[test]
fn closing_waits_for_what_is_on_its_way_and_tells_what_cannot_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    let commit_three = |context: &Context, first: u64| {
        for value in first..first + 3 {
            put(region, 0, value);
            context.commit().unwrap();
        }
    };
    disk.set(Mood::Held);
    commit_three(&context, 1);
    thread::scope(|scope| {
        let closing = scope.spawn(|| context.close());
        disk.wait_until_held();
        disk.set(Mood::Good);
        closing.join().unwrap().unwrap();
    });

    let context = open(dir.path());
    assert_eq!((context.restored_epoch(), get(region, 0)), (Some(3), 3));
    disk.set(Mood::Held);
    commit_three(&context, 4);
    disk.fail(libc::ENOSPC);
    let error = context.close().unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC);
    assert!(
        error.to_string().contains("epoch 7 is not durable"),
        "{error}"
    );

    // Dropping waits as well.
    disk.set(Mood::Good);
    let context = open(dir.path());
    assert_eq!((context.restored_epoch(), get(region, 0)), (Some(4), 3));
    disk.set(Mood::Held);
    commit_three(&context, 10);
    let clone = context.clone();
    drop(context);
    assert_eq!(clone.stats().unwrap().in_flight, 3, "a clone keeps it open");
    thread::scope(|scope| {
        let dropping = scope.spawn(|| drop(clone));
        disk.wait_until_held();
        disk.set(Mood::Good);
        dropping.join().unwrap();
    });
    assert_eq!(get_restored(dir.path(), region), 12);
}

#[test]
fn hooks_behind_a_commit_run_in_order_while_the_program_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, _) = start(dir.path());
    let told: Arc<Mutex<Vec<u64>>> = Arc::default();
    let note = {
        let told = Arc::clone(&told);
        let here = thread::current().id();
        move |context: &Context, epoch| {
            assert_ne!(thread::current().id(), here);
            assert_eq!(context.durable().unwrap(), Some(epoch));
            assert_eq!(context.commit().unwrap_err().errno(), libc::EDEADLK);
            assert_eq!(context.wait(0, None).unwrap_err().errno(), libc::EDEADLK);
            // While the queue is full and somebody waits for room in it.
            context.allocate(1000, 16).unwrap();
            told.lock().unwrap().push(epoch);
            0
        }
    };
    context.hook(When::AfterCommit, Arc::new(note)).unwrap();
    disk.set(Mood::Held);
    for _ in 0..IN_FLIGHT_MAX {
        context.commit().unwrap();
    }
    thread::scope(|scope| {
        let waiting = scope.spawn(|| context.commit().unwrap());
        while context.stats().unwrap().queue_waits == 0 {
            thread::yield_now();
        }
        disk.set(Mood::Good);
        waiting.join().unwrap();
    });
    let all = IN_FLIGHT_MAX as u64 + 1;
    context.wait(all, None).unwrap();
    assert_eq!(*told.lock().unwrap(), (1..=all).collect::<Vec<_>>());
}

#[test]
fn a_hook_that_panics_in_the_background_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (context, region) = start(dir.path());
    let hook = |_: &Context, epoch| match epoch {
        1 => panic!("this text in the output of the test is expected"),
        _ => 0,
    };
    context.hook(When::AfterCommit, Arc::new(hook)).unwrap();
    for value in 1..=2 {
        put(region, 0, value);
        context.commit().unwrap();
        context.wait(value, None).unwrap();
    }
    context.close().unwrap();
    assert_eq!(get_restored(dir.path(), region), 2);
}

#[test]
fn a_context_that_a_hook_kept_does_not_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let (context, _) = start(dir.path());
    let kept: Arc<Mutex<Option<Context>>> = Arc::default();
    let keep = {
        let kept = Arc::clone(&kept);
        move |context: &Context, _| {
            *kept.lock().unwrap() = Some(context.clone());
            0
        }
    };
    context.hook(When::AfterCommit, Arc::new(keep)).unwrap();
    context.commit().unwrap();
    context.close().unwrap();
    let kept = kept.lock().unwrap().take().unwrap();
    for refused in [kept.commit(), kept.commit_sync()] {
        let error = refused.unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{error}");
    }
    drop(kept);
    assert_eq!(open(dir.path()).restored_epoch(), Some(1));
}

#[test]
fn a_synchronous_commit_follows_what_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    disk.set(Mood::Held);
    for value in 1..=3 {
        put(region, value as usize * 4096, value);
        context.commit().unwrap();
    }
    put(region, 4 * 4096, 4);
    let report = thread::scope(|scope| {
        let waiting = scope.spawn(|| context.commit_sync().unwrap());
        disk.wait_until_held();
        disk.set(Mood::Good);
        waiting.join().unwrap()
    });
    assert_eq!((report.epoch, report.durable), (4, true));
    assert_eq!(report.pages, 1, "what was on its way is not saved again");
    assert!(report.stored_bytes > 0);
    context.close().unwrap();
    let chain = Chain::open(dir.path()).unwrap();
    let parents: Vec<_> = chain.commits().map(|commit| commit.parent).collect();
    assert_eq!(parents, [None, Some(1), Some(2), Some(3)]);

    let context = Context::open(options(dir.path()).saving(Saving::Synchronous)).unwrap();
    put(region, 0, 5);
    assert!(context.commit().unwrap().durable);
    assert_eq!(context.saving(), Saving::Synchronous);
    drop(context);
    assert_eq!(get_restored(dir.path(), region), 5);
}

/// Commits while something is missing that the background needs.
fn commit_without(missing: Call, errno: i32) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let (context, region) = start(dir.path());
    if missing != Call::Thread {
        disk.set(Mood::Held);
        for value in 1..=2 {
            put(region, value as usize * 4096, value);
            context.commit().unwrap();
        }
        disk.wait_until_held();
        disk.set(Mood::Good);
    }
    put(region, 3 * 4096, 3);
    {
        let _failing = fake::fail(missing, errno);
        for _ in 0..2 {
            assert!(context.commit().unwrap().durable);
        }
    }
    assert_eq!(context.stats().unwrap().fallbacks, 2);
    put(region, 4 * 4096, 4);
    assert!(!context.commit().unwrap().durable, "it is there again");
    context.close().unwrap();
    let _context = open(dir.path());
    let first = if missing == Call::Thread { 0 } else { 1 };
    let values = [1, 3, 4].map(|page| get(region, page * 4096));
    assert_eq!(values, [first, 3, 4]);
}

#[test]
fn without_a_snapshot_a_commit_is_synchronous() {
    commit_without(Call::Snapshot, libc::ENOMEM);
}

#[test]
fn without_a_thread_a_commit_is_synchronous() {
    commit_without(Call::Thread, libc::EAGAIN);
}
