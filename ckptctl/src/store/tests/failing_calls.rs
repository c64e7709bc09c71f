// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each system call of an append and of an opening fails once, in each way.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use nix::libc::EIO;
use nix::libc::ENOSPC;

use super::*;
use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Verdict;

/// A way to fail.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The call fails and does nothing.
    Fail(i32),
    /// A write ends in the sector that holds its byte of this number, which is not
    /// written; other calls fail and do nothing. No file system cuts sectors.
    Cut(u64, i32),
}

const WAYS: [Way; 5] = [
    Way::Fail(ENOSPC),
    Way::Fail(EIO),
    Way::Cut(1, ENOSPC),
    Way::Cut(100, EIO),
    Way::Cut(5000, ENOSPC),
];

/// How long it stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spell {
    /// One call fails.
    Once,
    /// All calls from there on fail.
    ForGood,
}

/// Runs `body` while its `nth` call fails; `None` when it makes no `nth` call.
fn with_failure<R>(nth: usize, way: Way, spell: Spell, body: impl FnOnce() -> R) -> Option<R> {
    let calls = Rc::new(Cell::new(0));
    let seen = Rc::clone(&calls);
    let hook = move |call: &FileCall<'_>| {
        let at = seen.replace(seen.get() + 1);
        if at < nth || spell == Spell::Once && at > nth {
            return Verdict::Go;
        }
        match way {
            Way::Fail(errno) => Verdict::Fail(errno),
            Way::Cut(len, errno) => match call {
                FileCall::Write(_, at, _) => {
                    let end = (at + len) / 512 * 512;
                    Verdict::CutWrite(end.saturating_sub(*at) as usize, errno)
                }
                _ => Verdict::Fail(errno),
            },
        }
    };
    let result = fake::with(hook, body);
    (calls.get() > nth).then_some(result)
}

/// Does something for every call that fails in every way, until there is none left.
fn for_every_failure(mut attempt: impl FnMut(usize, Way) -> bool) {
    for way in WAYS {
        let failed = (0..).take_while(|&nth| attempt(nth, way)).count();
        assert!(failed > 3, "{failed} calls are too few to be all");
    }
}

/// With a limit of one block, each append but the first begins a segment.
const SEGMENT_LIMITS: [u64; 2] = [4096, 1 << 20];

#[test]
fn a_failed_append_leaves_the_chain_as_it_was_and_the_next_one_works() {
    for limit in SEGMENT_LIMITS {
        for_every_failure(|nth, way| {
            let temp = memory_dir();
            let mut writer = open(temp.path(), limit).unwrap();
            append(&mut writer, 1).unwrap();
            append(&mut writer, 2).unwrap();
            let failed = with_failure(nth, way, Spell::Once, || append(&mut writer, 3));
            let Some(failed) = failed else { return false };
            let error = failed.expect_err("a call failed");
            match way {
                Way::Fail(ENOSPC) | Way::Cut(_, ENOSPC) => {
                    assert!(
                        matches!(error, StoreError::NoSpace { epoch: 3, .. }),
                        "{error}"
                    );
                }
                _ => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
            }
            assert_holds(writer.chain(), 2);
            let reader = Chain::open(temp.path()).unwrap();
            assert_eq!(reader.torn(), None);
            assert_holds(&reader, 2);
            append(&mut writer, 3).unwrap();
            append(&mut writer, 4).unwrap();
            assert_holds(writer.chain(), 4);
            drop(writer);
            assert_holds(open(temp.path(), limit).unwrap().chain(), 4);
            true
        });
    }
}

