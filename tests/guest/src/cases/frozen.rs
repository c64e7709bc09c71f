// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writers to frozen pages: what they pay, and when they wait.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;

use super::snapshot::filled;
use super::snapshot::number_page;
use crate::abi;
use crate::arena::Arena;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::pipe::pipe;
use crate::process::End;
use crate::process::Peer;
use crate::runner::Test;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::snapshot::need_snapshots;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_frozen_page_costs_its_writer_one_fault_and_one_copy,
    a_page_frozen_for_several_is_copied_for_all_of_them,
    a_writer_waits_when_no_copy_is_left_until_its_page_is_thawed,
    a_writer_waits_when_no_copy_is_left_until_a_copied_page_is_thawed,
    a_writer_waits_until_pages_are_gathered_with_thaw,
    a_writer_waits_until_the_snapshot_is_closed,
    a_writer_waits_until_the_consumer_is_dead,
    a_writer_that_waits_can_be_killed,
    a_writer_that_waits_gets_its_signals,
    a_system_call_that_waits_to_write_can_be_killed,
    while_one_waits_others_map_commit_and_write,
    while_one_waits_its_own_process_goes_on,
    a_writer_that_waits_for_two_snapshots_goes_on_when_both_let_it,
];

fn a_frozen_page_costs_its_writer_one_fault_and_one_copy(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(300)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
    let before = arena.stats()?;
    for page in (0..300).step_by(3) {
        for turn in 0..5_u8 {
            map.touch(page, turn);
            map.set(page * PAGE + 2000, turn);
        }
    }
    let after = arena.stats()?;
    let faults = after.write_faults - before.write_faults;
    ensure!(faults <= 100, "{faults} faults for writes to 100 pages");
    ensure_eq!(
        after.copied_pages - before.copied_pages,
        100,
        "pages copied aside"
    );
    // The same again, with nothing frozen that was not copied.
    for page in (0..300).step_by(3) {
        map.touch(page, 9);
    }
    let again = arena.stats()?;
    ensure_eq!(again.write_faults, after.write_faults, "faults of more");
    ensure_eq!(again.copied_pages, after.copied_pages, "copies of more");
    for (pgoff, content) in snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn a_page_frozen_for_several_is_copied_for_all_of_them(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(8)?;
    let snapshots = (0..5)
        .map(|_| Ok(commit_with_snapshot(&arena, 0, 0)?.0))
        .collect::<Result<Vec<_>, Failure>>()?;
    let before = arena.stats()?.write_faults;
    map.touch(3, 0xff);
    ensure!(arena.stats()?.write_faults <= before + 1, "faults");
    for snapshot in &snapshots {
        ensure_eq!(snapshot.info()?.copied_pages, 1, "copied_pages");
        for (pgoff, content) in snapshot.all()? {
            ensure!(content == number_page(pgoff), "page {pgoff}");
        }
    }
    Ok(())
}

/// A process that writes to page 1 when there is no copy left for it, and then says so.
struct Waiting {
    arena: Arena,
    map: Mapping,
    snapshot: Snapshot,
    writer: Peer,
}

impl Waiting {
    /// One that has begun to wait.
    fn start() -> Result<Self, Failure> {
        let (arena, map) = filled(16)?;
        let (snapshot, commit) = commit_with_snapshot(&arena, 0, 1)?;
        ensure_eq!(commit.reserve_pages, 1, "reserve_pages");
        map.touch(0, 0xaa);
        ensure_eq!(snapshot.info()?.copied_pages, 1, "copied_pages");
        let writer = Peer::start(|link| {
            // What keeps the snapshot open is the parent's descriptor alone.
            // SAFETY: closes the child's copy, which nothing in the child uses.
            unsafe { libc::close(snapshot.as_fd().as_raw_fd()) };
            let map = arena.map_all()?;
            map.touch(1, 0xbb);
            link.send_number(1)?;
            Ok(())
        })?;
        wait_for_waits(&arena, 1)?;
        let waiting = Self {
            arena,
            map,
            snapshot,
            writer,
        };
        waiting.ensure_waits()?;
        Ok(waiting)
    }

    fn ensure_waits(&self) -> Outcome {
        ensure_eq!(
            self.map.get(PAGE),
            1,
            "the byte that the writer wants to change"
        );
        Ok(())
    }

    /// It has written.
    fn went_on(&self) -> Outcome {
        self.writer.link.receive_number()?;
        ensure_eq!(self.map.get(PAGE), 0xbb, "the byte that was stored");
        Ok(())
    }
}

/// Until so many writers have begun to wait.
fn wait_for_waits(arena: &Arena, waits: u64) -> Outcome {
    while arena.stats()?.copy_waits < waits {
        std::thread::yield_now();
    }
    Ok(())
}

fn a_writer_waits_when_no_copy_is_left_until_its_page_is_thawed(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    // Of no use to it: a page that was not copied and is not its own.
    waiting.snapshot.thaw(5, 1)?;
    waiting.ensure_waits()?;
    waiting.snapshot.thaw(1, 1)?;
    waiting.went_on()?;
    ensure_eq!(waiting.snapshot.info()?.copied_pages, 1, "copied_pages");
    waiting.writer.finish()
}

fn a_writer_waits_when_no_copy_is_left_until_a_copied_page_is_thawed(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    waiting.snapshot.thaw(0, 1)?;
    waiting.went_on()?;
    ensure_eq!(waiting.snapshot.info()?.copied_pages, 1, "copied_pages");
    let all = waiting.snapshot.all()?;
    ensure!(
        all[0] == (1, number_page(1)),
        "page 1 is not what it was at the commit"
    );
    Ok(())
}

fn a_writer_waits_until_pages_are_gathered_with_thaw(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    // Without thawing it stays.
    ensure_eq!(waiting.snapshot.all()?.len(), 16, "pages");
    waiting.ensure_waits()?;
    let part = waiting.snapshot.gather(0, 4, 4, abi::CKPT_GATHER_THAW)?;
    waiting.went_on()?;
    for (pgoff, content) in part.pages_with_content() {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn a_writer_waits_until_the_snapshot_is_closed(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    let copy = Snapshot::new(waiting.snapshot.as_fd().try_clone_to_owned()?);
    let Waiting {
        arena,
        map,
        snapshot,
        writer,
    } = waiting;
    drop(snapshot);
    ensure_eq!(map.get(PAGE), 1, "while a duplicate is open");
    drop(copy);
    writer.link.receive_number()?;
    ensure_eq!(map.get(PAGE), 0xbb, "the byte that was stored");
    ensure_eq!(arena.stats()?.snapshots, 0, "snapshots");
    Ok(())
}

fn a_writer_waits_until_the_consumer_is_dead(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let consumer = Peer::start(|link| {
        let (snapshot, _) = commit_with_snapshot(&arena, 0, 1)?;
        link.send_number(snapshot.info()?.held_pages)?;
        link.receive()?;
        Ok(())
    })?;
    ensure_eq!(consumer.link.receive_number()?, 16, "held_pages");
    map.touch(0, 0xaa);
    let writer = Peer::start(|link| {
        arena.map_all()?.touch(1, 0xbb);
        link.send_number(1)?;
        Ok(())
    })?;
    wait_for_waits(&arena, 1)?;
    ensure_eq!(map.get(PAGE), 1, "while the consumer lives");
    consumer.kill()?;
    writer.link.receive_number()?;
    ensure_eq!(map.get(PAGE), 0xbb, "the byte that was stored");
    writer.finish()
}

fn a_writer_that_waits_can_be_killed(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    let end = waiting.writer.kill()?;
    ensure_eq!(end, End::Killed(Signal::SIGKILL), "its end");
    ensure_eq!(waiting.map.get(PAGE), 1, "the byte that it did not store");
    for (pgoff, content) in waiting.snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    waiting.arena.commit()?;
    Ok(())
}

// A program's handler must not be held up by a consumer elsewhere.
fn a_writer_that_waits_gets_its_signals(_: &Options) -> Outcome {
    static SIGNALS: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);
    extern "C" fn handler(_: i32) {
        let fd = SIGNALS.load(std::sync::atomic::Ordering::Relaxed);
        // SAFETY: writes one byte from a constant; async-signal-safe.
        unsafe { libc::write(fd, [1_u8].as_ptr().cast(), 1) };
    }
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 1)?;
    map.touch(0, 0xaa);
    let (reader, signals) = pipe()?;
    let writer = Peer::start(|link| {
        SIGNALS.store(signals.as_raw_fd(), std::sync::atomic::Ordering::Relaxed);
        // SAFETY: the handler does only what is safe in one.
        unsafe {
            nix::sys::signal::signal(
                Signal::SIGUSR1,
                nix::sys::signal::SigHandler::Handler(handler),
            )
        }?;
        arena.map_all()?.touch(1, 0xbb);
        link.send_number(1)?;
        Ok(())
    })?;
    wait_for_waits(&arena, 1)?;
    for round in 0..3 {
        kill(writer.pid(), Signal::SIGUSR1)?;
        let mut byte = [0];
        std::io::Read::read_exact(&mut &reader, &mut byte)?;
        ensure_eq!(
            map.get(PAGE),
            1,
            "the byte that is not stored yet in round {round}"
        );
    }
    snapshot.thaw(1, 1)?;
    writer.link.receive_number()?;
    ensure_eq!(map.get(PAGE), 0xbb, "the byte that was stored");
    writer.finish()
}

fn a_system_call_that_waits_to_write_can_be_killed(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 1)?;
    map.touch(0, 0xaa);
    let target = map.at(PAGE);
    let (reader, sender) = pipe()?;
    std::io::Write::write_all(&mut &sender, &[7; 16])?;
    let parent = nix::unistd::getpid();
    // Two ways for the kernel to write: as the writer, and for another process.
    let read = Peer::start(|_link| {
        let map = arena.map_all()?;
        // SAFETY: the target is a part of the mapping.
        unsafe {
            libc::read(
                reader.as_raw_fd(),
                std::ptr::with_exposed_provenance_mut(map.at(PAGE)),
                8,
            )
        };
        Ok(())
    })?;
    let remote = Peer::start(|_link| {
        let bytes = [9_u8; 8];
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: 8,
        };
        let remote = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(target),
            iov_len: 8,
        };
        // SAFETY: the kernel checks the target, which is in the parent.
        unsafe { libc::process_vm_writev(parent.as_raw(), &local, 1, &remote, 1, 0) };
        Ok(())
    })?;
    wait_for_waits(&arena, 2)?;
    ensure_eq!(
        read.kill()?,
        End::Killed(Signal::SIGKILL),
        "end of the reader"
    );
    ensure_eq!(
        remote.kill()?,
        End::Killed(Signal::SIGKILL),
        "end of the writer from elsewhere"
    );
    ensure_eq!(map.get(PAGE), 1, "the byte that nobody stored");
    for (pgoff, content) in snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn while_one_waits_others_map_commit_and_write(_: &Options) -> Outcome {
    need_snapshots()?;
    let waiting = Waiting::start()?;
    let (arena, map) = (&waiting.arena, &waiting.map);
    // Page 0 has its copy; pages beyond what was filled are in no snapshot.
    map.touch(0, 0xcc);
    let again = arena.map_all()?;
    again.touch(0, 0xcd);
    again.unmap()?;
    let epoch = arena.info()?.epoch;
    ensure_eq!(arena.commit()?.epoch, epoch + 1, "a commit");
    let (second, _) = commit_with_snapshot(arena, epoch, 0)?;
    second.all()?;
    drop(second);
    arena.delta(0)?;
    waiting.ensure_waits()?;
    waiting.snapshot.thaw(1, 1)?;
    waiting.went_on()?;
    // It was stored after those commits.
    let commit = arena.commit()?;
    ensure!(
        arena.delta(commit.epoch - 1)?.has(1),
        "the write that waited is not in the next delta"
    );
    Ok(())
}

