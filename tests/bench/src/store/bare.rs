// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a save and a restore cannot do without: the compressor, and the disk. Each by itself, in
//! the simplest way there is.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ckptctl::store::Compression;
use nix::fcntl::PosixFadviseAdvice;
use nix::fcntl::posix_fadvise;
use nix::libc;

use super::data::PAGE;

/// Most bytes that are compressed as one, as in a chain.
const RUN_BYTES: usize = 64 * PAGE;
/// Bytes of a read or write.
const PIECE: usize = 1 << 20;

/// The runs of data that are not zero, which is all that the compressor gets.
pub fn runs(data: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, page) in data.chunks_exact(PAGE).enumerate() {
        let start = number * PAGE;
        if page.iter().all(|&byte| byte == 0) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == start && run.len() < RUN_BYTES => run.end += PAGE,
            _ => runs.push(start..start + PAGE),
        }
    }
    runs
}

/// Compresses runs, with one state for all of them.
enum Compressor {
    Lz4,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn new(compression: Compression) -> Result<Option<Compressor>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Lz4 => Some(Compressor::Lz4),
            Compression::Zstd(level) => Some(Compressor::Zstd(zstd::bulk::Compressor::new(level)?)),
        })
    }

    fn compress(&mut self, raw: &[u8], to: &mut [u8]) -> Result<usize> {
        Ok(match self {
            Compressor::Lz4 => lz4_flex::block::compress_into(raw, to)?,
            Compressor::Zstd(state) => state.compress_to_buffer(raw, to)?,
        })
    }

    fn bound(raw_len: usize) -> usize {
        let lz4 = lz4_flex::block::get_maximum_output_size(raw_len);
        lz4.max(zstd::zstd_safe::compress_bound(raw_len))
    }
}

/// Does something with each number below `count`, in so many threads that take the next one when
/// they have done one.
fn in_threads(
    threads: usize,
    count: usize,
    work: impl Fn(&mut dyn Iterator<Item = usize>) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one = || {
        let mut numbers = std::iter::from_fn(|| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            (number < count).then_some(number)
        });
        work(&mut numbers)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut all = vec![one()];
        all.extend(others.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        all.into_iter().collect()
    })
}

/// Compresses all runs into a buffer that each thread uses again and again.
pub fn compress(
    data: &[u8],
    runs: &[Range<usize>],
    compression: Compression,
    threads: usize,
) -> Result<Duration> {
    let begun = Instant::now();
    in_threads(threads, runs.len(), |numbers| {
        let Some(mut compressor) = Compressor::new(compression)? else {
            return Ok(());
        };
        let mut to = vec![0; Compressor::bound(RUN_BYTES)];
        for number in numbers {
            std::hint::black_box(compressor.compress(&data[runs[number].clone()], &mut to)?);
        }
        Ok(())
    })?;
    Ok(begun.elapsed())
}

struct StoredRun {
    place: Range<usize>,
    /// Where in the data it belongs.
    raw: Range<usize>,
    compressed: bool,
}

/// Runs as they are stored, in memory.
pub struct Stored {
    compression: Compression,
    bytes: Vec<u8>,
    runs: Vec<StoredRun>,
    /// Bytes of the data, zeros included.
    data_len: usize,
}

impl Stored {
    /// Compresses runs, and keeps as they are those that do not become smaller by a sixteenth.
    pub fn new(data: &[u8], runs: &[Range<usize>], compression: Compression) -> Result<Stored> {
        let mut stored = Stored {
            compression,
            bytes: Vec::new(),
            runs: Vec::new(),
            data_len: data.len(),
        };
        let mut compressor = Compressor::new(compression)?;
        let mut to = vec![0; Compressor::bound(RUN_BYTES)];
        for run in runs {
            let raw = &data[run.clone()];
            let len = match &mut compressor {
                Some(compressor) => compressor.compress(raw, &mut to)?,
                None => raw.len(),
            };
            let start = stored.bytes.len();
            let compressed = len <= raw.len() - raw.len() / 16;
            let kept = if compressed { &to[..len] } else { raw };
            stored.bytes.extend_from_slice(kept);
            stored.runs.push(StoredRun {
                place: start..stored.bytes.len(),
                raw: run.clone(),
                compressed,
            });
        }
        Ok(stored)
    }

