// SPDX-License-Identifier: GPL-2.0-only
//! An open descriptor of an arena: its commands, and what it was told.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::fs::file::FileDescriptorReservation;
use kernel::fs::File;
use kernel::iov::IovIterDest;
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::poll::PollTable;
use kernel::time::Instant;
use kernel::time::Monotonic;

use crate::arena::Arena;
use crate::arena::Committed;
use crate::arena::Level;
use crate::arena::Told;
use crate::mm::control::ControlPage;
use crate::mm::file::NewFile;
use crate::mm::file::OpenFile;
use crate::registry::Claim;
use crate::snapshot_file::SnapshotFile;
use crate::tracking::ranges::Gather;
use crate::uapi;
use crate::uapi::same_command;
use crate::uapi::Passed;
use crate::uapi::Runs;

/// A descriptor.
pub(crate) struct ArenaFile {
    arena: Claim,
    /// Last epoch that a call on this descriptor told of: what poll compares with.
    told: AtomicU64,
    /// It keeps the arena for a program to come.
    keeps: AtomicBool,
}

impl ArenaFile {
    /// A descriptor of the claimed arena.
    pub(crate) fn new(arena: Claim) -> Self {
        let told = AtomicU64::new(arena.epoch());
        ArenaFile {
            arena,
            told,
            keeps: AtomicBool::new(false),
        }
    }

    fn tell(&self, epoch: u64) {
        self.told.fetch_max(epoch, Ordering::Relaxed);
    }

    fn info(&self, cmd: u32, arg: usize) -> Result {
        let (passed, _) = Passed::read::<uapi::ckpt_info>(cmd, arg)?;
        let mut info = self.arena.info();
        info.size = passed.size();
        passed.write(&info)?;
        self.tell(info.epoch);
        Ok(())
    }

    fn stats(&self, cmd: u32, arg: usize) -> Result {
        let (passed, asked) = Passed::read::<uapi::ckpt_stats>(cmd, arg)?;
        uapi::check_flags(asked.flags, 0)?;
        let mut stats = self.arena.stats();
        stats.size = passed.size();
        passed.write(&stats)
    }

