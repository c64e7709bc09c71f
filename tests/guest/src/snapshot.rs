// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot's descriptor, called as the header says it is to be called.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::arena::commit_request;
use crate::device::Device;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;

/// A descriptor of a snapshot.
#[derive(Debug)]
pub struct Snapshot {
    fd: OwnedFd,
}

/// What one GATHER call handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// First page and number of pages.
    pub ranges: Vec<(u64, u64)>,
    /// The sum of the pages, as told.
    pub pages: u64,
    /// The content of the pages, in their order; empty when only ranges were wanted.
    pub content: Vec<u8>,
    /// Where to go on, when there is more.
    pub next: Option<u64>,
}

impl Gathered {
    /// Every page.
    pub fn page_offsets(&self) -> Vec<u64> {
        self.ranges
            .iter()
            .flat_map(|(first, pages)| *first..first + pages)
            .collect()
    }

    /// Every page with its content.
    pub fn pages_with_content(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.page_offsets()
            .into_iter()
            .zip(self.content.chunks_exact(PAGE))
    }
}

impl Snapshot {
    /// A snapshot that `fd` is a descriptor of.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// CKPT_IOC_SNAPSHOT.
    pub fn info(&self) -> Result<abi::ckpt_snapshot, Errno> {
        let mut info = info_request();
        ioctl::call(self, abi::CKPT_IOC_SNAPSHOT, &mut info).map(|()| info)
    }

    /// CKPT_IOC_GATHER with the given structure.
    pub fn gather_with(&self, gather: &mut abi::ckpt_gather) -> Result<(), Errno> {
        ioctl::call(self, abi::CKPT_IOC_GATHER, gather)
    }

    /// CKPT_IOC_GATHER, one call. Without `buffer_pages` only ranges are wanted.
    pub fn gather(
        &self,
        start_pgoff: u64,
        capacity: usize,
        buffer_pages: usize,
        flags: u32,
    ) -> Result<Gathered, Errno> {
        let mut ranges = vec![abi::ckpt_range::ZERO; capacity];
        // What the kernel does not fill must not look like what it did.
        let mut content = vec![0xee; buffer_pages * PAGE];
        let mut gather = gather_request(&mut ranges, &mut content);
        gather.start_pgoff = start_pgoff;
        gather.flags = flags;
        self.gather_with(&mut gather)?;
        let filled = if buffer_pages == 0 { 0 } else { gather.pages };
        content.truncate(filled as usize * PAGE);
        Ok(Gathered {
            ranges: ranges
                .iter()
                .take(gather.count as usize)
                .map(|range| (range.pgoff, range.pages))
                .collect(),
            pages: gather.pages,
            content,
            next: (gather.more != 0).then_some(gather.start_pgoff),
        })
    }

    /// Every page that it still holds, with its content. Thaws none.
    pub fn all(&self) -> Result<Vec<(u64, Vec<u8>)>, Errno> {
        let mut all = Vec::new();
        let mut start = Some(0);
        while let Some(from) = start {
            let part = self.gather(from, 64, 64, 0)?;
            all.extend(
                part.pages_with_content()
                    .map(|(pgoff, content)| (pgoff, content.to_vec())),
            );
            start = part.next;
        }
        Ok(all)
    }

    /// The pages that it still holds.
    pub fn held(&self) -> Result<Vec<u64>, Errno> {
        let mut held = Vec::new();
        let mut start = Some(0);
        while let Some(from) = start {
            let part = self.gather(from, 64, 0, 0)?;
            held.extend(part.page_offsets());
            start = part.next;
        }
        Ok(held)
    }

    /// CKPT_IOC_THAW.
    pub fn thaw(&self, pgoff: u64, pages: u64) -> Result<(), Errno> {
        let mut thaw = abi::ckpt_thaw {
            size: size_of::<abi::ckpt_thaw>() as u32,
            pgoff,
            pages,
            ..abi::ckpt_thaw::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_THAW, &mut thaw)
    }
}

impl AsFd for Snapshot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A commit with a snapshot of what changed after `since`, of which `reserve` pages may be
/// copied aside; zero for all.
pub fn commit_with_snapshot(
    arena: &Arena,
    since: u64,
    reserve: u64,
) -> Result<(Snapshot, abi::ckpt_commit), Errno> {
    commit_with(arena, snapshot_request(since, reserve))
}

/// A commit with a snapshot, as the structure says.
pub fn commit_with(
    arena: &Arena,
    mut commit: abi::ckpt_commit,
) -> Result<(Snapshot, abi::ckpt_commit), Errno> {
    ioctl::call(arena, abi::CKPT_IOC_COMMIT, &mut commit)?;
    // SAFETY: a successful call with this flag returns a new descriptor, which is ours.
    let fd = unsafe { OwnedFd::from_raw_fd(commit.snapshot_fd) };
    Ok((Snapshot::new(fd), commit))
}

/// A COMMIT argument with a snapshot that the header calls valid.
pub fn snapshot_request(since: u64, reserve: u64) -> abi::ckpt_commit {
    abi::ckpt_commit {
        flags: abi::CKPT_COMMIT_SNAPSHOT,
        since,
        reserve_pages: reserve,
        ..commit_request()
    }
}

/// A SNAPSHOT argument that the header calls valid.
pub fn info_request() -> abi::ckpt_snapshot {
    abi::ckpt_snapshot {
        size: size_of::<abi::ckpt_snapshot>() as u32,
        ..abi::ckpt_snapshot::ZERO
    }
}

/// A GATHER argument from the first page on, for all of `ranges` and of `buffer`; of an
/// empty buffer for ranges alone.
pub fn gather_request(ranges: &mut [abi::ckpt_range], buffer: &mut [u8]) -> abi::ckpt_gather {
    let address = match buffer.is_empty() {
        true => 0,
        false => buffer.as_mut_ptr().expose_provenance() as u64,
    };
    abi::ckpt_gather {
        size: size_of::<abi::ckpt_gather>() as u32,
        ranges: ranges.as_mut_ptr().expose_provenance() as u64,
        buffer: address,
        capacity: ranges.len() as u32,
        buffer_pages: (buffer.len() / PAGE) as u32,
        ..abi::ckpt_gather::ZERO
    }
}

/// Skips the test where the module makes no snapshots.
pub fn need_snapshots() -> Outcome {
    match are_there()? {
        true => Ok(()),
        false => Err(Failure::skip("the module makes no snapshots")),
    }
}

/// Whether the module makes snapshots.
pub fn are_there() -> Result<bool, Failure> {
    let arena = Device::open()?.create("has it snapshots", 1)?;
    match commit_with_snapshot(&arena, 0, 0) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
