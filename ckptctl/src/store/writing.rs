// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hashing and writing what a record is made of, in a thread of its own when there is much of it:
//! then pages are looked at while others wait for the disk.

use std::mem;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::channel;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use super::error::StoreError;
use crate::sys::file::File;
use crate::sys::thread;

/// Pieces that wait to be written. One more is in hand, and one is being filled.
const WAITING: usize = 2;

/// Name of the thread, as the system shows it.
const NAME: &str = "ckpt-write";

/// Bytes and where in the file they go.
type Piece = (u64, Vec<u8>);

/// Writes pieces one behind the other and puts them into the hash.
#[derive(Debug)]
pub(super) struct Ordered {
    file: Arc<File>,
    hasher: blake3::Hasher,
}

impl Ordered {
    pub fn new(file: Arc<File>) -> Ordered {
        Ordered {
            file,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Writes a piece. With `start` the disk begins at once, so that it works while the next
    /// pages are packed.
    pub fn write(&mut self, at: u64, bytes: &[u8], start: bool) -> Result<(), StoreError> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(StoreError::io("write", self.file.path()))?;
        if start {
            self.file.start_writing(at, bytes.len() as u64);
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// The hash of all that was written.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// A thread that writes. It has ended when this is dropped, so that nothing is written behind the
/// back of who takes a failed record back.
#[derive(Debug)]
pub(super) struct Beside {
    to: Option<SyncSender<Piece>>,
    /// Buffers that were written.
    back: Receiver<Vec<u8>>,
    failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Ordered, StoreError>>>,
}

impl Beside {
    /// Starts the thread; `None` when there can be none.
    pub fn start(file: &Arc<File>, ordered: &mut Ordered) -> Option<Beside> {
        let (to, pieces) = sync_channel(WAITING);
        let (back_to, back) = channel();
        let failed = Arc::<AtomicBool>::default();
        let moved = mem::replace(ordered, Ordered::new(Arc::clone(file)));
        let kept = Ordered {
            file: Arc::clone(file),
            hasher: moved.hasher.clone(),
        };
        let failing = Arc::clone(&failed);
        match thread::spawn(NAME, move || work(moved, &pieces, &back_to, &failing)) {
            Ok(thread) => Some(Beside {
                to: Some(to),
                back,
                failed,
                thread: Some(thread),
            }),
            Err(_) => {
                *ordered = kept;
                None
            }
        }
    }

    /// Hands a piece over and gives an empty buffer for the next one. Waits while too many are
    /// there. False when a piece could not be written: [`Beside::end`] says why.
    pub fn put(&mut self, at: u64, bytes: Vec<u8>) -> Option<Vec<u8>> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        self.to.as_ref()?.send((at, bytes)).ok()?;
        Some(self.back.try_recv().unwrap_or_default())
    }

    /// Waits until all is written.
    pub fn end(mut self) -> Result<Ordered, StoreError> {
        self.to = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("it is taken here only, and when this is dropped"),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            // Who drops it has an error of its own to tell.
            let _ = thread.join();
        }
    }
}

fn work(
    mut ordered: Ordered,
    pieces: &Receiver<Piece>,
    back: &Sender<Vec<u8>>,
    failed: &AtomicBool,
) -> Result<Ordered, StoreError> {
    for (at, mut bytes) in pieces {
        if let Err(error) = ordered.write(at, &bytes, true) {
            failed.store(true, Ordering::Relaxed);
            return Err(error);
        }
        bytes.clear();
        // Nobody wants it any more when the record was given up.
        let _ = back.send(bytes);
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir) -> Arc<File> {
        Arc::new(File::create(&dir.path().join("file")).unwrap())
    }

    fn content(file: &File, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_thread_goes_on_where_the_record_was_and_hashes_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let all: Vec<u8> = (0..900_000u32).map(|at| (at / 7) as u8).collect();
        let mut ordered = Ordered::new(Arc::clone(&file));
        ordered.write(0, &all[..1000], false).unwrap();
        let mut beside = Beside::start(&file, &mut ordered).unwrap();
        let (mut at, mut buffer) = (1000, Vec::new());
        for piece in all[1000..].chunks(70_000) {
            buffer.extend_from_slice(piece);
            buffer = beside.put(at, buffer).unwrap();
            assert!(buffer.is_empty());
            at += piece.len() as u64;
        }
        let ordered = beside.end().unwrap();
        assert_eq!(ordered.hash(), *blake3::hash(&all).as_bytes());
        assert!(content(&file, all.len()) == all);
    }

    #[test]
    fn what_cannot_be_written_is_told_and_nothing_is_written_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, []).unwrap();
        // Only for reading.
        let file = Arc::new(File::open(&path).unwrap());
        let mut ordered = Ordered::new(Arc::clone(&file));
        let mut beside = Beside::start(&file, &mut ordered).unwrap();
        while beside.put(0, vec![1; 100]).is_some() {}
        assert!(matches!(beside.end(), Err(StoreError::Io { .. })));
        assert_eq!(file.len_bytes().unwrap(), 0);
    }

    #[test]
    fn without_a_thread_the_hash_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let mut ordered = Ordered::new(Arc::clone(&file));
        ordered.write(0, b"abc", false).unwrap();
        let _failing = crate::sys::fake::fail(crate::sys::fake::Call::Thread, nix::libc::EAGAIN);
        assert!(Beside::start(&file, &mut ordered).is_none());
        assert_eq!(ordered.hash(), *blake3::hash(b"abc").as_bytes());
    }
}