    fn reserve(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut reserve) = Passed::read::<uapi::ckpt_reserve>(cmd, arg)?;
        uapi::check_flags(reserve.flags, 0)?;
        // Before anything is done, so that an answer that cannot be given changes nothing.
        passed.write(&reserve)?;
        reserve.charged = self.arena.reserve(reserve.pages)?;
        passed.write(&reserve)
    }

    fn commit(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut commit) = Passed::read::<uapi::ckpt_commit>(cmd, arg)?;
        uapi::check_flags(
            commit.flags,
            uapi::CKPT_COMMIT_SNAPSHOT | uapi::CKPT_COMMIT_QUIET,
        )?;
        let told = match commit.flags & uapi::CKPT_COMMIT_QUIET {
            0 => Told::Everybody,
            _ => Told::Nobody,
        };
        let snapshot = commit.flags & uapi::CKPT_COMMIT_SNAPSHOT != 0;
        let asks = commit.since != 0 || commit.reserve_pages != 0;
        if commit.reserved != 0 || (asks && !snapshot) {
            return Err(EINVAL);
        }
        // Who cannot be told of the descriptor must not get one.
        if snapshot && (passed.size() as usize) < size_of::<uapi::ckpt_commit>() {
            return Err(EINVAL);
        }
        commit.snapshot_pages = 0;
        commit.snapshot_fd = -1;
        // As above.
        passed.write(&commit)?;
        if !snapshot {
            let committed = self.arena.commit(told)?;
            return self.committed(&passed, commit, &committed);
        }
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let file = NewFile::<SnapshotFile>::plain(c"[ckpt-snapshot]")?;
        let (committed, snapshot) =
            self.arena
                .commit_with_snapshot(told, commit.since, commit.reserve_pages)?;
        commit.reserve_pages = snapshot.reserve;
        commit.snapshot_pages = snapshot.pages;
        commit.snapshot_fd = fd.reserved_fd() as i32;
        // From here on, whatever goes wrong ends the snapshot.
        let content = SnapshotFile::new(self.arena.again(), snapshot);
        let file = file.open(KBox::new(content, GFP_KERNEL)?);
        self.committed(&passed, commit, &committed)?;
        fd.fd_install(file);
        Ok(())
    }

    fn committed(
        &self,
        passed: &Passed,
        mut commit: uapi::ckpt_commit,
        committed: &Committed,
    ) -> Result {
        commit.epoch = committed.epoch;
        commit.changed_pages = committed.pages;
        commit.duration_ns = committed.ns;
        self.tell(committed.epoch);
        passed.write(&commit)
    }

    fn delta(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut delta) = Passed::read::<uapi::ckpt_delta>(cmd, arg)?;
        uapi::check_flags(delta.flags, 0)?;
        if delta.reserved != 0 || delta.capacity == 0 {
            return Err(EINVAL);
        }
        delta.epoch = self.arena.epoch();
        if delta.since > delta.epoch {
            return Err(ERANGE);
        }
        let mut runs = Runs::new(delta.ranges);
        let mut gather = Gather::new(delta.capacity);
        let more = self
            .arena
            .delta(delta.since, delta.start_pgoff, &mut gather, |some| {
                runs.write(some)
            })?;
        delta.count = gather.given();
        delta.pages = gather.pages();
        delta.more = u32::from(more.is_some());
        delta.start_pgoff = more.unwrap_or(self.arena.len_pages());
        passed.write(&delta)?;
        self.tell(delta.epoch);
        Ok(())
    }

    fn request(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut request) = Passed::read::<uapi::ckpt_request>(cmd, arg)?;
        uapi::check_flags(request.flags, 0)?;
        // As in `reserve`.
        passed.write(&request)?;
        request.after = self.arena.request();
        passed.write(&request)
    }

    fn acknowledge(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut said) = Passed::read::<uapi::ckpt_acknowledge>(cmd, arg)?;
        uapi::check_flags(said.flags, 0)?;
        if said.reserved != 0 {
            return Err(EINVAL);
        }
        // As in `reserve`.
        passed.write(&said)?;
        said.epoch = self
            .arena
            .acknowledge(said.epoch, Level::from_number(said.level)?)?;
        passed.write(&said)
    }

    fn wait(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut wait) = Passed::read::<uapi::ckpt_wait>(cmd, arg)?;
        uapi::check_flags(wait.flags, 0)?;
        if wait.reserved != 0 {
            return Err(EINVAL);
        }
        let level = Level::from_number(wait.level)?;
        let begun = Instant::<Monotonic>::now();
        loop {
            let seen = self.arena.seen_progress();
            let reached = self.arena.reached(level);
            if reached >= wait.epoch {
                wait.epoch = reached;
                return passed.write(&wait);
            }
            let left = match wait.timeout_ns {
                ns if ns >= uapi::CKPT_WAIT_FOREVER => uapi::CKPT_WAIT_FOREVER,
                ns => ns.saturating_sub(begun.elapsed().as_nanos() as u64),
            };
            if left == 0 {
                return Err(ETIMEDOUT);
            }
            self.arena.wait_for_progress(seen, left)?;
        }
    }

    fn subscribe(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut subscribe) = Passed::read::<uapi::ckpt_subscribe>(cmd, arg)?;
        uapi::check_flags(subscribe.flags, 0)?;
        if subscribe.reserved != 0 {
            return Err(EINVAL);
        }
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let file = NewFile::<SnapshotFile>::plain(c"[ckpt-snapshot]")?;
        let subscription = self
            .arena
            .subscribe(subscribe.since, subscribe.reserve_pages)?;
        // From here on, whatever goes wrong ends the subscription.
        let content = SnapshotFile::subscribed(self.arena.again(), subscription);
        let file = file.open(KBox::new(content, GFP_KERNEL)?);
        subscribe.snapshot_fd = fd.reserved_fd() as i32;
        passed.write(&subscribe)?;
        fd.fd_install(file);
        Ok(())
    }

    fn keep(&self, cmd: u32, arg: usize) -> Result {
        let (_, keep) = Passed::read::<uapi::ckpt_keep>(cmd, arg)?;
        uapi::check_flags(keep.flags, 0)?;
        if !self.keeps.swap(true, Ordering::Relaxed) {
            self.arena.keep();
        }
        self.arena.is_not_of_caller();
        Ok(())
    }

    fn take_over(&self, cmd: u32, arg: usize) -> Result {
        let (_, takeover) = Passed::read::<uapi::ckpt_takeover>(cmd, arg)?;
        uapi::check_flags(takeover.flags, 0)?;
        self.arena.take_over()
    }
}

