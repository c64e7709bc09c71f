// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file-system calls of the chain.
//!
//! Every one of them goes through [`gate`], which under test asks a fake
//! what shall become of it. So a test can make any call fail, cut any read or write
//! short, or keep a log of what would be on the disk after a power failure.
//!
//! A call that a signal interrupted is made again when making it twice does no harm. A change of
//! names is not: when it was done in spite of what it says, the second one fails.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::libc;

/// A call, as the fake sees it.
#[derive(Debug)]
pub enum FileCall<'a> {
    /// `mkdir(2)`.
    MakeDir(&'a Path),
    /// `opendir(3)` and what follows.
    ListDir(&'a Path),
    /// `fsync(2)` of a directory.
    SyncDir(&'a Path),
    /// `open(2)` for reading.
    Open(&'a Path),
    /// `open(2)` for reading and writing, made if it is not there.
    Create(&'a Path),
    /// `fstat(2)`.
    Len(&'a Path),
    /// `pread(2)`: file, offset, length.
    Read(&'a Path, u64, usize),
    /// `pwrite(2)`: file, offset, content.
    Write(&'a Path, u64, &'a [u8]),
    /// `fdatasync(2)`.
    SyncData(&'a Path),
    /// `sync_file_range(2)` that only starts: file, offset, length.
    StartWriting(&'a Path, u64, u64),
    /// `ftruncate(2)`.
    Truncate(&'a Path, u64),
    /// `flock(2)`, exclusive and without waiting.
    Lock(&'a Path),
    /// `flock(2)` of a directory, exclusive; waits.
    LockDir(&'a Path),
    /// `rename(2)`.
    Rename(&'a Path, &'a Path),
    /// `unlink(2)`.
    Unlink(&'a Path),
    /// `rmdir(2)`.
    RemoveDir(&'a Path),
}

/// What the fake makes of a read or a write: only so many bytes of it, and then this error, if any.
type Part = (usize, Option<io::Error>);

#[cfg(not(test))]
fn gate(_what: &FileCall<'_>) -> io::Result<Option<Part>> {
    Ok(None)
}

#[cfg(test)]
use fake::gate;

/// Makes a call, unless the fake has something against it.
fn call_once<T>(what: &FileCall<'_>, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match gate(what)? {
        Some((_, Some(error))) => Err(error),
        _ => real(),
    }
}

/// Makes a call, again if a signal interrupted it. Only for calls that can be made twice.
fn call<T>(what: &FileCall<'_>, mut real: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call_once(what, &mut real) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Makes a read or a write of up to `len` bytes, or of the part of it that the fake allows;
/// again if a signal interrupted it. Returns how many bytes were read or written.
fn call_up_to(
    what: &FileCall<'_>,
    len: usize,
    mut real: impl FnMut(usize) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let done = match gate(what) {
            Ok(None) => real(len),
            Ok(Some((part, error))) => {
                let done = real(part.min(len));
                error.map_or(done, Err)
            }
            Err(error) => Err(error),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Writes all of `bytes`, in as many calls as the system wants.
fn write_all(file: &fs::File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let (rest, at) = (&bytes[done..], offset + done as u64);
        let what = FileCall::Write(path, at, rest);
        match call_up_to(&what, rest.len(), |len| file.write_at(&rest[..len], at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => done += written,
        }
    }
    Ok(())
}

/// An open file that knows its name.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
}

impl File {
    /// Opens an existing file for reading.
    pub fn open(path: &Path) -> io::Result<File> {
        call(&FileCall::Open(path), || {
            let file = fs::File::open(path)?;
            Ok(File {
                file,
                path: path.to_owned(),
            })
        })
    }

    /// Opens a file for reading and writing; one that is not there is made,
    /// for its owner's eyes only.
    pub fn create(path: &Path) -> io::Result<File> {
        call(&FileCall::Create(path), || {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            Ok(File {
                file,
                path: path.to_owned(),
            })
        })
    }

    /// The same file, under the name that it was given since.
    pub fn renamed(self, path: PathBuf) -> File {
        File { path, ..self }
    }

    /// The name under which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> io::Result<u64> {
        call(&FileCall::Len(&self.path), || {
            Ok(self.file.metadata()?.len())
        })
    }

    /// Fills `bytes` from `offset`; `UnexpectedEof` when the file ends before.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (rest, at) = (&mut bytes[done..], offset + done as u64);
            let what = FileCall::Read(&self.path, at, rest.len());
            match call_up_to(&what, rest.len(), |len| {
                self.file.read_at(&mut rest[..len], at)
            })? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`. When it fails, any part may be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all(&self.file, &self.path, bytes, offset)
    }

    /// Has the system begin to write what was written here, without waiting for it. A hint:
    /// nothing is known about it afterwards.
    pub fn start_writing(&self, offset: u64, len: u64) {
        let what = FileCall::StartWriting(&self.path, offset, len);
        let _ = call(&what, || {
            // SAFETY: The call has no pointers, and the descriptor is this file's.
            let result = unsafe {
                libc::sync_file_range(
                    self.file.as_raw_fd(),
                    offset as i64,
                    len as i64,
                    libc::SYNC_FILE_RANGE_WRITE,
                )
            };
            match result {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }

    /// Returns when content and length are on the disk.
    pub fn sync_data(&self) -> io::Result<()> {
        call(&FileCall::SyncData(&self.path), || self.file.sync_data())
    }

    /// Cuts the file, or extends it with zeros.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        call(&FileCall::Truncate(&self.path, len), || {
            self.file.set_len(len)
        })
    }

    /// Takes the exclusive lock without waiting; `Ok(Err(file))` gives the file
    /// back when somebody else has it.
    ///
    /// The lock goes with the open file description: closing the file or the
    /// end of the process releases it, but a forked child keeps it.
    pub fn lock(self) -> io::Result<Result<LockedFile, File>> {
        let File { file, path } = self;
        match flock(
            file,
            &FileCall::Lock(&path),
            FlockArg::LockExclusiveNonblock,
        ) {
            Ok(lock) => Ok(Ok(LockedFile { lock, path })),
            Err((file, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Err(File { file, path }))
            }
            Err((_, error)) => Err(error),
        }
    }

    /// The whole of a small file, at most `limit` bytes of it.
    pub fn read_start(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let what = FileCall::Read(&self.path, 0, limit);
        let length = call_up_to(&what, limit, |len| self.file.read_at(&mut bytes[..len], 0))?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// A file whose exclusive lock is held until this is dropped.
#[derive(Debug)]
pub struct LockedFile {
    lock: Flock<fs::File>,
    path: PathBuf,
}

impl LockedFile {
    /// Replaces the whole content.
    pub fn set_content(&self, bytes: &[u8]) -> io::Result<()> {
        call(&FileCall::Truncate(&self.path, 0), || self.lock.set_len(0))?;
        write_all(&self.lock, &self.path, bytes, 0)
    }
}

/// A directory whose exclusive lock is held until this is dropped.
#[derive(Debug)]
pub struct LockedDir {
    _lock: Flock<fs::File>,
}

/// Waits for the exclusive lock of a directory. It keeps nobody from its files, only others
/// that lock it.
pub fn lock_dir(path: &Path) -> io::Result<LockedDir> {
    let dir = fs::File::open(path)?;
    match flock(dir, &FileCall::LockDir(path), FlockArg::LockExclusive) {
        Ok(lock) => Ok(LockedDir { _lock: lock }),
        Err((_, error)) => Err(error),
    }
}

/// Locks a file, again if a signal interrupted that; gives it back when that cannot be.
fn flock(
    mut file: fs::File,
    what: &FileCall<'_>,
    how: FlockArg,
) -> Result<Flock<fs::File>, (fs::File, io::Error)> {
    loop {
        if let Err(error) = call(what, || Ok(())) {
            return Err((file, error));
        }
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, nix::Error::EINTR)) => file = again,
            Err((file, errno)) => return Err((file, errno.into())),
        }
    }
}

/// Makes a directory for its owner's eyes only; false when there is one.
pub fn make_dir(path: &Path) -> io::Result<bool> {
    call_once(&FileCall::MakeDir(path), || {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    })
}

/// The names in a directory, sorted.
pub fn list_dir(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    call(&FileCall::ListDir(path), || {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    })
}

/// Returns when the names in a directory are on the disk.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    call(&FileCall::SyncDir(path), || {
        fs::File::open(path)?.sync_all()
    })
}

/// Gives a file another name in the same file system, at once.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    call_once(&FileCall::Rename(from, to), || fs::rename(from, to))
}

/// Removes a file's name.
pub fn unlink(path: &Path) -> io::Result<()> {
    call_once(&FileCall::Unlink(path), || fs::remove_file(path))
}

/// Removes a directory that is empty.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    call_once(&FileCall::RemoveDir(path), || fs::remove_dir(path))
}

/// Lets a test decide what becomes of a call.
#[cfg(test)]
pub(crate) mod fake {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;

    use super::FileCall;

    /// What shall become of a call.
    pub(crate) enum Verdict {
        /// It is made.
        Go,
        /// It is not made and fails with this errno.
        Fail(i32),
        /// A read or a write: only so many bytes are read or written, at least one.
        Short(usize),
        /// A write: so many bytes are written, then it fails with this errno.
        CutWrite(usize, i32),
    }

    type Hook = Box<dyn FnMut(&FileCall<'_>) -> Verdict>;
    type SharedHook = Arc<dyn Fn(&FileCall<'_>) -> Verdict + Send + Sync>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
        static SHARED: RefCell<Option<SharedHook>> = const { RefCell::new(None) };
    }

    /// Runs `body` while `hook` decides about every call of this thread.
    pub(crate) fn with<R>(
        hook: impl FnMut(&FileCall<'_>) -> Verdict + 'static,
        body: impl FnOnce() -> R,
    ) -> R {
        struct Restore(Option<Hook>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HOOK.set(self.0.take());
            }
        }
        let _restore = Restore(HOOK.replace(Some(Box::new(hook))));
        body()
    }

    /// While it lives, threads that are started get the hook.
    pub(crate) struct Sharing;

    /// Lets `hook` decide about every call of this thread, and of those that the library
    /// starts from it while the result lives; of these for ever.
    pub(crate) fn share(
        hook: impl Fn(&FileCall<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Sharing {
        SHARED.set(Some(Arc::new(hook)));
        Sharing
    }

    impl Drop for Sharing {
        fn drop(&mut self) {
            SHARED.set(None);
        }
    }

    /// What a new thread runs: the body, with what it inherits from this one.
    pub(crate) fn inherited<T>(body: impl FnOnce() -> T + Send) -> impl FnOnce() -> T + Send {
        let shared = SHARED.with_borrow(Clone::clone);
        move || {
            SHARED.set(shared);
            body()
        }
    }

    pub(super) fn gate(what: &FileCall<'_>) -> io::Result<Option<super::Part>> {
        let verdict =
            HOOK.with_borrow_mut(|hook| hook.as_mut().map_or(Verdict::Go, |hook| hook(what)));
        let verdict = match (verdict, SHARED.with_borrow(Clone::clone)) {
            (Verdict::Go, Some(hook)) => hook(what),
            (verdict, _) => verdict,
        };
        match verdict {
            Verdict::Go => Ok(None),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Short(len) => Ok(Some((len, None))),
            Verdict::CutWrite(len, errno) => {
                Ok(Some((len, Some(io::Error::from_raw_os_error(errno)))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::fake::Verdict;
    use super::*;

    /// Does something with a file of ten bytes while the fake lets reads and writes have two bytes
    /// each, and has every other call of any kind that can be made again interrupted.
    fn disturbed<R>(body: impl FnOnce(&Path) -> R) -> R {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"0123456789").unwrap();
        let calls = Cell::new(0);
        let hook = move |call: &FileCall<'_>| {
            calls.set(calls.get() + 1);
            match call {
                _ if calls.get() % 2 == 1 => Verdict::Fail(libc::EINTR),
                FileCall::Read(..) | FileCall::Write(..) => Verdict::Short(2),
                _ => Verdict::Go,
            }
        };
        fake::with(hook, || body(&path))
    }

    #[test]
    fn reads_and_writes_go_on_where_the_system_or_a_signal_ended_them() {
        let read = disturbed(|path| {
            let file = File::create(path).unwrap();
            file.write_all_at(b"abcde", 3).unwrap();
            file.sync_data().unwrap();
            file.truncate(9).unwrap();
            let mut bytes = [0; 9];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let beyond = file.read_exact_at(&mut [0; 10], 0).unwrap_err();
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
            bytes
        });
        assert_eq!(&read, b"012abcde8");
    }

    #[test]
    fn a_lock_that_a_signal_interrupted_is_taken() {
        disturbed(|path| {
            let first = File::create(path).unwrap().lock().unwrap();
            assert!(first.is_ok());
            let second = File::create(path).unwrap().lock().unwrap();
            assert!(second.is_err(), "somebody has it");
            lock_dir(path.parent().unwrap()).unwrap();
        });
    }

    #[test]
    fn a_change_of_names_that_was_interrupted_is_not_made_again() {
        disturbed(|path| {
            let error = unlink(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            unlink(path).unwrap();
        });
    }
}
