// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands of `/dev/ckpt`, of arenas and of snapshots, as `include/uapi/ckpt.h` has them.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use super::abi;
use super::gate::Call;
use super::gate::call;

/// Where the device is.
pub const PATH: &CStr = abi::CKPT_DEVICE_PATH;

/// A structure that a command takes. `size` stands in front of it.
///
/// # Safety
///
/// `repr(C)`, without padding, of integers and arrays of them, as the kernel has it, and
/// `COMMAND` takes it.
pub(super) unsafe trait Argument: Copy {
    const COMMAND: u32;
}

macro_rules! arguments {
    ($($name:ident: $command:ident,)*) => {$(
        // SAFETY: Made by bindgen from the header that defines command and structure.
        unsafe impl Argument for abi::$name {
            const COMMAND: u32 = abi::$command;
        }
    )*};
}

arguments! {
    ckpt_version: CKPT_IOC_VERSION,
    ckpt_create: CKPT_IOC_CREATE,
    ckpt_open: CKPT_IOC_OPEN,
    ckpt_list: CKPT_IOC_LIST,
    ckpt_info: CKPT_IOC_INFO,
    ckpt_reserve: CKPT_IOC_RESERVE,
    ckpt_commit: CKPT_IOC_COMMIT,
    ckpt_delta: CKPT_IOC_DELTA,
    ckpt_stats: CKPT_IOC_STATS,
    ckpt_request: CKPT_IOC_REQUEST,
    ckpt_acknowledge: CKPT_IOC_ACKNOWLEDGE,
    ckpt_wait: CKPT_IOC_WAIT,
    ckpt_subscribe: CKPT_IOC_SUBSCRIBE,
    ckpt_keep: CKPT_IOC_KEEP,
    ckpt_takeover: CKPT_IOC_TAKEOVER,
    ckpt_snapshot: CKPT_IOC_SNAPSHOT,
    ckpt_gather: CKPT_IOC_GATHER,
    ckpt_thaw: CKPT_IOC_THAW,
}

/// A zeroed argument that knows its size.
pub(super) fn argument<T: Argument>() -> T {
    // SAFETY: `Argument` types are integers and arrays, for which zero bytes are valid, and
    // begin with their size as a `u32`.
    unsafe {
        let mut value: T = std::mem::zeroed();
        (&raw mut value).cast::<u32>().write(size_of::<T>() as u32);
        value
    }
}

pub(super) fn command<T: Argument>(fd: BorrowedFd<'_>, value: &mut T) -> io::Result<()> {
    call(Call::Ioctl(T::COMMAND), || {
        loop {
            // SAFETY: The command takes a `T`, which is valid for reading and writing. What
            // it points to, in the commands that have pointers, is their callers'.
            let status =
                unsafe { nix::libc::ioctl(fd.as_raw_fd(), T::COMMAND.into(), &raw mut *value) };
            if status >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    })
}

/// The device, open.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device {
    /// Opens `/dev/ckpt`.
    pub fn open() -> io::Result<Device> {
        let path = PATH.to_str().map_err(io::Error::other)?;
        call(Call::OpenDevice, || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            Ok(Device(file.into()))
        })
    }

    /// What the module is.
    pub fn version(&self) -> io::Result<abi::ckpt_version> {
        let mut version = argument::<abi::ckpt_version>();
        command(self.0.as_fd(), &mut version)?;
        Ok(version)
    }

    /// Makes an arena whose next commit is `epoch` + 1.
    pub fn create(&self, name: &str, len_bytes: u64, epoch: u64) -> io::Result<ArenaFd> {
        let mut create = argument::<abi::ckpt_create>();
        create.len_bytes = len_bytes;
        create.epoch = epoch;
        let room = create.name.len() - 1;
        for (to, from) in create.name[..room].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        command(self.0.as_fd(), &mut create)?;
        // SAFETY: The descriptor is new and ours.
        Ok(ArenaFd(unsafe { OwnedFd::from_raw_fd(create.fd) }))
    }

    /// The arenas that this process could open, by ascending id.
    pub fn list(&self) -> io::Result<Vec<abi::ckpt_info>> {
        let mut all = Vec::new();
        let mut list = argument::<abi::ckpt_list>();
        loop {
            let mut page = [argument::<abi::ckpt_info>(); 32];
            list.entries = page.as_mut_ptr() as u64;
            list.entry_size = size_of::<abi::ckpt_info>() as u32;
            list.capacity = page.len() as u32;
            command(self.0.as_fd(), &mut list)?;
            all.extend_from_slice(&page[..list.count as usize]);
            if list.more == 0 {
                return Ok(all);
            }
        }
    }
}

/// A descriptor of an arena.
#[derive(Debug)]
pub struct ArenaFd(OwnedFd);

impl AsFd for ArenaFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ArenaFd {
    /// A descriptor that the module has given.
    pub(super) fn new(fd: OwnedFd) -> ArenaFd {
        ArenaFd(fd)
    }

    /// A descriptor that came from another process, if it is one of an arena.
    pub fn inherited(fd: OwnedFd) -> io::Result<ArenaFd> {
        let arena = ArenaFd(fd);
        arena.info()?;
        Ok(arena)
    }

    /// Another descriptor of the same.
    pub fn try_clone(&self) -> io::Result<ArenaFd> {
        self.0.try_clone().map(ArenaFd)
    }

