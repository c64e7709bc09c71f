// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going back in place.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::outputs::Outputs;
use crate::outputs::Released;
use crate::store;
use crate::store::Keep;
use crate::store::Kind;
use crate::store::compact;
use crate::store::tests::every_call::every_call;
use crate::store::tests::memory_dir;

const PAGE: usize = 4096;

#[test]
fn an_undo_brings_back_what_was_changed_and_touches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 100 * 4096, 0)).unwrap();
    (0..100).for_each(|page| put(region, page * PAGE, page as u64 + 1));
    context.commit().unwrap();
    context.commit().unwrap();
    put(region, 5 * PAGE, 500);
    put(region, 70 * PAGE + 8, 7);
    let generation = context.generation();
    let report = context.rollback(0).unwrap();
    assert_eq!((report.to, report.pages), (2, 2));
    assert_eq!(report.epoch, context.epoch().unwrap().unwrap());
    assert_eq!(context.durable().unwrap(), Some(report.epoch));
    assert_ne!(context.generation(), generation);
    assert_eq!((get(region, 5 * PAGE), get(region, 70 * PAGE + 8)), (6, 0));
    let chain = Chain::open(dir.path()).unwrap();
    let noted = chain.find(report.epoch).unwrap();
    assert_eq!((noted.kind, noted.parent), (Kind::Rollback, Some(2)));
    assert_eq!(noted.generation, context.generation());
}

#[test]
fn a_rollback_over_the_growth_of_regions_and_heap_takes_that_back() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 64 * 4096)).unwrap();
    let block = context.allocate(100, 16).unwrap();
    put(block, 0, 77);
    context.set_root(Some(block)).unwrap();
    let first = context.commit().unwrap().epoch;

    context.grow_region("r", 50 * 4096).unwrap();
    put(region, 49 * PAGE, 1);
    let later = context.region(&spec("later", 4096, 0)).unwrap();
    put(later, 0, 2);
    context.free(block).unwrap();
    let big = context.allocate(8 << 20, 16).unwrap();
    (0..8 << 20).step_by(PAGE).for_each(|at| put(big, at, 3));
    context.set_root(Some(big)).unwrap();
    context.commit().unwrap();
    put(region, 0, 4);

    context.rollback(first).unwrap();
    assert_eq!(context.root().unwrap(), Some(block));
    assert_eq!(get(block, 0), 77);
    assert_eq!(context.region_len("r").unwrap(), Some(4096));
    assert_eq!(context.region_len("later").unwrap(), None);
    context.grow_region("r", 50 * 4096).unwrap();
    assert_eq!((get(region, 0), get(region, 49 * PAGE)), (0, 0));
    let again = context.region(&spec("again", 4096, 0)).unwrap();
    assert_eq!(
        (again, get(again, 0)),
        (later, 0),
        "the place is free, and zero"
    );
    context.free(block).unwrap();
    context.allocate(8 << 20, 16).unwrap();
    context.commit().unwrap();
    drop(context);
    let context = open(dir.path());
    assert_eq!(context.region_len("later").unwrap(), None);
    assert_eq!(get(region, 49 * PAGE), 0);
}

#[test]
fn epochs_of_an_abandoned_branch_can_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 3 * 4096, 0)).unwrap();
    for value in 1..=4 {
        put(region, (value as usize % 3) * PAGE, value);
        assert_eq!(context.commit().unwrap().epoch, value);
    }
    let image = || [0, 1, 2].map(|page| get(region, page * PAGE));
    assert_eq!(context.rollback(2).map(|it| it.to).unwrap(), 2);
    assert_eq!(image(), [0, 1, 2]);
    put(region, 0, 30);
    let other = context.commit().unwrap().epoch;
    context.rollback(4).unwrap();
    assert_eq!(image(), [3, 4, 2]);
    context.rollback(other).unwrap();
    assert_eq!(image(), [30, 1, 2]);
    context.rollback(1).unwrap();
    assert_eq!(image(), [0, 1, 0]);
}

