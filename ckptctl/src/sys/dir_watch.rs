// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A descriptor that is readable when something in a directory changes.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::AddWatchFlags;
use nix::sys::inotify::InitFlags;
use nix::sys::inotify::Inotify;

use super::gate::Call;
use super::gate::call;

/// A directory whose files are watched: what is written to them, and which there are.
#[derive(Debug)]
pub struct DirWatch(Inotify);

impl DirWatch {
    /// Watches a directory that is there.
    pub fn new(dir: &Path) -> io::Result<DirWatch> {
        call(Call::Watch, || {
            let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let changes = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_ONLYDIR;
            watch.add_watch(dir, changes)?;
            Ok(DirWatch(watch))
        })
    }

    /// Makes it unreadable until the next change.
    pub fn clear(&self) -> io::Result<()> {
        loop {
            match self.0.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for DirWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::sys::consumers::wait_readable;

    fn is_readable(watch: &DirWatch) -> bool {
        wait_readable([watch.as_fd()], Duration::ZERO).unwrap() == [true]
    }

    #[test]
    fn it_is_readable_from_a_change_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let watch = DirWatch::new(dir.path()).unwrap();
        assert!(!is_readable(&watch));
        let mut file = fs::File::create(dir.path().join("one")).unwrap();
        assert!(is_readable(&watch));
        watch.clear().unwrap();
        assert!(!is_readable(&watch));
        file.write_all(b"more").unwrap();
        assert!(is_readable(&watch));
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_watched() {
        let dir = tempfile::tempdir().unwrap();
        let error = DirWatch::new(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
