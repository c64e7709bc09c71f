// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk read that is under way for as long as a test wants.
//!
//! The io controller holds back the reads of a control group. A read that is
//! submitted there has pinned its pages and waits in the block layer until the
//! limit is lifted. Nothing depends on time, as long as the test is faster than
//! the limit; that it was is checked.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::scratch::DirectFile;

// A page takes 40 seconds.
const BYTES_PER_SECOND: u64 = 100;

// struct iocb of linux/aio_abi.h, for a read.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

// struct io_event of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// An asynchronous O_DIRECT read under way.
pub struct SlowRead {
    context: libc::c_ulong,
    device: String,
    cgroup: Cgroup,
    bytes: usize,
    done: bool,
}

impl SlowRead {
    /// Submits a read of the file's first bytes to an address. Skips the test
    /// where the disk cannot be held back.
    pub fn start(file: &DirectFile, address: usize, bytes: usize) -> Result<Self, Failure> {
        let fd = file.as_fd().as_raw_fd();
        let stat = nix::sys::stat::fstat(file)?;
        let device = format!(
            "{}:{}",
            nix::sys::stat::major(stat.st_dev),
            nix::sys::stat::minor(stat.st_dev)
        );
        let cgroup = Cgroup::create("slow-disk", &["io"])?;
        cgroup.enter()?;
        // Once without a limit, so that no block of the file system itself has to be read later.
        // As a member of the group: 7.3 gives a group that has not used the disk its place there
        // when a limit is set, and allocates memory in a way that its lock validator objects to.
        let warm = crate::mapping::Mapping::anonymous(PAGE)?;
        // SAFETY: the target is ours and as long as said.
        let read = unsafe {
            libc::pread(
                fd,
                std::ptr::with_exposed_provenance_mut(warm.address()),
                PAGE,
                0,
            )
        };
        Errno::result(read)?;
        if let Err(error) = cgroup.set("io.max", &format!("{device} rbps={BYTES_PER_SECOND}")) {
            cgroup.leave()?;
            return Err(Failure::skip(format!(
                "disk {device} cannot be held back: {error}"
            )));
        }
        let mut context: libc::c_ulong = 0;
        // SAFETY: the context is ours to be written to.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
        let slow = Self {
            context,
            device,
            cgroup,
            bytes,
            done: false,
        };
        let block = ControlBlock {
            fd: fd as u32,
            buffer: address as u64,
            bytes: bytes as u64,
            ..ControlBlock::default()
        };
        let blocks = [&raw const block];
        // SAFETY: the block is laid out as the kernel wants it, and read during the call only;
        // the caller keeps the target mapped or gives it up.
        let submitted = unsafe { libc::syscall(libc::SYS_io_submit, context, 1, blocks.as_ptr()) };
        crate::ensure_eq!(Errno::result(submitted)?, 1, "reads submitted");
        Ok(slow)
    }

    /// Fails when the read is done already.
    pub fn ensure_under_way(&self) -> Outcome {
        match self.events(0)? {
            None => Ok(()),
            Some(result) => Err(Failure::new(format!(
                "the read was not held back: it is done, with result {result}"
            ))),
        }
    }

    /// Lets the disk go and waits for the read to end.
    pub fn finish(&mut self) -> Outcome {
        self.let_go()?;
        let result = self.events(1)?;
        self.done = true;
        crate::ensure_eq!(result, Some(self.bytes as i64), "result of the read");
        self.cgroup.leave()
    }

    fn let_go(&self) -> Result<(), std::io::Error> {
        self.cgroup
            .set("io.max", &format!("{} rbps=max", self.device))
    }

    // The result of the read; waits for it when `least` is 1.
    fn events(&self, least: i64) -> Result<Option<i64>, Errno> {
        let mut event = Event::default();
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = if least == 0 {
            &raw const now
        } else {
            std::ptr::null()
        };
        // SAFETY: there is room for the one event that is asked for.
        let count = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                least,
                1_i64,
                &raw mut event,
                timeout,
            )
        };
        Ok((Errno::result(count)? == 1).then_some(event.result))
    }
}

impl Drop for SlowRead {
    fn drop(&mut self) {
        if !self.done {
            // Else the process could not end before the read does.
            let _ = self.let_go();
            let _ = self.cgroup.leave();
        }
        // SAFETY: waits for the read, and gives the context up.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