#[test]
fn an_epoch_from_before_this_start_can_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 40 * 4096, 0)).unwrap();
    (0..20).for_each(|page| put(region, page * PAGE, 1));
    context.commit().unwrap();
    (10..40).for_each(|page| put(region, page * PAGE, 2));
    context.commit().unwrap();
    drop(context);
    let context = open(dir.path());
    put(region, 39 * PAGE, 3);
    put(region, 0, 3);
    let report = context.rollback(2).unwrap();
    assert_eq!(
        report.pages, 2,
        "what was restored from it is known to be right"
    );
    assert_eq!((get(region, 0), get(region, 39 * PAGE)), (1, 2));
    put(region, 5 * PAGE, 3);
    let report = context.rollback(1).unwrap();
    assert!((31..40).contains(&report.pages), "{report:?}");
    let values: Vec<u64> = (0..40).map(|page| get(region, page * PAGE)).collect();
    assert_eq!(values, [[1; 20], [0; 20]].concat());
    drop(context);
    let _context = Context::open(options(dir.path())).unwrap();
    assert_eq!((get(region, 19 * PAGE), get(region, 20 * PAGE)), (1, 0));
}

#[test]
fn an_epoch_that_is_not_there_is_refused_and_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let nothing = context.rollback(0).unwrap_err();
    assert_eq!(nothing.errno(), libc::EINVAL);
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    context.commit().unwrap();
    put(region, 0, 5);
    assert_eq!(context.rollback(9).unwrap_err().errno(), libc::ENOENT);
    assert_eq!(get(region, 0), 5);
    context.commit_sync().unwrap();
    drop(context);
    drop(open(dir.path()));
    assert_eq!(Chain::open(dir.path()).unwrap().commits().count(), 3);
}

#[test]
fn a_hook_cannot_roll_back_and_is_told_of_a_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let seen: Arc<Mutex<Vec<(u64, i32)>>> = Arc::default();
    let hook = {
        let seen = seen.clone();
        Arc::new(move |context: &Context, epoch| {
            let refused = context.rollback(epoch).unwrap_err().errno();
            seen.lock().unwrap().push((epoch, refused));
            seen.lock().unwrap().len() as i32 - 1
        })
    };
    context.hook(When::AfterRestore, hook).unwrap();
    context.commit().unwrap();
    context.rollback(1).unwrap();
    let refused = context.rollback(1).unwrap_err();
    assert!(
        matches!(refused, Error::Refused { code: 1, epoch: 1 }),
        "{refused}"
    );
    assert_eq!(
        *seen.lock().unwrap(),
        [(1, libc::EDEADLK), (1, libc::EDEADLK)]
    );
    context.commit().unwrap();
}

#[test]
fn a_damaged_chain_leaves_the_state_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    (0..512).for_each(|word| put(region, word * 8, 0x9e37_79b9 * word as u64));
    context.commit_sync().unwrap();
    let chain = Chain::open(dir.path()).unwrap();
    let commit = chain.find(1).unwrap();
    let file = chain.file_of(commit).to_owned();
    let mut bytes = std::fs::read(&file).unwrap();
    // Somewhere in the data: behind header and regions, before index and footer.
    let at = commit.offset as usize + (commit.stored_bytes / 2) as usize;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    put(region, 0, 123);
    let error = context.rollback(1).unwrap_err();
    assert_eq!(error.errno(), libc::EBADMSG, "{error}");
    assert_eq!(get(region, 0), 123);
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    context.rollback(1).unwrap();
    assert_eq!(get(region, 0), 0);
}

#[test]
fn a_rollback_that_breaks_off_leaves_only_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 200 * 4096, 0)).unwrap();
    (0..200).for_each(|page| put(region, page * PAGE, page as u64 * 0x9e37_79b9 + 1));
    context.commit_sync().unwrap();
    (0..200).for_each(|page| put(region, page * PAGE, 5));
    let mut reads = 0;
    let count = Arc::new(AtomicU64::new(0));
    let counting = count.clone();
    let is_read = |call: &FileCall<'_>| matches!(call, FileCall::Read(..));
    let verdict = move |call: &FileCall<'_>| {
        if is_read(call) {
            counting.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Go
    };
    with(verdict, || context.rollback(1)).unwrap();
    (0..200).for_each(|page| put(region, page * PAGE, 6));
    let all = count.load(Ordering::Relaxed);
    assert!(all > 4, "{all} reads");
    // The last read is in the second pass.
    let verdict = move |call: &FileCall<'_>| {
        reads += u64::from(is_read(call));
        match reads == all {
            true => Verdict::Fail(libc::EIO),
            false => Verdict::Go,
        }
    };
    let error = with(verdict, || context.rollback(1)).unwrap_err();
    assert!(
        matches!(error, Error::Undefined { epoch: 1, .. }),
        "{error}"
    );
    for refused in [
        context.commit().err(),
        context.allocate(1, 1).err(),
        context.root().err(),
    ] {
        assert_eq!(refused.unwrap().errno(), libc::ENOTRECOVERABLE);
    }
    context.rollback(1).unwrap();
    assert_eq!(get(region, 199 * PAGE), 199 * 0x9e37_79b9 + 1);
    context.commit().unwrap();
}