    /// Decompresses all runs to where they belong, in memory that is new, as that of a program is
    /// that is restored.
    pub fn decompress(&self, threads: usize) -> Result<Duration> {
        let begun = Instant::now();
        // Zeros from the system, which no page stands behind yet.
        let mut data = vec![0; self.data_len];
        let (mut places, mut rest, mut at) = (Vec::new(), data.as_mut_slice(), 0);
        for run in &self.runs {
            let (place, behind) = rest[run.raw.start - at..].split_at_mut(run.raw.len());
            places.push(Mutex::new(place));
            (rest, at) = (behind, run.raw.end);
        }
        in_threads(threads, self.runs.len(), |numbers| {
            let mut zstd = match self.compression {
                Compression::Zstd(_) => Some(zstd::bulk::Decompressor::new()?),
                Compression::None | Compression::Lz4 => None,
            };
            for number in numbers {
                let run = &self.runs[number];
                let bytes = &self.bytes[run.place.clone()];
                // Each is taken once.
                let mut raw = places[number]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let len = match (&mut zstd, run.compressed) {
                    (_, false) => {
                        raw.copy_from_slice(bytes);
                        bytes.len()
                    }
                    (Some(zstd), true) => zstd.decompress_to_buffer(bytes, *raw)?,
                    (None, true) => lz4_flex::block::decompress_into(bytes, &mut raw)?,
                };
                ensure!(len == raw.len(), "a run decompresses to {len} bytes");
            }
            Ok(())
        })?;
        let took = begun.elapsed();
        drop(places);
        std::hint::black_box(data);
        Ok(took)
    }

    /// Writes so many bytes of these to a new file, one behind the other, until they are durable.
    /// As with a chain the system is told to begin with each piece at once.
    pub fn write(&self, path: &Path, len: u64) -> Result<Duration> {
        let begun = Instant::now();
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut at = 0;
        while at < len {
            let from = at as usize % self.bytes.len();
            let piece = (self.bytes.len() - from)
                .min(PIECE)
                .min((len - at) as usize);
            file.write_all_at(&self.bytes[from..from + piece], at)?;
            // SAFETY: The call has no pointers, and the descriptor is the file's.
            unsafe {
                libc::sync_file_range(
                    file.as_raw_fd(),
                    at as i64,
                    piece as i64,
                    libc::SYNC_FILE_RANGE_WRITE,
                );
            }
            at += piece as u64;
        }
        file.sync_data()?;
        Ok(begun.elapsed())
    }
}

/// Reads a file from its beginning to its end.
pub fn read(path: &Path) -> Result<Duration> {
    let begun = Instant::now();
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut piece = vec![0; PIECE];
    while file.read(&mut piece)? > 0 {
        std::hint::black_box(&piece);
    }
    Ok(begun.elapsed())
}

/// Runs both at the same time; how long it takes until both are done.
pub fn at_once(
    compressor: impl FnOnce() -> Result<Duration> + Send,
    disk: impl FnOnce() -> Result<Duration>,
) -> Result<Duration> {
    let begun = Instant::now();
    let (compressed, written) = std::thread::scope(|scope| {
        let compressor = scope.spawn(compressor);
        let disk = disk();
        match compressor.join() {
            Ok(compressor) => (compressor, disk),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    compressed?;
    written?;
    Ok(begun.elapsed())
}

/// Takes a file out of the page cache.
pub fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.sync_data()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_is_not_zero_in_pieces_of_64_pages_at_most() {
        let mut data = vec![0; 200 * PAGE];
        data[2 * PAGE] = 1;
        data[3 * PAGE..130 * PAGE].fill(2);
        data[200 * PAGE - 1] = 3;
        let pages = |first, end| first * PAGE..end * PAGE;
        assert_eq!(runs(&data), [pages(2, 66), pages(66, 130), pages(199, 200)]);
    }
}
