// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the arena should hold, and which pages may and must be in a delta.

use std::sync::Arc;

use super::geometry::Geometry;
use crate::device::PAGE;

/// The content of every used page at one moment; pages are shared between copies.
pub type Content = Vec<Arc<[u8; PAGE]>>;

/// A mapping of this process.
#[derive(Clone, Debug)]
pub struct Slot {
    /// First dense page.
    pub dense: usize,
    /// Which of its pages may be written through it.
    pub writable: Vec<bool>,
}

/// What happened to one page.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Last epoch in which it was written; zero for never.
    written: u64,
    /// Last epoch in which an operation touched it for writing.
    touched: u64,
    /// It was written since the last commit.
    written_now: bool,
    /// It was touched for writing since the last commit.
    touched_now: bool,
    /// DMA into it was asked for once: see [`Model::dma`].
    lingers: bool,
    /// It has memory for sure.
    resident: bool,
    /// It may have memory.
    perhaps_resident: bool,
}

/// The model of one arena.
pub struct Model {
    geometry: Geometry,
    now: Content,
    committed: Content,
    epoch: u64,
    history: Vec<History>,
    /// Mappings of this process.
    pub slots: Vec<Option<Slot>>,
}

impl Model {
    /// An arena never touched, without mappings.
    pub fn new(geometry: Geometry, slots: usize, epoch: u64) -> Self {
        let content = empty_content(&geometry);
        Self {
            now: content.clone(),
            committed: content,
            epoch,
            history: vec![History::default(); geometry.dense_pages()],
            slots: vec![None; slots],
            geometry,
        }
    }

    /// The used pages.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The last commit.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The content as of the last commit.
    pub fn committed(&self) -> &Content {
        &self.committed
    }

    /// One page as it should be now.
    pub fn page(&self, dense: usize) -> &[u8; PAGE] {
        &self.now[dense]
    }