#[test]
fn a_rollback_that_cannot_be_written_down_is_made_up_for_by_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 3 * 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit_sync().unwrap();
    put(region, 0, 2);
    put(region, PAGE, 2);
    context.commit_sync().unwrap();
    let full = |call: &FileCall<'_>| match call {
        FileCall::Write(..) => Verdict::Fail(libc::ENOSPC),
        _ => Verdict::Go,
    };
    let error = with(full, || context.rollback(1)).unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC, "{error}");
    assert_eq!((get(region, 0), get(region, PAGE)), (1, 0), "it went back");
    assert_eq!(context.durable().unwrap(), Some(2));
    put(region, 2 * PAGE, 3);
    let report = context.commit().unwrap();
    assert!(report.durable);
    drop(context);
    let _context = open(dir.path());
    let image = [0, 1, 2].map(|page| get(region, page * PAGE));
    assert_eq!(image, [1, 0, 3]);
}

#[test]
fn every_call_of_a_rollback_can_fail_and_the_state_is_one_of_the_two_or_refused() {
    let make = || {
        let dir = memory_dir();
        let context = open(dir.path());
        let region = context.region(&spec("r", 3 * 4096, 0)).unwrap();
        put(region, 0, 1);
        context.commit_sync().unwrap();
        put(region, 0, 2);
        put(region, PAGE, 2);
        context.commit_sync().unwrap();
        (dir, context, region)
    };
    let (mut undefined, mut not_durable) = (0, 0);
    let tried = every_call(
        make,
        |(_, context, _)| context.rollback(1),
        |(dir, context, region), done, trouble| {
            let mut right = [1, 0];
            match done {
                Ok(report) => assert_eq!(context.durable().unwrap(), Some(report.epoch)),
                Err(Error::Undefined { .. }) => {
                    context.commit().unwrap_err();
                    context.rollback(1).unwrap();
                    undefined += 1;
                }
                Err(Error::NotDurable { .. }) => {
                    assert_eq!(context.durable().unwrap(), Some(2));
                    not_durable += 1;
                }
                Err(error) => {
                    assert!(trouble.is_some(), "{error}");
                    right = [2, 2];
                }
            }
            assert_eq!([get(region, 0), get(region, PAGE)], right);
            put(region, 2 * PAGE, 3);
            assert!(context.commit_sync().unwrap().durable);
            context.close().unwrap();
            let chain = Chain::open(dir.path()).unwrap();
            assert_eq!(chain.verify(|_, _| {}).unwrap().damage, []);
            drop(chain);
            let context = open(dir.path());
            let region = context.region(&spec("r", 3 * 4096, 0)).unwrap();
            let image = [0, 1, 2].map(|page| get(region, page * PAGE));
            assert_eq!(image, [right[0], right[1], 3]);
        },
    );
    assert!(
        tried > 50 && undefined > 0 && not_durable > 10,
        "{tried}, {undefined}, {not_durable}"
    );
}

#[test]
fn what_was_not_durable_is_lost_for_those_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit_sync().unwrap();
    let outputs = Outputs::new(&context, 9).unwrap();
    put(region, 0, 2);
    outputs.hold(0, "lost").unwrap();
    let full = |call: &FileCall<'_>| match call {
        FileCall::Write(..) => Verdict::Fail(libc::ENOSPC),
        _ => Verdict::Go,
    };
    with(full, || context.commit_sync()).unwrap_err();
    context.rollback(0).unwrap();
    let lost = context.wait(2, None).unwrap_err();
    assert!(lost.to_string().contains("went back to epoch 1"), "{lost}");
    let next = outputs.released(Some(Duration::ZERO)).unwrap();
    assert!(matches!(next, Some(Released::Lost("lost"))));
    outputs.hold(0, "kept").unwrap();
    context.commit_sync().unwrap();
    let next = outputs.released(Some(Duration::ZERO)).unwrap();
    assert!(matches!(next, Some(Released::Safe("kept"))));
    assert!(context.wait(2, None).is_err(), "it stays lost");
}

