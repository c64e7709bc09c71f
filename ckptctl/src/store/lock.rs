// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One writer per chain, one compactor, and what the two must not do at the same time.

use std::io;
use std::path::Path;

use super::error::StoreError;
use crate::sys::file;
use crate::sys::file::File;
use crate::sys::file::LockedDir;
use crate::sys::file::LockedFile;

/// Name of the file that the writer holds locked.
pub(super) const LOCK_NAME: &str = "LOCK";
/// Name of the file that whoever compacts holds locked.
pub(super) const COMPACT_NAME: &str = "COMPACT";

/// The right to write to a chain, given up when dropped or when the process ends.
///
/// The lock is tied to the open file, so it is also held by children that were
/// forked while it was open, until they end or execute another program.
#[derive(Debug)]
pub(super) struct WriterLock {
    _file: LockedFile,
}

impl WriterLock {
    /// Takes the lock of the chain in `dir`, or names who has it.
    pub(super) fn take(dir: &Path) -> Result<WriterLock, StoreError> {
        match take(dir, LOCK_NAME)? {
            Ok(file) => Ok(WriterLock { _file: file }),
            Err(pid) => Err(StoreError::Locked {
                dir: dir.to_owned(),
                pid,
                alive: pid.is_some_and(is_alive),
            }),
        }
    }
}

impl WriterLock {
    /// Whether somebody has it right now.
    pub(super) fn is_held(dir: &Path) -> Result<bool, StoreError> {
        let path = dir.join(LOCK_NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(StoreError::io("open", &path))?,
        };
        Ok(file.lock().map_err(StoreError::io("lock", &path))?.is_err())
    }
}

/// The right to compact a chain; like [`WriterLock`].
#[derive(Debug)]
pub(super) struct CompactLock {
    _file: LockedFile,
}

impl CompactLock {
    /// Takes the lock of the chain in `dir`, or names who has it.
    pub(super) fn take(dir: &Path) -> Result<CompactLock, StoreError> {
        match take(dir, COMPACT_NAME)? {
            Ok(file) => Ok(CompactLock { _file: file }),
            Err(pid) => Err(StoreError::Compacting {
                dir: dir.to_owned(),
                pid: pid.filter(|&pid| is_alive(pid)),
            }),
        }
    }
}

/// Held by a compactor while it looks for epochs that records in the last segments build on and
/// puts its base in place, and by a writer while it appends a record that builds on anything but
/// the newest one. So no record is appended to a parent that is being dropped.
#[derive(Debug)]
pub(super) struct ParentsLock {
    _dir: LockedDir,
}

impl ParentsLock {
    /// Waits for it: for as long as the other needs to append a record, or to read the headers.
    pub(super) fn wait(dir: &Path) -> Result<ParentsLock, StoreError> {
        let locked = file::lock_dir(dir).map_err(StoreError::io("lock", dir))?;
        Ok(ParentsLock { _dir: locked })
    }
}

/// Locks a file and writes our pid into it, or tells whose pid is in it.
fn take(dir: &Path, name: &str) -> Result<Result<LockedFile, Option<u32>>, StoreError> {
    let path = dir.join(name);
    let file = File::create(&path).map_err(StoreError::io("open", &path))?;
    match file.lock().map_err(StoreError::io("lock", &path))? {
        Ok(locked) => {
            let pid = format!("{}\n", std::process::id());
            locked
                .set_content(pid.as_bytes())
                .map_err(StoreError::io("write", &path))?;
            Ok(Ok(locked))
        }
        Err(file) => {
            let text = file.read_start(16).map_err(StoreError::io("read", &path))?;
            let pid = std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            Ok(Err(pid))
        }
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
