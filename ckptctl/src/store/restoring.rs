// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the pages of an epoch in several threads.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::error::StoreError;
use super::loader::Loader;
use super::loader::Piece;
use super::run_reader::OpenSegment;
use super::run_reader::RunBuffers;
use crate::sys::thread;

/// Most bytes that are read at once.
const READ_BYTES: u64 = 1 << 20;

/// Reads of an epoch that one thread does alone: it is done sooner than others have begun.
const ALONE: usize = 2;

/// Name of the threads, as the system shows it.
const NAME: &str = "ckpt-restore";

impl Loader {
    /// Reads, checks and decompresses all pages in up to `threads` threads, this one among them,
    /// and hands them to `put`, each page that is not zero once, in any order and at the same time.
    ///
    /// Memory: 1.5 MiB for each thread.
    ///
    /// # Errors
    ///
    /// As [`Loader::next_run`]; the one that is first in the files of those that were found.
    /// What was handed out before is then not the whole epoch.
    pub fn restore(
        self,
        threads: usize,
        put: impl Fn(u64, &[u8]) + Sync,
    ) -> Result<(), StoreError> {
        let reads = reads(self.plan());
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let first_error: Mutex<Option<(usize, StoreError)>> = Mutex::new(None);
        let work = || {
            let mut reader = Reader::default();
            while !failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(read) = reads.get(number) else {
                    return;
                };
                if let Err(error) = reader.read(&self, &self.plan()[read.clone()], &put) {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(other, _)| number < *other) {
                        *first = Some((number, error));
                    }
                }
            }
        };
        let threads = match reads.len() {
            0..=ALONE => 1,
            reads => threads.min(reads),
        };
        thread::in_parallel(NAME, threads, &work);
        let first = first_error.into_inner();
        match first.unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// The parts of a plan that are read at once: runs that lie close to each other in a file.
fn reads(plan: &[Piece]) -> Vec<Range<usize>> {
    let mut reads: Vec<Range<usize>> = Vec::new();
    for (at, piece) in plan.iter().enumerate() {
        let goes_on = reads.last().is_some_and(|read| {
            let first = &plan[read.start];
            let last = &plan[at - 1];
            let gap = piece.offset.saturating_sub(last.stored_end());
            piece.segment == first.segment
                && piece.stored_end() - first.offset <= READ_BYTES
                // What is not needed is not read, unless it is less than another call costs.
                && gap <= READ_BYTES / 16
        });
        match reads.last_mut() {
            Some(read) if goes_on => read.end = at + 1,
            _ => reads.push(at..at + 1),
        }
    }
    reads
}

/// What a thread has for reading.
#[derive(Debug, Default)]
struct Reader {
    open: OpenSegment,
    stored: Vec<u8>,
    buffers: RunBuffers,
}

impl Reader {
    /// Reads the runs of some pieces, at once if possible, and hands out the pieces.
    fn read(
        &mut self,
        loader: &Loader,
        pieces: &[Piece],
        put: &(impl Fn(u64, &[u8]) + Sync),
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        let file = self.open.at(loader.segment(first.segment))?;
        self.stored
            .resize((last.stored_end() - first.offset) as usize, 0);
        // Where that cannot be, it is found out for each run by itself.
        let at_once = file.read_exact_at(&mut self.stored, first.offset).is_ok();
        let mut decoded = None;
        for piece in pieces {
            if decoded != Some(piece.offset) {
                let (run, shift) = (&piece.run, loader.page_shift());
                let read = if at_once {
                    let start = (piece.offset - first.offset) as usize;
                    let stored = &self.stored[start..start + run.stored_len as usize];
                    self.buffers.decode(stored, run, shift)
                } else {
                    self.buffers.read(file, piece.offset, run, shift)?
                };
                read.map_err(|what| loader.damaged(piece, &what))?;
                decoded = Some(piece.offset);
            }
            put(
                piece.live.start,
                piece.bytes(self.buffers.raw(), loader.page_shift()),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::Codec;
    use crate::store::index::Run;

    fn piece(segment: u64, offset: u64, stored_len: u32) -> Piece {
        let run = Run {
            pgoff: 0,
            pages: 1,
            codec: Codec::None,
            data_off: 0,
            stored_len,
            crc: 0,
        };
        Piece {
            epoch: 1,
            segment,
            offset,
            run,
            live: 0..1,
            source: 0,
        }
    }

    #[test]
    fn runs_that_lie_together_are_read_at_once() {
        let plan = [
            piece(1, 5000, 4000),
            piece(1, 9000, 4000),
            // The same run for another page.
            piece(1, 9000, 4000),
            piece(1, 20_000, 4000),
            piece(1, 500_000, 4000),
            piece(2, 504_000, 4000),
            piece(2, 508_000, 1_000_000),
            piece(2, 1_508_000, 1_000_000),
        ];
        assert_eq!(reads(&plan), [0..4, 4..5, 5..7, 7..8]);
        assert_eq!(reads(&[]), Vec::<Range<usize>>::new());
        // A run may be longer than what is read at once.
        assert_eq!(reads(&[piece(1, 4096, 4 << 20)]), vec![0..1; 1]);
    }
}