    /// Bytes from a dense byte offset on, as they should be now.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        for (dense, start, part) in page_parts(offset, len) {
            bytes.extend_from_slice(&self.now[dense][start..start + part]);
        }
        bytes
    }

    /// Bytes were written from a dense byte offset on.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let mut taken = 0;
        for (dense, start, part) in page_parts(offset, data.len()) {
            let page = Arc::make_mut(&mut self.now[dense]);
            page[start..start + part].copy_from_slice(&data[taken..taken + part]);
            taken += part;
            let history = &mut self.history[dense];
            history.written_now = true;
            history.touched_now = true;
            history.resident = true;
            history.perhaps_resident = true;
        }
    }

    /// An aligned word was stored at a dense byte offset.
    pub fn store_word(&mut self, offset: usize, value: u64) {
        let (dense, start) = (offset / PAGE, offset % PAGE);
        let page = Arc::make_mut(&mut self.now[dense]);
        page[start..start + 8].copy_from_slice(&value.to_ne_bytes());
        let history = &mut self.history[dense];
        history.written_now = true;
        history.touched_now = true;
        history.resident = true;
        history.perhaps_resident = true;
    }

    /// Whether some page may still be pinned by a device, as far as the model knows.
    pub fn lingers(&self) -> bool {
        self.history.iter().any(|history| history.lingers)
    }

    /// No page is pinned any more: a commit found nothing that changed.
    pub fn is_settled(&mut self) {
        for (dense, history) in self.history.iter_mut().enumerate() {
            debug_assert!(!history.written_now, "page {dense} is still open");
            // Up to now it may have been told again.
            if std::mem::take(&mut history.lingers) {
                history.touched = self.epoch;
            }
        }
    }

    /// Bytes were written by DMA.
    ///
    /// The call that asked for it returns before the kernel drops its pins: since
    /// the module never sets PG_dirty, the block layer leaves that to a worker.
    /// A page that is pinned at a commit is told again by the next, so from here
    /// on the page may be told at any time.
    pub fn dma(&mut self, offset: usize, data: &[u8]) {
        self.write(offset, data);
        for (dense, _, _) in page_parts(offset, data.len()) {
            self.history[dense].lingers = true;
        }
    }

    /// A page was faulted in for writing, but nothing was written.
    pub fn touch_for_writing(&mut self, dense: usize) {
        let history = &mut self.history[dense];
        history.touched_now = true;
        history.resident = true;
        history.perhaps_resident = true;
    }

    /// Bytes were read through a mapping.
    pub fn touch_for_reading(&mut self, offset: usize, len: usize) {
        for (dense, _, _) in page_parts(offset, len) {
            self.history[dense].resident = true;
            self.history[dense].perhaps_resident = true;
        }
    }

    /// The kernel may have looked at a page on the way to refusing a write.
    pub fn perhaps_faulted(&mut self, dense: usize) {
        self.history[dense].perhaps_resident = true;
    }

    /// The epoch was closed.
    pub fn commit(&mut self) {
        self.epoch += 1;
        self.committed.clone_from(&self.now);
        for history in &mut self.history {
            if history.written_now {
                history.written = self.epoch;
            }
            if history.touched_now {
                history.touched = self.epoch;
            }
            history.written_now = false;
            history.touched_now = false;
        }
    }

    /// Least and most pages that may count as changed since the last commit.
    pub fn changed_bounds(&self) -> (u64, u64) {
        let count = |wanted: fn(&History) -> bool| {
            self.history
                .iter()
                .filter(|history| wanted(history))
                .count() as u64
        };
        (
            count(|history| history.written_now),
            count(|history| history.touched_now || history.lingers),
        )
    }

    /// Least and most pages that may have memory.
    pub fn resident_bounds(&self) -> (u64, u64) {
        let count = |wanted: fn(&History) -> bool| {
            self.history
                .iter()
                .filter(|history| wanted(history))
                .count() as u64
        };
        (
            count(|history| history.resident),
            count(|history| history.perhaps_resident),
        )
    }

    /// Whether a page was written in an epoch after `since` that is closed.
    pub fn written_since(&self, dense: usize, since: u64) -> bool {
        self.history[dense].written > since
    }

    /// Whether a page was touched for writing in an epoch after `since` that is closed.
    pub fn touched_since(&self, dense: usize, since: u64) -> bool {
        self.history[dense].touched > since || self.history[dense].lingers
    }

    /// Whether a page was written since the last commit.
    pub fn written_now(&self, dense: usize) -> bool {
        self.history[dense].written_now
    }
}

/// Content of an arena never touched.
pub fn empty_content(geometry: &Geometry) -> Content {
    let zero = Arc::new([0; PAGE]);
    (0..geometry.dense_pages())
        .map(|_| Arc::clone(&zero))
        .collect()
}

/// A run of bytes, cut at page boundaries: page, first byte in it, bytes.
pub fn page_parts(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        let start = at % PAGE;
        let part = (PAGE - start).min(end - at);
        let piece = (at / PAGE, start, part);
        at += part;
        (part > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_bytes_is_cut_at_page_boundaries() {
        let parts: Vec<_> = page_parts(PAGE - 2, PAGE + 4).collect();
        assert_eq!(parts, [(0, PAGE - 2, 2), (1, 0, PAGE), (2, 0, 2)]);
        assert_eq!(page_parts(5, 0).count(), 0);
    }

    #[test]
    fn the_copy_of_a_commit_does_not_follow_later_writes() {
        let mut model = Model::new(Geometry::whole("t", 2), 0, 0);
        model.write(10, &[1, 2]);
        model.commit();
        model.write(10, &[9]);
        assert_eq!(model.committed()[0][10..12], [1, 2]);
        assert_eq!(model.bytes(10, 2), [9, 2]);
        assert!(model.written_since(0, 0) && !model.written_since(0, 1));
        assert_eq!(model.changed_bounds(), (1, 1));
    }
}
