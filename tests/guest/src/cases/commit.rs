// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_COMMIT, apart from what happens with many threads: that is in `threads`.

use std::time::Instant;

use nix::errno::Errno;

use crate::abi;
use crate::arena::commit_request;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::ioctl;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    an_idle_commit_has_no_pages_and_a_new_epoch,
    a_commit_counts_the_pages_written_since_the_last,
    a_page_written_with_the_bytes_it_had_counts,
    a_page_only_read_does_not_count,
    every_page_written_in_an_epoch_is_noted_again_in_the_next,
    the_duration_is_within_the_call,
    a_commit_does_not_change_the_content,
    a_commit_may_be_answered_into_the_arena_itself,
    two_arenas_have_epochs_of_their_own,
    a_signal_does_not_disturb_a_commit,
];

fn an_idle_commit_has_no_pages_and_a_new_epoch(_: &Options) -> Outcome {
    let arena = Device::open()?.create("idle", 1 << 20)?;
    for epoch in 1..=5 {
        let commit = arena.commit()?;
        ensure_eq!((commit.epoch, commit.changed_pages), (epoch, 0), "commit");
        ensure_eq!(arena.delta(0)?.ranges, vec![], "delta since 0");
    }
    arena.map_all()?.touch(77, 1);
    ensure_eq!(
        arena.commit()?.changed_pages,
        1,
        "pages of a commit after a write"
    );
    let idle = arena.commit()?;
    ensure_eq!(
        (idle.epoch, idle.changed_pages),
        (7, 0),
        "idle commit after it"
    );
    ensure_eq!(arena.delta(6)?.ranges, vec![], "delta of the idle epoch");
    Ok(())
}

fn a_commit_counts_the_pages_written_since_the_last(_: &Options) -> Outcome {
    let arena = Device::open()?.create("count", 3000)?;
    let map = arena.map_all()?;
    for pages in [1_usize, 2, 511, 512, 513, 3000, 0, 7] {
        for page in 0..pages {
            map.touch(3000 - pages + page, 1);
        }
        ensure_eq!(arena.commit()?.changed_pages, pages as u64, "changed_pages");
    }
    Ok(())
}

fn a_page_written_with_the_bytes_it_had_counts(_: &Options) -> Outcome {
    let arena = Device::open()?.create("same", 4)?;
    let map = arena.map_all()?;
    map.touch(1, 0);
    ensure_eq!(
        arena.commit()?.changed_pages,
        1,
        "a zero written to a page never touched"
    );
    map.touch(1, 5);
    arena.commit()?;
    map.touch(1, 5);
    ensure_eq!(
        arena.commit()?.changed_pages,
        1,
        "the same byte written again"
    );
    ensure_eq!(arena.delta(2)?.pages(), vec![1], "delta");
    Ok(())
}

fn a_page_only_read_does_not_count(_: &Options) -> Outcome {
    let arena = Device::open()?.create("read", 600)?;
    let map = arena.map_all()?;
    for page in 0..600 {
        ensure_eq!(map.get(page * PAGE), 0, "byte of page {page}");
    }
    ensure_eq!(arena.commit()?.changed_pages, 0, "pages only read");
    map.touch(300, 1);
    arena.commit()?;
    for page in 0..600 {
        map.get(page * PAGE);
    }
    ensure_eq!(
        arena.commit()?.changed_pages,
        0,
        "pages only read, one of them written before"
    );
    ensure_eq!(arena.delta(0)?.pages(), vec![300], "delta since 0");
    // A page that was mapped by reading must still be noticed when it is written.
    map.touch(10, 1);
    ensure_eq!(
        arena.commit()?.changed_pages,
        1,
        "a page read before and written now"
    );
    Ok(())
}

fn every_page_written_in_an_epoch_is_noted_again_in_the_next(_: &Options) -> Outcome {
    let arena = Device::open()?.create("again", 1024)?;
    let map = arena.map_all()?;
    for epoch in 1..=40_u64 {
        // Runs and single pages, changing from epoch to epoch.
        let written: Vec<u64> = (0..1024)
            .filter(|page| (page / 8 + epoch) % 3 == 0 || page % 97 == epoch)
            .collect();
        for page in &written {
            map.set(*page as usize * PAGE + epoch as usize, epoch as u8);
        }
        ensure_eq!(
            arena.commit()?.changed_pages,
            written.len() as u64,
            "epoch {epoch}"
        );
        ensure_eq!(
            arena.delta(epoch - 1)?.pages(),
            written,
            "delta of epoch {epoch}"
        );
    }
    Ok(())
}

