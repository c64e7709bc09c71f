// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An arena's descriptor, called as the header says it is to be called.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::abi;
use crate::device::PAGE;
use crate::ioctl;
use crate::mapping::Mapping;

/// A descriptor of an arena.
pub struct Arena {
    fd: OwnedFd,
    id: u64,
    len_bytes: u64,
}

/// All ranges of a delta, however many calls it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The cursor's next value.
    pub epoch: u64,
    /// First page and number of pages.
    pub ranges: Vec<(u64, u64)>,
}

impl Delta {
    /// Every page of the delta.
    pub fn pages(&self) -> Vec<u64> {
        self.ranges
            .iter()
            .flat_map(|(pgoff, pages)| *pgoff..pgoff + pages)
            .collect()
    }

    /// Whether the delta has that page.
    pub fn has(&self, pgoff: u64) -> bool {
        self.ranges
            .iter()
            .any(|(first, pages)| (*first..first + pages).contains(&pgoff))
    }
}

impl Arena {
    /// An arena that `fd` is a descriptor of.
    pub fn new(fd: OwnedFd, id: u64, len_bytes: u64) -> Self {
        Self { fd, id, len_bytes }
    }

    /// The id that CREATE gave.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The size in pages.
    pub fn len_pages(&self) -> u64 {
        self.len_bytes / PAGE as u64
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// CKPT_IOC_INFO.
    pub fn info(&self) -> Result<abi::ckpt_info, Errno> {
        let mut info = abi::ckpt_info {
            size: size_of::<abi::ckpt_info>() as u32,
            ..abi::ckpt_info::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_INFO, &mut info).map(|()| info)
    }

    /// CKPT_IOC_STATS.
    pub fn stats(&self) -> Result<abi::ckpt_stats, Errno> {
        let mut stats = abi::ckpt_stats {
            size: size_of::<abi::ckpt_stats>() as u32,
            ..abi::ckpt_stats::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_STATS, &mut stats).map(|()| stats)
    }

    /// CKPT_IOC_RESERVE: the pages charged.
    pub fn reserve(&self, pages: u64) -> Result<u64, Errno> {
        let mut reserve = abi::ckpt_reserve {
            size: size_of::<abi::ckpt_reserve>() as u32,
            pages,
            ..abi::ckpt_reserve::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_RESERVE, &mut reserve).map(|()| reserve.charged)
    }

    /// CKPT_IOC_COMMIT.
    pub fn commit(&self) -> Result<abi::ckpt_commit, Errno> {
        let mut commit = commit_request();
        ioctl::call(self, abi::CKPT_IOC_COMMIT, &mut commit).map(|()| commit)
    }

    /// CKPT_IOC_COMMIT, of which nobody else is told.
    pub fn commit_quietly(&self) -> Result<abi::ckpt_commit, Errno> {
        let mut commit = commit_request();
        commit.flags = abi::CKPT_COMMIT_QUIET;
        ioctl::call(self, abi::CKPT_IOC_COMMIT, &mut commit).map(|()| commit)
    }

    /// CKPT_IOC_KEEP.
    pub fn keep(&self) -> Result<(), Errno> {
        let mut keep = abi::ckpt_keep {
            size: size_of::<abi::ckpt_keep>() as u32,
            ..abi::ckpt_keep::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_KEEP, &mut keep)
    }

    /// CKPT_IOC_TAKEOVER.
    pub fn take_over(&self) -> Result<(), Errno> {
        let mut takeover = abi::ckpt_takeover {
            size: size_of::<abi::ckpt_takeover>() as u32,
            ..abi::ckpt_takeover::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_TAKEOVER, &mut takeover)
    }

    /// CKPT_IOC_DELTA, one call: the ranges and the structure as it came back.
    pub fn delta_from(
        &self,
        since: u64,
        start_pgoff: u64,
        capacity: usize,
    ) -> Result<(Vec<abi::ckpt_range>, abi::ckpt_delta), Errno> {
        let mut ranges = vec![abi::ckpt_range::ZERO; capacity];
        let mut delta = delta_request(since, &mut ranges);
        delta.start_pgoff = start_pgoff;
        ioctl::call(self, abi::CKPT_IOC_DELTA, &mut delta)?;
        ranges.truncate(delta.count as usize);
        Ok((ranges, delta))
    }

    /// The whole delta, in calls with room for `capacity` ranges each.
    pub fn delta_in_steps(&self, since: u64, capacity: usize) -> Result<Delta, Errno> {
        let mut whole = Delta {
            epoch: 0,
            ranges: Vec::new(),
        };
        let mut start_pgoff = 0;
        loop {
            let (ranges, delta) = self.delta_from(since, start_pgoff, capacity)?;
            if start_pgoff == 0 {
                whole.epoch = delta.epoch;
            }
            whole
                .ranges
                .extend(ranges.iter().map(|range| (range.pgoff, range.pages)));
            if delta.more == 0 {
                return Ok(whole);
            }
            start_pgoff = delta.start_pgoff;
        }
    }

    /// The whole delta.
    pub fn delta(&self, since: u64) -> Result<Delta, Errno> {
        self.delta_in_steps(since, 256)
    }

    /// Maps `pages` pages from `pgoff` on, readable and writable, at any address.
    pub fn map(&self, pgoff: u64, pages: u64) -> Result<Mapping, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::new(self, pgoff, pages, protection, libc::MAP_SHARED)
    }

    /// Maps the whole arena, readable and writable.
    pub fn map_all(&self) -> Result<Mapping, Errno> {
        self.map(0, self.len_pages())
    }

    /// pread() of `len` bytes; what came.
    pub fn pread(&self, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0xee; len];
        let read = self.pread_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// pread() into a buffer; the bytes read.
    pub fn pread_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the buffer is ours and as long as said.
        let read = unsafe {
            libc::pread(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                offset as i64,
            )
        };
        Errno::result(read).map(|read| read as usize)
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A COMMIT argument that the header calls valid.
pub fn commit_request() -> abi::ckpt_commit {
    abi::ckpt_commit {
        size: size_of::<abi::ckpt_commit>() as u32,
        ..abi::ckpt_commit::ZERO
    }
}

/// A DELTA argument from the first page on, for all of `ranges`.
pub fn delta_request(since: u64, ranges: &mut [abi::ckpt_range]) -> abi::ckpt_delta {
    abi::ckpt_delta {
        size: size_of::<abi::ckpt_delta>() as u32,
        since,
        ranges: ranges.as_mut_ptr().expose_provenance() as u64,
        capacity: ranges.len() as u32,
        ..abi::ckpt_delta::ZERO
    }
}
