// SPDX-License-Identifier: GPL-2.0-only
//! An open descriptor of a snapshot, and its commands.

use kernel::bindings;
use kernel::fs::File;
use kernel::iov::IovIterDest;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::poll::PollTable;
use kernel::sync::Arc;

use crate::arena::Arena;
use crate::mm::file::OpenFile;
use crate::registry::Claim;
use crate::snapshot::Buffer;
use crate::snapshot::Snapshot;
use crate::subscription::Subscription;
use crate::uapi;
use crate::uapi::same_command;
use crate::uapi::Passed;
use crate::uapi::Runs;

/// Where the snapshot of a descriptor is.
enum Source {
    Made(Arc<Snapshot>),
    Subscribed(Arc<Subscription>),
}

/// A descriptor. Keeps the arena; the snapshot ends with it.
pub(crate) struct SnapshotFile {
    arena: Claim,
    source: Source,
}

impl SnapshotFile {
    /// The descriptor of a snapshot of the claimed arena, which the arena has on its list.
    pub(crate) fn new(arena: Claim, snapshot: Arc<Snapshot>) -> Self {
        SnapshotFile {
            arena,
            source: Source::Made(snapshot),
        }
    }

    /// The descriptor of a snapshot that the claimed arena's next commit makes.
    pub(crate) fn subscribed(arena: Claim, subscription: Arc<Subscription>) -> Self {
        SnapshotFile {
            arena,
            source: Source::Subscribed(subscription),
        }
    }

    /// The snapshot, if it is there.
    fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let snapshot = match &self.source {
            Source::Made(snapshot) => snapshot.clone(),
            Source::Subscribed(subscription) => subscription.snapshot()?,
        };
        snapshot.check()?;
        Ok(snapshot)
    }

    fn facts(&self, cmd: u32, arg: usize) -> Result {
        let (passed, asked) = Passed::read::<uapi::ckpt_snapshot>(cmd, arg)?;
        uapi::check_flags(asked.flags, 0)?;
        let mut facts = self.snapshot()?.facts(&self.arena);
        facts.size = passed.size();
        passed.write(&facts)
    }

    fn gather(&self, cmd: u32, arg: usize) -> Result {
        let (passed, mut gather) = Passed::read::<uapi::ckpt_gather>(cmd, arg)?;
        uapi::check_flags(gather.flags, uapi::CKPT_GATHER_THAW)?;
        let thaw = gather.flags & uapi::CKPT_GATHER_THAW != 0;
        let buffer = match (gather.buffer, gather.buffer_pages) {
            (0, 0) if !thaw => None,
            (0, _) | (_, 0) => return Err(EINVAL),
            (at, pages) => Some(Buffer {
                at: at as usize,
                pages: pages.into(),
            }),
        };
        if gather.capacity == 0 {
            return Err(EINVAL);
        }
        let mut runs = Runs::new(gather.ranges);
        let snapshot = self.snapshot()?;
        let reading = snapshot.read()?;
        let start = gather.start_pgoff;
        let gathered = reading.gather(
            &self.arena,
            start,
            gather.capacity,
            buffer.as_ref(),
            |run| runs.write(&[run]),
        )?;
        gather.count = gathered.count;
        gather.pages = gathered.pages;
        gather.more = u32::from(gathered.more.is_some());
        gather.start_pgoff = gathered.more.unwrap_or(self.arena.len_pages());
        passed.write(&gather)?;
        if thaw && start < gather.start_pgoff {
            self.arena.thaw(&snapshot, start, gather.start_pgoff);
        }
        drop(reading);
        Ok(())
    }

    fn thaw(&self, cmd: u32, arg: usize) -> Result {
        let (_, thaw) = Passed::read::<uapi::ckpt_thaw>(cmd, arg)?;
        uapi::check_flags(thaw.flags, 0)?;
        if thaw.pages == 0 {
            return Err(EINVAL);
        }
        let end = thaw
            .pgoff
            .saturating_add(thaw.pages)
            .min(self.arena.len_pages());
        let snapshot = self.snapshot()?;
        let reading = snapshot.read()?;
        if thaw.pgoff < end {
            self.arena.thaw(&snapshot, thaw.pgoff, end);
        }
        drop(reading);
        Ok(())
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        match &self.source {
            Source::Made(snapshot) => self.arena.release(snapshot),
            Source::Subscribed(subscription) => self.arena.unsubscribe(subscription),
        }
    }
}

impl OpenFile for SnapshotFile {
    type Faults = Arena;

    fn mmap(&self) -> Result<&Arena> {
        Err(ENODEV)
    }

    fn ioctl(&self, _writable: bool, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            cmd if same_command(cmd, uapi::CKPT_IOC_SNAPSHOT) => self.facts(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_GATHER) => self.gather(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_THAW) => self.thaw(cmd, arg),
            _ => Err(ENOTTY),
        }?;
        Ok(0)
    }

    fn poll(&self, file: &File, table: PollTable<'_>) -> u32 {
        table.register_wait(file, self.arena.committed());
        match self.snapshot() {
            Ok(_) => bindings::POLLIN,
            Err(error) if error == EAGAIN => 0,
            Err(_) => bindings::POLLERR,
        }
    }

    fn read(&self, _pos: u64, _to: &mut IovIterDest<'_>) -> Result<usize> {
        Err(EINVAL)
    }

    fn show(&self, to: &SeqFile) {
        let Ok(snapshot) = self.snapshot() else {
            return;
        };
        let facts = snapshot.facts(&self.arena);
        seq_print!(to, "ckpt-id:\t{}\n", facts.arena_id);
        seq_print!(to, "ckpt-epoch:\t{}\n", facts.epoch);
        seq_print!(to, "ckpt-since:\t{}\n", facts.since);
        seq_print!(to, "ckpt-pages:\t{}\n", facts.pages);
        seq_print!(to, "ckpt-held-pages:\t{}\n", facts.held_pages);
        seq_print!(to, "ckpt-copied-pages:\t{}\n", facts.copied_pages);
        seq_print!(to, "ckpt-reserve-pages:\t{}\n", facts.reserve_pages);
    }
}
