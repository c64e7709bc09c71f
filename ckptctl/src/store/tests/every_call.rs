// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each system call of something fails, with each error that it can have, alone or with all behind it.
//! A first run, in which none does, says which calls there are.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use nix::libc::EDQUOT;
use nix::libc::EINTR;
use nix::libc::EIO;
use nix::libc::EMFILE;
use nix::libc::ENOLCK;
use nix::libc::ENOSPC;
use nix::libc::EROFS;

use crate::sys::file::FileCall;
use crate::sys::file::fake::Verdict;
use crate::sys::file::fake::share;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// It fails and does nothing.
    Fails(i32),
    /// A write fails in the sector that has its byte of this number, which is not written.
    Cut(u64, i32),
}

/// The ways in which a call can go wrong so that somebody notices.
fn ways(call: &FileCall<'_>) -> Vec<Wrong> {
    let errnos: &[i32] = match call {
        FileCall::Open(_) | FileCall::ListDir(_) => &[EIO, EMFILE],
        FileCall::Len(_) | FileCall::Read(..) | FileCall::StartWriting(..) => &[EIO],
        FileCall::Create(_) => &[EIO, ENOSPC, EDQUOT, EROFS, EMFILE],
        FileCall::SyncDir(_) => &[EIO, ENOSPC, EMFILE],
        FileCall::Lock(_) => &[ENOLCK],
        FileCall::LockDir(_) => &[ENOLCK, EMFILE],
        FileCall::SyncData(_) => &[EIO, ENOSPC, EDQUOT],
        FileCall::Truncate(..) | FileCall::Unlink(_) | FileCall::RemoveDir(_) => &[EIO, EROFS],
        FileCall::MakeDir(_) | FileCall::Rename(..) => &[EIO, ENOSPC, EDQUOT, EROFS],
        FileCall::Write(..) => &[EIO, ENOSPC, EDQUOT, EROFS],
    };
    let fails = errnos.iter().map(|&errno| Wrong::Fails(errno));
    let cuts = match call {
        FileCall::Write(_, _, bytes) if bytes.len() > 512 => {
            vec![Wrong::Cut(1000, EIO), Wrong::Cut(5000, ENOSPC)]
        }
        _ => vec![],
    };
    fails.chain(cuts).collect()
}

impl Wrong {
    fn verdict(self, call: &FileCall<'_>) -> Verdict {
        match (self, call) {
            (Wrong::Fails(errno), _) => Verdict::Fail(errno),
            (Wrong::Cut(len, errno), FileCall::Write(_, at, _)) => {
                let end = (at + len) / 512 * 512;
                Verdict::CutWrite(end.saturating_sub(*at) as usize, errno)
            }
            (Wrong::Cut(_, errno), _) => Verdict::Fail(errno),
        }
    }

    fn errno(self) -> i32 {
        match self {
            Wrong::Fails(errno) | Wrong::Cut(_, errno) => errno,
        }
    }
}

/// A call, and the ways in which it can go wrong.
type Seen = (String, Vec<Wrong>);

/// What went wrong, for whoever looks at what became of it.
pub(crate) struct Trouble {
    pub(crate) errno: i32,
    /// All calls behind it did as well.
    pub(crate) for_good: bool,
    what: String,
}

impl Trouble {
    pub(crate) fn is_full(&self) -> bool {
        [ENOSPC, EDQUOT].contains(&self.errno)
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this went wrong: {}", self.what);
        }
    }
}

/// A call for people: without what was written.
fn name(call: &FileCall<'_>) -> String {
    match call {
        FileCall::Write(path, at, bytes) => format!("Write({path:?}, {at}, {})", bytes.len()),
        call => format!("{call:?}"),
    }
}

/// Runs `act` in a world while a hook, which is told the number of the call, decides about the
/// calls of this thread and of those that it starts.
fn run<W, R>(
    make: &impl Fn() -> W,
    act: &impl Fn(&mut W) -> R,
    hook: impl Fn(usize, &FileCall<'_>) -> Verdict + Send + Sync + 'static,
) -> (W, R) {
    let mut world = make();
    let made = Mutex::new(0);
    let sharing = share(move |call| {
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        *made += 1;
        hook(*made - 1, call)
    });
    let result = act(&mut world);
    drop(sharing);
    (world, result)
}

/// Does something in a world that is made anew each time: once with no call wrong, once with every
/// call disturbed in a way that must not be noticed, and then for each call and each way in
/// which it can go wrong. `check` is given what became of the world, and the result. Returns how
/// many there were.
pub(crate) fn every_call<W, R>(
    make: impl Fn() -> W,
    act: impl Fn(&mut W) -> R,
    check: impl FnMut(W, R, Option<&Trouble>),
) -> usize {
    try_all(make, act, check, true)
}

/// The same, but each call fails alone.
pub(crate) fn every_call_alone<W, R>(
    make: impl Fn() -> W,
    act: impl Fn(&mut W) -> R,
    check: impl FnMut(W, R, Option<&Trouble>),
) -> usize {
    try_all(make, act, check, false)
}

fn try_all<W, R>(
    make: impl Fn() -> W,
    act: impl Fn(&mut W) -> R,
    mut check: impl FnMut(W, R, Option<&Trouble>),
    also_for_good: bool,
) -> usize {
    let calls: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let (world, result) = run(&make, &act, move |_, call| {
        seen.lock().unwrap().push((name(call), ways(call)));
        Verdict::Go
    });
    check(world, result, None);
    let calls = std::mem::take(&mut *calls.lock().unwrap());

    // Those that can be made again are interrupted, and reads and writes end early.
    let (world, result) = run(&make, &act, |number, call| match call {
        FileCall::Rename(..)
        | FileCall::Unlink(_)
        | FileCall::MakeDir(_)
        | FileCall::RemoveDir(_)
        | FileCall::StartWriting(..) => Verdict::Go,
        _ if number % 3 == 0 => Verdict::Fail(EINTR),
        FileCall::Read(_, _, len) => Verdict::Short(len.div_ceil(2)),
        FileCall::Write(_, _, bytes) => Verdict::Short(bytes.len().div_ceil(2)),
        _ => Verdict::Go,
    });
    check(world, result, None);

    let alone = calls.iter().zip(0..).flat_map(|((call, ways), nth)| {
        let ways = ways.iter().map(|&wrong| (wrong, false));
        ways.map(move |(wrong, for_good)| (nth, call, wrong, for_good))
    });
    let for_good = calls.iter().zip(0..).flat_map(|((call, _), nth)| {
        let ways = [Wrong::Fails(EIO), Wrong::Cut(1000, ENOSPC)];
        ways.map(move |wrong| (nth, call, wrong, true))
    });
    let mut tried = 0;
    for (nth, call, wrong, for_good) in alone.chain(for_good.filter(|_| also_for_good)) {
        let trouble = Trouble {
            errno: wrong.errno(),
            for_good,
            what: format!("call {nth}, {call}: {wrong:?}, for good: {for_good}"),
        };
        let (world, result) = run(&make, &act, move |number, call| {
            match number == nth || for_good && number > nth {
                true => wrong.verdict(call),
                false => Verdict::Go,
            }
        });
        check(world, result, Some(&trouble));
        tried += 1;
    }
    tried
}
