// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One writer per chain.

use std::path::Path;

use super::error::StoreError;
use crate::sys::file::File;
use crate::sys::file::LockedFile;

/// Name of the file that the writer holds locked.
pub(super) const LOCK_NAME: &str = "LOCK";

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
        let path = dir.join(LOCK_NAME);
        let file = File::create(&path).map_err(StoreError::io("open", &path))?;
        match file.lock().map_err(StoreError::io("lock", &path))? {
            Ok(locked) => {
                let pid = format!("{}\n", std::process::id());
                locked
                    .set_content(pid.as_bytes())
                    .map_err(StoreError::io("write", &path))?;
                Ok(WriterLock { _file: locked })
            }
            Err(file) => {
                let text = file.read_start(16).map_err(StoreError::io("read", &path))?;
                let pid = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                Err(StoreError::Locked {
                    dir: dir.to_owned(),
                    pid,
                    alive: pid.is_some_and(|pid: u32| Path::new(&format!("/proc/{pid}")).exists()),
                })
            }
        }
    }
}
