// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts over the comparing tracker: the same claims hold for any.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::libc;

use super::*;
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
        .tracker(Choice::Compare)
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
    let failed = with(verdict, || context.commit());
    assert_eq!(failed.unwrap_err().errno(), errno);
    assert_eq!(context.epoch().unwrap(), Some(1));
    put(region, 8192, 3);
    let report = context.commit().unwrap();
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

/// A reproducible sequence of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// A block that the test believes in: address, length, and the byte it is filled with.
type Block = (NonNull<u8>, usize, u8);

fn fill_block(&(at, len, byte): &Block) {
    // SAFETY: The block has `len` bytes.
    unsafe { at.write_bytes(byte, len) }
}

fn check_block(&(at, len, byte): &Block) {
    // SAFETY: The block has `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    assert!(
        bytes.iter().all(|&b| b == byte),
        "block at {at:p} of {len} bytes was overwritten"
    );
}

fn churn(context: &Context, blocks: &mut Vec<Block>, rng: &mut Rng, operations: u32) {
    for _ in 0..operations {
        let size = match rng.below(20) {
            0 => 1 + rng.below(200_000) as usize,
            _ => 1 + rng.below(300) as usize,
        };
        let byte = rng.below(256) as u8;
        let any = rng.below(blocks.len().max(1) as u64) as usize;
        match rng.below(5) {
            0 | 1 => {
                let align = 1 << rng.below(9);
                let at = context.allocate(size, align).unwrap();
                assert_eq!(at.as_ptr() as usize % align.max(16), 0);
                blocks.push((at, size, byte));
                fill_block(blocks.last().unwrap());
            }
            2 if !blocks.is_empty() => {
                let block = blocks.swap_remove(any);
                check_block(&block);
                context.free(block.0).unwrap();
            }
            3 if !blocks.is_empty() => {
                let (at, len, old) = blocks[any];
                let moved = context.reallocate(at, size).unwrap();
                check_block(&(moved, len.min(size), old));
                blocks[any] = (moved, size, byte);
                fill_block(&blocks[any]);
            }
            _ if !blocks.is_empty() => check_block(&blocks[any]),
            _ => {}
        }
    }
}

fn check_all(blocks: &[Block]) {
    blocks.iter().for_each(check_block);
    let mut places: Vec<(usize, usize)> = blocks
        .iter()
        .map(|(at, len, _)| (at.as_ptr() as usize, *len))
        .collect();
    places.sort_unstable();
    let apart = places
        .windows(2)
        .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
    assert!(apart, "blocks overlap");
}

#[test]
fn the_heap_goes_on_over_restores_without_overlaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(7);
    let mut blocks = Vec::new();
    let context = open(dir.path());
    churn(&context, &mut blocks, &mut rng, 20_000);
    check_all(&blocks);
    context.commit().unwrap();
    let saved = blocks.clone();
    churn(&context, &mut blocks, &mut rng, 5_000);
    drop(context);

    blocks = saved;
    for _ in 0..3 {
        let context = open(dir.path());
        check_all(&blocks);
        churn(&context, &mut blocks, &mut rng, 20_000);
        check_all(&blocks);
        context.commit().unwrap();
    }
    let context = open(dir.path());
    for (at, ..) in blocks {
        context.free(at).unwrap();
    }
    let len = context.region_len("heap").unwrap();
    let all = context
        .allocate(len.unwrap() as usize * 9 / 10, 16)
        .unwrap();
    context.free(all).unwrap();
    assert_eq!(
        context.region_len("heap").unwrap(),
        len,
        "freed memory was not joined"
    );
}

#[test]
fn what_the_heap_did_not_give_cannot_be_freed_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let block = context.allocate(100, 16).unwrap();
    let refused = |at: NonNull<u8>| context.free(at).unwrap_err().errno();
    let mut local = [0u8; 64];
    assert_eq!(refused(NonNull::from(&mut local).cast()), libc::EINVAL);
    // SAFETY: Only the addresses are used.
    let (inside, odd) = unsafe { (block.add(16), block.add(1)) };
    assert_eq!(refused(inside), libc::EINVAL);
    assert_eq!(refused(odd), libc::EINVAL);
    context.free(block).unwrap();
    assert_eq!(refused(block), libc::EINVAL);
}

#[test]
fn a_heap_that_is_used_up_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let context = Context::open(options(dir.path()).arena_bytes(16 << 20)).unwrap();
    let mut blocks = Vec::new();
    let error = loop {
        match context.allocate(100_000, 16) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), libc::ENOMEM);
    assert!(
        blocks.len() > 70,
        "half of the arena is the heap's, {} blocks",
        blocks.len()
    );
    assert!(context.allocate(usize::MAX - 8, 16).is_err());
    context.free(blocks.pop().unwrap()).unwrap();
    context.allocate(100_000, 16).unwrap();
    context.commit().unwrap();
}

#[test]
fn threads_may_allocate_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let all = Mutex::new(Vec::new());
    // Blocks are addresses in memory that all threads share.
    struct Sent(Vec<Block>);
    // SAFETY: As above.
    unsafe impl Send for Sent {}
    thread::scope(|scope| {
        for seed in 0..4 {
            let (context, all) = (&context, &all);
            scope.spawn(move || {
                let mut blocks = Vec::new();
                churn(context, &mut blocks, &mut Rng(seed), 5_000);
                all.lock().unwrap().push(Sent(blocks));
            });
        }
    });
    let all: Vec<Block> = all
        .into_inner()
        .unwrap()
        .into_iter()
        .flat_map(|sent| sent.0)
        .collect();
    check_all(&all);
}