#[test]
fn a_writer_that_cannot_take_back_says_so_until_it_is_opened_again() {
    for limit in SEGMENT_LIMITS {
        for_every_failure(|nth, way| {
            let temp = memory_dir();
            let mut writer = open(temp.path(), limit).unwrap();
            append(&mut writer, 1).unwrap();
            let failed = with_failure(nth, way, Spell::ForGood, || append(&mut writer, 2));
            let Some(failed) = failed else { return false };
            // The disk works again, but what is on it is not known.
            match failed.expect_err("a call failed") {
                StoreError::Poisoned { .. } => {
                    let refused = append(&mut writer, 2).unwrap_err();
                    assert!(matches!(refused, StoreError::Poisoned { .. }), "{refused}");
                }
                _ => append(&mut writer, 2).unwrap(),
            }
            drop(writer);
            let mut writer = open(temp.path(), limit).unwrap();
            // A commit that failed when all of it was written may be there.
            let newest = writer.chain().newest().unwrap().unwrap().epoch;
            assert!((1..=2).contains(&newest));
            assert_holds(writer.chain(), newest);
            append(&mut writer, newest + 1).unwrap();
            assert_holds(writer.chain(), newest + 1);
            true
        });
    }
}

/// A directory with what a crash can leave: a torn tail and an unfinished segment.
fn after_a_crash(dir: &Path) {
    let mut writer = open(dir, 1 << 20).unwrap();
    append(&mut writer, 1).unwrap();
    append(&mut writer, 2).unwrap();
    drop(writer);
    let segment = dir.join("segment-0000000001.ckpt");
    let content = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &content[..content.len() - 300]).unwrap();
    std::fs::write(dir.join("segment-0000000002.ckpt.tmp"), "x").unwrap();
}

#[test]
fn opening_can_fail_anywhere_and_be_tried_again() {
    for crashed in [false, true] {
        for_every_failure(|nth, way| {
            let temp = memory_dir();
            let dir = temp.path().join("chain");
            if crashed {
                after_a_crash(&dir);
            }
            let failed = with_failure(nth, way, Spell::Once, || open(&dir, 1 << 20));
            let Some(failed) = failed else { return false };
            assert!(failed.is_err(), "call {nth} failed");
            let mut writer = open(&dir, 1 << 20).unwrap();
            let newest = u64::from(crashed);
            assert_holds(writer.chain(), newest);
            append(&mut writer, newest + 1).unwrap();
            assert_holds(writer.chain(), newest + 1);
            true
        });
    }
}

#[test]
fn a_caller_that_fails_or_panics_midway_leaves_no_trace() {
    let temp = memory_dir();
    let mut writer = open(temp.path(), 1 << 20).unwrap();
    append(&mut writer, 1).unwrap();
    // Enough noise to have been written in part.
    let noise: Vec<u8> = (0..40).flat_map(noise).collect();
    let mut large = meta(2);
    large.arena_len_pages = 4000;

    let failed: Result<_, StoreError> = writer.append_with(&large, |sink| {
        for at in (0..2000).step_by(40) {
            sink.push(at, &noise)?;
        }
        sink.push(0, &noise)
    });
    assert!(
        matches!(failed, Err(StoreError::Invalid { .. })),
        "{failed:?}"
    );
    assert_holds(&Chain::open(temp.path()).unwrap(), 1);

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<_, StoreError> = writer.append_with(&large, |sink| {
            for at in (0..2000).step_by(40) {
                sink.push(at, &noise)?;
            }
            panic!("the caller's own mistake")
        });
    }));
    assert!(panicked.is_err());
    append(&mut writer, 2).unwrap();
    assert_holds(writer.chain(), 2);
    assert_holds(&Chain::open(temp.path()).unwrap(), 2);
}

#[test]
fn page_data_that_cannot_be_read_is_damage_and_the_rest_is_still_checked() {
    let temp = memory_dir();
    let mut writer = open(temp.path(), 1 << 20).unwrap();
    for epoch in 1..=3 {
        append(&mut writer, epoch).unwrap();
    }
    let chain = Chain::open(temp.path()).unwrap();
    let second = chain.find(2).unwrap();
    let bad = second.offset..second.offset + second.stored_bytes;
    // A bad sector under the noise of epoch 2; small reads are not of page data.
    let hook = move |call: &FileCall<'_>| match call {
        FileCall::Read(_, at, PAGE) if bad.contains(at) => Verdict::Fail(EIO),
        _ => Verdict::Go,
    };
    let report = fake::with(hook, || chain.verify(|_, _| {})).unwrap();
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.lost, [2, 3]);
    assert_eq!(report.restorable, [1]);
}
