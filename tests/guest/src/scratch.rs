// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files on a real disk, for O_DIRECT.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use crate::device::PAGE;
use crate::failure::Failure;

/// A file opened with O_DIRECT; removed when dropped.
pub struct DirectFile {
    file: File,
    path: PathBuf,
}

impl DirectFile {
    /// A file of these bytes, whole pages, in a directory on a disk. The test
    /// is skipped where there is no such directory, or O_DIRECT does not work.
    pub fn create(directory: &Path, name: &str, content: &[u8]) -> Result<Self, Failure> {
        assert!(content.len() % PAGE == 0, "whole pages");
        let shown = directory.display();
        if !is_mount_point(directory) {
            return Err(Failure::skip(format!("no disk is mounted on {shown}")));
        }
        let path = directory.join(format!("{name}-{}", std::process::id()));
        let mut file = File::create(&path)?;
        file.write_all(content)?;
        // Else the blocks may not be allocated yet, and O_DIRECT would read through the cache.
        file.sync_all()?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(Failure::skip(format!("O_DIRECT on {shown}: {error}")))
            }
        }
    }
}

impl AsFd for DirectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_mount_point(directory: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mounts") else {
        return false;
    };
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|mounted| Path::new(mounted) == directory)
}