impl Drop for ArenaFile {
    fn drop(&mut self) {
        if *self.keeps.get_mut() {
            self.arena.keep_no_longer();
        }
    }
}

impl OpenFile for ArenaFile {
    type Faults = Arena;

    fn mmap(&self) -> Result<&Arena> {
        Ok(&self.arena)
    }

    fn control(&self, pgoff: u64) -> Option<&ControlPage> {
        (pgoff == uapi::CKPT_CONTROL_OFFSET >> PAGE_SHIFT).then(|| self.arena.control())
    }

    fn ioctl(&self, writable: bool, cmd: u32, arg: usize) -> Result<isize> {
        let for_writers = |done: fn(&Self, u32, usize) -> Result| match writable {
            true => done(self, cmd, arg),
            false => Err(EBADF),
        };
        match cmd {
            cmd if same_command(cmd, uapi::CKPT_IOC_INFO) => self.info(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_STATS) => self.stats(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_DELTA) => self.delta(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_COMMIT) => for_writers(Self::commit),
            cmd if same_command(cmd, uapi::CKPT_IOC_RESERVE) => for_writers(Self::reserve),
            cmd if same_command(cmd, uapi::CKPT_IOC_WAIT) => self.wait(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_REQUEST) => for_writers(Self::request),
            cmd if same_command(cmd, uapi::CKPT_IOC_ACKNOWLEDGE) => for_writers(Self::acknowledge),
            cmd if same_command(cmd, uapi::CKPT_IOC_SUBSCRIBE) => for_writers(Self::subscribe),
            cmd if same_command(cmd, uapi::CKPT_IOC_KEEP) => for_writers(Self::keep),
            cmd if same_command(cmd, uapi::CKPT_IOC_TAKEOVER) => for_writers(Self::take_over),
            _ => Err(ENOTTY),
        }?;
        Ok(0)
    }

    fn poll(&self, file: &File, table: PollTable<'_>) -> u32 {
        table.register_wait(file, self.arena.committed());
        let mut ready = 0;
        if self.arena.told_epoch() > self.told.load(Ordering::Relaxed) {
            ready |= bindings::POLLIN;
        }
        if self.arena.is_requested() {
            ready |= bindings::POLLPRI;
        }
        ready
    }

    fn read(&self, pos: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        self.arena.read(pos, to)
    }

    fn show(&self, to: &SeqFile) {
        let info = self.arena.info();
        let stats = self.arena.stats();
        let name = CStr::from_bytes_until_nul(&info.name).unwrap_or(c"");
        seq_print!(to, "ckpt-id:\t{}\n", info.id);
        seq_print!(to, "ckpt-name:\t{}\n", name);
        seq_print!(to, "ckpt-bytes:\t{}\n", info.len_bytes);
        seq_print!(to, "ckpt-epoch:\t{}\n", info.epoch);
        seq_print!(to, "ckpt-pid:\t{}\n", info.pid);
        seq_print!(to, "ckpt-uid:\t{}\n", info.uid);
        seq_print!(to, "ckpt-resident-pages:\t{}\n", info.resident_pages);
        seq_print!(to, "ckpt-changed-pages:\t{}\n", info.changed_pages);
        seq_print!(to, "ckpt-charged-pages:\t{}\n", stats.charged_pages);
        seq_print!(to, "ckpt-bytes-held:\t{}\n", stats.bytes_held);
        seq_print!(to, "ckpt-read-faults:\t{}\n", stats.read_faults);
        seq_print!(to, "ckpt-write-faults:\t{}\n", stats.write_faults);
        seq_print!(to, "ckpt-late-notes:\t{}\n", stats.late_notes);
        seq_print!(to, "ckpt-chunks:\t{}\n", stats.chunks);
        seq_print!(to, "ckpt-open-chunks:\t{}\n", stats.open_chunks);
        seq_print!(to, "ckpt-open-pages:\t{}\n", stats.open_pages);
        seq_print!(to, "ckpt-snapshots:\t{}\n", stats.snapshots);
        seq_print!(to, "ckpt-commits:\t{}\n", stats.commits);
        seq_print!(to, "ckpt-commit-ns:\t{}\n", stats.commit_ns);
    }
}