// A lock of the whole address space held while waiting would stop every other thread that maps
// memory, and then those who fault.
fn while_one_waits_its_own_process_goes_on(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 1)?;
    map.touch(0, 0xaa);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| map.touch(1, 0xbb));
        let meanwhile = || -> Outcome {
            wait_for_waits(&arena, 1)?;
            for round in 0..50_u8 {
                let own = Mapping::anonymous(64 * PAGE)?;
                own.touch(round as usize, round);
                own.unmap()?;
                let more = arena.map(2, 8)?;
                more.get(0);
                more.protect(0, 4, libc::PROT_READ)?;
                more.unmap()?;
                map.touch(0, round);
            }
            // Even the mapping that it writes to can be changed elsewhere.
            map.protect(8, 8, libc::PROT_READ)?;
            map.advise(0, 16, libc::MADV_DONTNEED)?;
            ensure_eq!(map.get(PAGE), 1, "the byte that is not stored yet");
            ensure!(!writer.is_finished(), "the writer did not wait");
            Ok(())
        };
        let outcome = meanwhile();
        // Whatever was found: it must not wait for ever.
        snapshot.thaw(1, 1)?;
        writer
            .join()
            .map_err(|_| Failure::new("the writer panicked"))?;
        outcome?;
        ensure_eq!(map.get(PAGE), 0xbb, "the byte that was stored");
        Ok(())
    })
}

fn a_writer_that_waits_for_two_snapshots_goes_on_when_both_let_it(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let (first, _) = commit_with_snapshot(&arena, 0, 1)?;
    let (second, _) = commit_with_snapshot(&arena, 0, 1)?;
    map.touch(0, 0xaa);
    let writer = Peer::start(|link| {
        arena.map_all()?.touch(1, 0xbb);
        link.send_number(1)?;
        Ok(())
    })?;
    wait_for_waits(&arena, 1)?;
    first.thaw(0, u64::MAX)?;
    ensure_eq!(map.get(PAGE), 1, "with one snapshot left");
    for (pgoff, content) in second.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    second.thaw(1, 1)?;
    writer.link.receive_number()?;
    ensure_eq!(map.get(PAGE), 0xbb, "the byte that was stored");
    writer.finish()?;
    Ok(())
}