    /// Charges RLIMIT_MEMLOCK so that `pages` pages in all can be touched.
    pub fn reserve(&self, pages: u64) -> io::Result<()> {
        let mut reserve = argument::<abi::ckpt_reserve>();
        reserve.pages = pages;
        command(self.as_fd(), &mut reserve)
    }

    /// Closes an epoch.
    pub fn commit(&self) -> io::Result<abi::ckpt_commit> {
        let mut commit = argument::<abi::ckpt_commit>();
        command(self.as_fd(), &mut commit)?;
        Ok(commit)
    }

    /// Closes an epoch of which nobody else is told.
    pub fn commit_quietly(&self) -> io::Result<abi::ckpt_commit> {
        let mut commit = argument::<abi::ckpt_commit>();
        commit.flags = abi::CKPT_COMMIT_QUIET;
        command(self.as_fd(), &mut commit)?;
        Ok(commit)
    }

    /// Closes an epoch, with a snapshot of the pages stamped after `since`, of which
    /// `reserve_pages` at most, 0 for all, may be copied aside.
    pub fn commit_with_snapshot(
        &self,
        since: u64,
        reserve_pages: u64,
    ) -> io::Result<(abi::ckpt_commit, SnapshotFd)> {
        let mut commit = argument::<abi::ckpt_commit>();
        commit.flags = abi::CKPT_COMMIT_SNAPSHOT;
        commit.since = since;
        commit.reserve_pages = reserve_pages;
        command(self.as_fd(), &mut commit)?;
        // SAFETY: The descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(commit.snapshot_fd) };
        Ok((commit, SnapshotFd(fd)))
    }

    /// Calls `each` with the runs of pages stamped after `since`: first page, number.
    pub fn delta(&self, since: u64, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
        let mut ranges = [const { MaybeUninit::<abi::ckpt_range>::uninit() }; 1024];
        let mut delta = argument::<abi::ckpt_delta>();
        delta.since = since;
        loop {
            delta.ranges = ranges.as_mut_ptr() as u64;
            delta.capacity = ranges.len() as u32;
            command(self.as_fd(), &mut delta)?;
            for range in filled(&ranges, delta.count) {
                each(range.pgoff, range.pages);
            }
            if delta.more == 0 {
                return Ok(());
            }
        }
    }

    /// What has happened to the arena so far.
    pub fn stats(&self) -> io::Result<abi::ckpt_stats> {
        let mut stats = argument::<abi::ckpt_stats>();
        command(self.as_fd(), &mut stats)?;
        Ok(stats)
    }
}

/// The ranges that the kernel has written.
fn filled(
    ranges: &[MaybeUninit<abi::ckpt_range>],
    count: u32,
) -> impl Iterator<Item = abi::ckpt_range> {
    // SAFETY: The kernel has written the first `count` of them, which is what a command says
    // that succeeded; were it more than there are, this would panic first.
    let filled = |range: &MaybeUninit<abi::ckpt_range>| unsafe { range.assume_init_read() };
    ranges[..count as usize].iter().map(filled)
}

/// A descriptor of a snapshot.
#[derive(Debug)]
pub struct SnapshotFd(OwnedFd);

impl AsFd for SnapshotFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl SnapshotFd {
    /// A descriptor that the module has given.
    pub(super) fn new(fd: OwnedFd) -> SnapshotFd {
        SnapshotFd(fd)
    }

    /// Hands over pages from `start` on, as many as fit: their content in `buffer`, which takes
    /// `1 << page_shift` bytes for each; calls `each` with their runs: first page, number. They
    /// are thawed. Returns where to go on, if there is more.
    pub fn gather(
        &self,
        start: u64,
        buffer: &mut [u8],
        page_shift: u32,
        each: impl FnMut(u64, u64),
    ) -> io::Result<Option<u64>> {
        self.hand_over(start, buffer, page_shift, abi::CKPT_GATHER_THAW, each)
    }

    /// As [`SnapshotFd::gather`], but the pages stay in the snapshot.
    pub fn peek(
        &self,
        start: u64,
        buffer: &mut [u8],
        page_shift: u32,
        each: impl FnMut(u64, u64),
    ) -> io::Result<Option<u64>> {
        self.hand_over(start, buffer, page_shift, 0, each)
    }

    fn hand_over(
        &self,
        start: u64,
        buffer: &mut [u8],
        page_shift: u32,
        flags: u32,
        mut each: impl FnMut(u64, u64),
    ) -> io::Result<Option<u64>> {
        let mut ranges = [const { MaybeUninit::<abi::ckpt_range>::uninit() }; 256];
        let mut gather = argument::<abi::ckpt_gather>();
        gather.flags = flags;
        gather.start_pgoff = start;
        gather.ranges = ranges.as_mut_ptr() as u64;
        gather.capacity = ranges.len() as u32;
        gather.buffer = buffer.as_mut_ptr() as u64;
        gather.buffer_pages = u32::try_from(buffer.len() >> page_shift).unwrap_or(u32::MAX);
        command(self.as_fd(), &mut gather)?;
        for range in filled(&ranges, gather.count) {
            each(range.pgoff, range.pages);
        }
        Ok((gather.more != 0).then_some(gather.start_pgoff))
    }

    /// Thaws everything that is left.
    pub fn thaw(&self) -> io::Result<()> {
        let mut thaw = argument::<abi::ckpt_thaw>();
        // More pages than any arena has.
        thaw.pages = abi::CKPT_ARENA_MAX_BYTES;
        command(self.as_fd(), &mut thaw)
    }
}

/// Text of a field that is NUL-terminated.
pub fn text(field: &[u8]) -> String {
    let bytes = field.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