fn the_duration_is_within_the_call(_: &Options) -> Outcome {
    let arena = Device::open()?.create("time", 4096)?;
    let map = arena.map_all()?;
    let mut longest = 0;
    for round in 0..20 {
        for page in 0..200 {
            map.touch(page * 20, round);
        }
        let before = Instant::now();
        let commit = arena.commit()?;
        let taken = before.elapsed().as_nanos() as u64;
        ensure!(
            commit.duration_ns <= taken,
            "duration_ns {} of a call of {taken} ns",
            commit.duration_ns
        );
        longest = longest.max(commit.duration_ns);
    }
    ensure!(longest > 0, "no commit of 200 pages took any time");
    Ok(())
}

fn a_commit_does_not_change_the_content(_: &Options) -> Outcome {
    let arena = Device::open()?.create("content", 16)?;
    let map = arena.map_all()?;
    let pattern: Vec<u8> = (0..16 * PAGE)
        .map(|at| (at * 7 + at / PAGE) as u8)
        .collect();
    map.write(0, &pattern);
    for _ in 0..3 {
        arena.commit()?;
        ensure!(
            map.read(0, 16 * PAGE) == pattern,
            "content through the mapping"
        );
        ensure!(
            arena.pread(0, 16 * PAGE)? == pattern,
            "content through the descriptor"
        );
    }
    Ok(())
}

fn a_commit_may_be_answered_into_the_arena_itself(_: &Options) -> Outcome {
    let arena = Device::open()?.create("self", 8)?;
    let map = arena.map_all()?;
    // Across two pages, the second of which was never touched.
    let address = map.at(3 * PAGE - 16);
    let request = ioctl::Bytes::extended(&commit_request(), 0);
    map.write(3 * PAGE - 16, &request.as_slice()[..16]);
    ioctl::call_at(&arena, abi::CKPT_IOC_COMMIT, address)?;
    let epoch = map.read(
        3 * PAGE - 16 + std::mem::offset_of!(abi::ckpt_commit, epoch),
        8,
    );
    ensure_eq!(epoch, 1_u64.to_ne_bytes(), "epoch in the answer");
    ensure!(
        arena.delta(0)?.has(2),
        "the page that held the request is not in the delta"
    );
    // The answer was written when the epoch was closed already.
    arena.commit()?;
    ensure_eq!(
        arena.delta(1)?.pages(),
        vec![2, 3],
        "pages that the answer was written to"
    );
    Ok(())
}

fn two_arenas_have_epochs_of_their_own(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (one, other) = (device.create("one", 8)?, device.create("other", 8)?);
    let (map_one, map_other) = (one.map_all()?, other.map_all()?);
    map_one.touch(1, 1);
    map_other.touch(2, 1);
    for epoch in 1..=3 {
        ensure_eq!(one.commit()?.epoch, epoch, "epoch of one");
    }
    ensure_eq!(other.info()?.epoch, 0, "epoch of the other");
    ensure_eq!(other.info()?.changed_pages, 1, "changed pages of the other");
    ensure_eq!(other.commit()?.epoch, 1, "first epoch of the other");
    ensure_eq!(other.delta(0)?.pages(), vec![2], "delta of the other");
    Ok(())
}

static TICKS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

extern "C" fn count_tick(_: libc::c_int) {
    TICKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

fn a_signal_does_not_disturb_a_commit(_: &Options) -> Outcome {
    use std::sync::atomic::Ordering;
    let arena = Device::open()?.create("signals", 512)?;
    let map = arena.map_all()?;
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: 500,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: the handler does no more than count; without SA_RESTART, so that a call that can be
    // interrupted is.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_tick as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
    }
    let mut epoch = 0;
    while TICKS.load(Ordering::Relaxed) < 500 {
        let written: Vec<u64> = (0..512).filter(|page| (page + epoch) % 5 == 0).collect();
        for page in &written {
            map.touch(*page as usize, epoch as u8);
        }
        let commit = arena.commit().map_err(|errno: Errno| {
            crate::failure::Failure::new(format!("commit {} under signals: {errno}", epoch + 1))
        })?;
        epoch += 1;
        ensure_eq!(commit.epoch, epoch, "epoch");
        ensure_eq!(commit.changed_pages, written.len() as u64, "changed pages");
        ensure_eq!(arena.delta(epoch - 1)?.pages(), written, "delta");
    }
    Ok(())
}
