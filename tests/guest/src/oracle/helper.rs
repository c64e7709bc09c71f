// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A second process on the same arena, which writes on command and is written to.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::uio::RemoteIoVec;
use nix::sys::uio::process_vm_writev;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nix::unistd::getpid;

use super::geometry::Geometry;
use crate::arena::Arena;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::process::Link;
use crate::process::Peer;

const WRITE: u8 = b'w';
const REMAP: u8 = b'm';
const DONT_NEED: u8 = b'd';
const VM_WRITE: u8 = b'v';
const HEADER: usize = 17;

/// The process, seen from the one that commands it.
pub struct Helper {
    peer: Peer,
    memory: File,
    addresses: Vec<usize>,
    windows: Vec<usize>,
}

impl Helper {
    /// Starts it; it maps every window of the geometry.
    pub fn start(arena: &Arena, geometry: &Geometry) -> Result<Self, Failure> {
        let commander = getpid();
        let peer = Peer::start(|link| serve(&link, arena, geometry, commander))?;
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/mem", peer.pid()))?;
        ptrace::seize(peer.pid(), ptrace::Options::PTRACE_O_EXITKILL)?;
        let windows: Vec<_> = geometry
            .windows()
            .iter()
            .map(|window| window.pages)
            .collect();
        let mut helper = Self {
            peer,
            memory,
            addresses: vec![0; windows.len()],
            windows,
        };
        for window in 0..helper.windows.len() {
            helper.remap(window)?;
        }
        Ok(helper)
    }

    /// Maps a window anew, wherever there is room.
    pub fn remap(&mut self, window: usize) -> Outcome {
        let address = self.command(REMAP, window as u64, 0, &[])?;
        self.addresses[window] = address as usize;
        Ok(())
    }

    /// Gives MADV_DONTNEED for a window.
    pub fn dont_need(&self, window: usize) -> Outcome {
        self.command(DONT_NEED, window as u64, 0, &[]).map(drop)
    }

    /// Lets it store bytes through its mapping.
    pub fn write(&self, window: usize, offset: usize, data: &[u8]) -> Outcome {
        self.command(WRITE, window as u64, offset as u64, data)
            .map(drop)
    }

    /// Lets it write into this process; the errno when it is refused.
    pub fn vm_write(&self, address: usize, data: &[u8]) -> Result<Result<(), Errno>, Failure> {
        match self.command(VM_WRITE, address as u64, 0, data)? {
            0 => Ok(Ok(())),
            errno => Ok(Err(Errno::from_raw(errno as i32))),
        }
    }

    /// Writes into its mapping with process_vm_writev.
    pub fn vm_write_into(&self, window: usize, offset: usize, data: &[u8]) -> Outcome {
        let remote = RemoteIoVec {
            base: self.at(window, offset),
            len: data.len(),
        };
        let written = process_vm_writev(self.peer.pid(), &[IoSlice::new(data)], &[remote])?;
        crate::ensure_eq!(written, data.len(), "bytes written by process_vm_writev");
        Ok(())
    }

    /// Writes into its mapping through its file in /proc.
    pub fn proc_mem_write(&self, window: usize, offset: usize, data: &[u8]) -> Outcome {
        let written = self.memory.write_at(data, self.at(window, offset) as u64)?;
        crate::ensure_eq!(written, data.len(), "bytes written to /proc/PID/mem");
        Ok(())
    }

    /// Writes a word into its mapping as a debugger does.
    pub fn poke(&self, window: usize, offset: usize, word: i64) -> Outcome {
        let pid = self.peer.pid();
        ptrace::interrupt(pid)?;
        let stopped = waitpid(pid, Some(WaitPidFlag::__WALL))?;
        crate::ensure!(
            matches!(
                stopped,
                WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)
            ),
            "the helper did not stop: {stopped:?}"
        );
        let address = std::ptr::with_exposed_provenance_mut(self.at(window, offset));
        // It goes on whatever became of that.
        let written = ptrace::write(pid, address, word);
        ptrace::cont(pid, None)?;
        Ok(written?)
    }

    /// Ends it and takes over what it has to say.
    pub fn finish(self) -> Outcome {
        ptrace::interrupt(self.peer.pid())?;
        waitpid(self.peer.pid(), Some(WaitPidFlag::__WALL))?;
        ptrace::detach(self.peer.pid(), None)?;
        self.peer.finish()
    }

    fn at(&self, window: usize, offset: usize) -> usize {
        assert!(offset < self.windows[window] * PAGE, "offset {offset}");
        self.addresses[window] + offset
    }

    fn command(&self, what: u8, first: u64, second: u64, data: &[u8]) -> Result<u64, Failure> {
        let mut message = vec![what];
        message.extend_from_slice(&first.to_ne_bytes());
        message.extend_from_slice(&second.to_ne_bytes());
        message.extend_from_slice(data);
        self.peer.link.send(&message, &[])?;
        self.peer.link.receive_number()
    }
}

// What the helper process does until its commander is gone.
fn serve(link: &Link, arena: &Arena, geometry: &Geometry, commander: Pid) -> Outcome {
    let mut windows: Vec<Option<Mapping>> = geometry.windows().iter().map(|_| None).collect();
    while let Ok(message) = link.receive() {
        let bytes = &message.bytes;
        let number = |at: usize| -> Result<u64, Failure> {
            Ok(u64::from_ne_bytes(bytes[at..at + 8].try_into()?))
        };
        let (first, second, data) = (number(1)?, number(9)?, &bytes[HEADER..]);
        let answer = match bytes[0] {
            WRITE => {
                mapped(&windows, first)?.write(second as usize, data);
                0
            }
            REMAP => {
                let window = &geometry.windows()[first as usize];
                let slot = &mut windows[first as usize];
                *slot = None;
                let mapping = arena.map(window.pgoff, window.pages as u64)?;
                slot.insert(mapping).address() as u64
            }
            DONT_NEED => {
                let mapping = mapped(&windows, first)?;
                mapping.advise(0, mapping.len() / PAGE, libc::MADV_DONTNEED)?;
                0
            }
            VM_WRITE => {
                let remote = RemoteIoVec {
                    base: first as usize,
                    len: data.len(),
                };
                match process_vm_writev(commander, &[IoSlice::new(data)], &[remote]) {
                    Ok(written) => {
                        crate::ensure_eq!(written, data.len(), "bytes written");
                        0
                    }
                    Err(errno) => errno as u64,
                }
            }
            other => return Err(Failure::new(format!("no command {other}"))),
        };
        link.send_number(answer)?;
    }
    Ok(())
}

fn mapped(windows: &[Option<Mapping>], window: u64) -> Result<&Mapping, Failure> {
    windows[window as usize]
        .as_ref()
        .ok_or_else(|| Failure::new(format!("window {window} is not mapped")))
}
