// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end of the chain, where records are appended.

use std::path::PathBuf;

use super::Compacting;
use super::Tending;
use crate::arena::Arena;
use crate::error::Error;
use crate::store;
use crate::store::CommitInfo;
use crate::store::CommitMeta;
use crate::store::PageSink;
use crate::store::Settled;
use crate::store::StoreError;
use crate::store::Writer;
use crate::sys::memory::PAGE;
use crate::track::PageRange;
use crate::track::Snapshot;

/// Pages that are held in a buffer on their way from a snapshot to the chain.
const GATHER_PAGES: usize = 256;

/// Pages that are read from the arena in one go.
const COPY_PAGES: u64 = 64;

/// A chain's writer, made anew when it gave up.
pub(crate) struct ChainEnd {
    dir: PathBuf,
    options: store::Options,
    /// None when the last one could not undo a failed append: then the next one opens the
    /// chain again, which examines what is on the disk.
    writer: Option<Writer>,
    tending: Tending,
    /// Kept for the next snapshot: nothing is allocated while the program waits.
    buffer: Vec<u8>,
    runs: Vec<PageRange>,
}

impl ChainEnd {
    /// The end of the chain that the writer has, and how another one is opened.
    pub(crate) fn new(
        dir: PathBuf,
        options: store::Options,
        compacting: Compacting,
        writer: Writer,
    ) -> ChainEnd {
        ChainEnd {
            tending: Tending::new(dir.clone(), options.clone(), compacting),
            dir,
            options,
            writer: Some(writer),
            buffer: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// The chain, with everything that was appended.
    pub(crate) fn chain(&mut self) -> Result<Settled<'_>, Error> {
        Ok(self.writer()?.settled()?)
    }

    /// Appends a record without pages.
    pub(crate) fn append_empty(&mut self, meta: &CommitMeta) -> Result<CommitInfo, Error> {
        self.append(meta, |_| Ok(()))
    }

    /// Appends a record with the pages of a snapshot.
    pub(crate) fn append_snapshot(
        &mut self,
        meta: &CommitMeta,
        snapshot: &mut dyn Snapshot,
    ) -> Result<CommitInfo, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut runs = std::mem::take(&mut self.runs);
        buffer.resize(GATHER_PAGES * PAGE, 0);
        let appended = self.append(meta, |sink| {
            loop {
                snapshot.gather(&mut buffer, &mut runs)?;
                if runs.is_empty() {
                    return Ok(());
                }
                let mut rest = &buffer[..];
                for run in &runs {
                    let (pages, behind) = rest.split_at((run.end - run.start) as usize * PAGE);
                    sink.push(run.start, pages)?;
                    rest = behind;
                }
            }
        });
        (self.buffer, self.runs) = (buffer, runs);
        appended
    }

    /// Appends a record with pages as they are in the arena now.
    pub(crate) fn append_arena(
        &mut self,
        meta: &CommitMeta,
        arena: &Arena,
        delta: &[PageRange],
    ) -> Result<CommitInfo, Error> {
        let mut buffer = Vec::new();
        self.append(meta, |sink| {
            for part in delta.iter().flat_map(parts) {
                buffer.resize((part.end - part.start) as usize * PAGE, 0);
                arena.read_pages(part.start, &mut buffer);
                sink.push(part.start, &buffer)?;
            }
            Ok(())
        })
    }

    fn append(
        &mut self,
        meta: &CommitMeta,
        fill: impl FnOnce(&mut PageSink<'_>) -> Result<(), Error>,
    ) -> Result<CommitInfo, Error> {
        let appended = self.writer()?.append_with(meta, fill).cloned();
        match (&appended, &mut self.writer) {
            (Ok(_), Some(writer)) => self.tending.appended(writer),
            (Err(Error::Store(StoreError::Poisoned { .. })), _) => self.writer = None,
            _ => {}
        }
        appended
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        if self.writer.is_none() {
            let (writer, _) = Writer::open_or_create(&self.dir, self.options.clone())?;
            return Ok(self.writer.insert(writer));
        }
        match &mut self.writer {
            Some(writer) => Ok(writer),
            None => unreachable!("opened above"),
        }
    }
}

/// A range in parts that are small enough to copy.
fn parts(range: &PageRange) -> impl Iterator<Item = PageRange> + use<> {
    let end = range.end;
    (range.start..end)
        .step_by(COPY_PAGES as usize)
        .map(move |first| first..end.min(first + COPY_PAGES))
}