#[test]
fn what_is_on_its_way_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    for value in 1..=20 {
        put(region, 0, value);
        context.commit().unwrap();
        put(region, 0, 99);
        assert_eq!(context.rollback(0).unwrap().to, 2 + 3 * (value - 1) - 1);
        assert_eq!(get(region, 0), value);
    }
}

#[test]
fn a_damaged_head_does_not_keep_a_state_from_coming_back() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 8 * 4096)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    context.grow_region("r", 8 * 4096).unwrap();
    put(region, 7 * PAGE, 2);
    // SAFETY: The head is in front of the first region.
    let head = unsafe { region.sub(16 * PAGE) };
    (0..16 * PAGE)
        .step_by(8)
        .for_each(|at| put(head, at, u64::MAX));
    context.rollback(1).unwrap();
    assert_eq!(context.region_len("r").unwrap(), Some(4096));
    context.grow_region("r", 8 * 4096).unwrap();
    assert_eq!((get(region, 0), get(region, 7 * PAGE)), (1, 0));
}

#[test]
fn what_somebody_else_has_compacted_meanwhile_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    for value in 1..=6 {
        put(region, 0, value);
        context.commit_sync().unwrap();
    }
    let keep = Keep {
        last: 2,
        ..Keep::default()
    };
    // The last segment must be a closed one: a rollback begins the next.
    context.rollback(6).unwrap();
    compact(dir.path(), &keep, &store::Options::default(), |_| true).unwrap();
    assert_eq!(context.rollback(2).unwrap_err().errno(), libc::ENOENT);
    put(region, 0, 9);
    context.rollback(6).unwrap();
    assert_eq!(get(region, 0), 6);
    context.commit_sync().unwrap();
    drop(context);
    let _context = open(dir.path());
    assert_eq!(get(region, 0), 6);
}

/// What a program does.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64),
    Grow(usize),
    Commit,
    Rollback(prop::sample::Index),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..24usize, 1..9u64).prop_map(|(page, value)| Step::Write(page, value)),
        1 => (1..24usize).prop_map(Step::Grow),
        3 => Just(Step::Commit),
        2 => any::<prop::sample::Index>().prop_map(Step::Rollback),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_epoch_can_be_gone_back_to_at_any_time_and_the_chain_agrees(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut context = open(dir.path());
        let region = context.region(&spec("r", 4096, 24 * 4096)).unwrap();
        let mut now: Vec<u64> = vec![0];
        let mut images: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        images.insert(context.commit().unwrap().epoch, now.clone());
        for step in steps {
            match step {
                Step::Write(page, value) => {
                    let page = page % now.len();
                    put(region, page * PAGE, value);
                    now[page] = value;
                }
                Step::Grow(pages) => {
                    context.grow_region("r", pages as u64 * 4096).unwrap();
                    now.resize(now.len().max(pages), 0);
                }
                Step::Commit => {
                    images.insert(context.commit().unwrap().epoch, now.clone());
                }
                Step::Rollback(which) => {
                    let epochs: Vec<u64> = images.keys().copied().collect();
                    let epoch = *which.get(&epochs);
                    now = images[&epoch].clone();
                    let report = context.rollback(epoch).unwrap();
                    images.insert(report.epoch, now.clone());
                }
                Step::Reopen => {
                    drop(context);
                    context = open(dir.path());
                    now = images.values().next_back().unwrap().clone();
                    let epoch = context.epoch().unwrap().unwrap();
                    images.insert(epoch, now.clone());
                }
            }
            prop_assert_eq!(context.region_len("r").unwrap(), Some(now.len() as u64 * 4096));
            let image: Vec<u64> = (0..now.len()).map(|page| get(region, page * PAGE)).collect();
            prop_assert_eq!(&image, &now);
        }
    }
}
