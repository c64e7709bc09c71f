// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs whose chains are compacted while they run.

use std::time::Instant;

use super::*;
use crate::saving::Compacting;
use crate::sys::file::fake::share;

const REGION: usize = 64 * 4096;
/// Every commit takes about 8 KiB, the newest epoch about 64 KiB.
const SEGMENT: u64 = 100_000;

fn tended(dir: &Path, compacting: Compacting) -> Context {
    let mut options = options(dir).compacting(compacting);
    options.segment_bytes = Some(SEGMENT);
    options.compression = Some(crate::store::Compression::None);
    Context::open(options).expect("a context")
}

/// Changes a page in each commit.
fn commit_often(context: &Context, numbers: std::ops::Range<u64>) {
    let region = context.region(&spec("numbers", REGION as u64, 0)).unwrap();
    for number in numbers {
        put(region, number as usize * 4096 % REGION, number);
        context.commit_sync().unwrap();
    }
}

fn epochs(dir: &Path) -> Vec<u64> {
    let chain = Chain::open(dir).unwrap();
    assert_eq!(chain.damage(), []);
    chain.commits().map(|commit| commit.epoch).collect()
}

#[test]
fn a_chain_stays_small_and_restores_what_it_had_last() {
    let dir = tempfile::tempdir().unwrap();
    let context = tended(dir.path(), Compacting::Beyond(2));
    let begun = Instant::now();
    let (mut last, mut largest) = (0, 0);
    // As long as it takes until the thread has had its turns.
    while epochs(dir.path()).len() as u64 > last / 2 || last < 400 {
        assert!(begun.elapsed().as_secs() < 60, "nothing is compacted");
        commit_often(&context, last..last + 40);
        last += 40;
        largest = largest.max(Chain::open(dir.path()).unwrap().bytes());
    }
    context.close().unwrap();
    let kept = epochs(dir.path());
    assert!(kept.len() as u64 > Compacting::KEEPS, "{kept:?}");
    assert_eq!(kept.last(), Some(&last));
    assert!(largest < last * 8192, "{largest} bytes");
    let chain = Chain::open(dir.path()).unwrap();
    assert_eq!(chain.verify(|_, _| {}).unwrap().damage, []);
    drop(chain);

    // What is written from now on is appended to what is there now.
    let context = tended(dir.path(), Compacting::Beyond(2));
    let region = context.region(&spec("numbers", REGION as u64, 0)).unwrap();
    for number in last - 64..last {
        assert_eq!(get(region, number as usize * 4096 % REGION), number);
    }
    commit_often(&context, last..last + 100);
    context.close().unwrap();
    let context = tended(dir.path(), Compacting::Never);
    let region = context.region(&spec("numbers", REGION as u64, 0)).unwrap();
    assert_eq!(get(region, (last + 99) as usize * 4096 % REGION), last + 99);
}

#[test]
fn a_program_that_wants_its_history_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let context = tended(dir.path(), Compacting::Never);
    commit_often(&context, 0..100);
    context.close().unwrap();
    assert_eq!(epochs(dir.path()), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_chain_that_is_worth_its_size_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let context = tended(dir.path(), Compacting::Beyond(1000));
    commit_often(&context, 0..100);
    context.close().unwrap();
    assert_eq!(epochs(dir.path()).len(), 100);
}

#[test]
fn a_chain_of_less_than_a_segment_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    commit_often(&context, 0..20);
    // What a rollback says needs a segment that announces it.
    context.rollback(3).unwrap();
    commit_often(&context, 20..40);
    assert_eq!(Chain::open(dir.path()).unwrap().segments(), 2);
    context.close().unwrap();
    assert_eq!(epochs(dir.path()).len(), 41);
}

#[test]
fn commits_go_on_when_the_chain_cannot_be_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Arc::new(AtomicU64::new(0));
    let sharing = {
        let refused = Arc::clone(&refused);
        share(move |call| match call {
            FileCall::Write(path, ..) if path.to_string_lossy().contains("base-") => {
                refused.fetch_add(1, Ordering::Relaxed);
                Verdict::Fail(libc::ENOSPC)
            }
            _ => Verdict::Go,
        })
    };
    let context = tended(dir.path(), Compacting::Beyond(2));
    let mut last = 0;
    while refused.load(Ordering::Relaxed) < 2 {
        commit_often(&context, last..last + 50);
        last += 50;
    }
    context.close().unwrap();
    drop(sharing);
    assert_eq!(epochs(dir.path()).len() as u64, last);
    let context = tended(dir.path(), Compacting::Never);
    let region = context.region(&spec("numbers", REGION as u64, 0)).unwrap();
    assert_eq!(get(region, (last as usize - 1) * 4096 % REGION), last - 1);
}
