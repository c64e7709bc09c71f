// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A consumer of deltas and its replica, with the checks of what it is told.

use super::backend::DeltaPart;
use super::model::Content;
use super::model::Model;
use super::model::empty_content;
use crate::device::PAGE;

/// A delta that is being taken.
struct Progress {
    /// The cursor's next value.
    epoch: u64,
    /// The content as of that epoch.
    content: Content,
    /// Dense pages told so far.
    told: Vec<bool>,
    /// Dense pages that must be told: written after the cursor, up to the epoch.
    due: Vec<bool>,
    /// First page not told about yet.
    start: u64,
}

/// A consumer.
pub struct Cursor {
    /// It has everything up to this epoch.
    since: u64,
    /// The content as of that epoch.
    content: Content,
    /// What it has, from the pages of its deltas alone.
    replica: Vec<u8>,
    progress: Option<Progress>,
}

impl Cursor {
    /// A consumer that has nothing.
    pub fn new(model: &Model) -> Self {
        Self {
            since: 0,
            content: empty_content(model.geometry()),
            replica: vec![0; model.geometry().dense_pages() * PAGE],
            progress: None,
        }
    }

    /// The epoch that it has.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Whether a delta is being taken.
    pub fn is_taking(&self) -> bool {
        self.progress.is_some()
    }

    /// Where the next call of a delta that is being taken starts.
    pub fn start(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.start)
    }

    /// The first call is about to be made.
    pub fn begin(&mut self, model: &Model) {
        let pages = model.geometry().dense_pages();
        self.progress = Some(Progress {
            epoch: model.epoch(),
            content: model.committed().clone(),
            told: vec![false; pages],
            due: (0..pages)
                .map(|dense| model.written_since(dense, self.since))
                .collect(),
            start: 0,
        });
    }

    /// Takes the answer of a call. The dense pages to copy into the replica come back.
    pub fn take(
        &mut self,
        model: &Model,
        part: &DeltaPart,
        capacity: usize,
    ) -> Result<Vec<usize>, String> {
        let progress = self.progress.as_mut().ok_or("no delta was begun")?;
        if part.epoch != model.epoch() {
            return Err(format!(
                "delta tells epoch {}, the last is {}",
                part.epoch,
                model.epoch()
            ));
        }
        check_shape(part, progress.start, capacity, model.geometry().len_pages)?;
        let mut pages = Vec::new();
        for pgoff in part
            .ranges
            .iter()
            .flat_map(|(first, pages)| *first..first + pages)
        {
            let dense = model.geometry().dense(pgoff);
            match dense {
                Some(dense) if model.touched_since(dense, self.since) => {
                    progress.told[dense] = true;
                    pages.push(dense);
                }
                _ => {
                    return Err(format!(
                        "page {pgoff} is in the delta since {} but nothing touched it for writing",
                        self.since
                    ));
                }
            }
        }
        progress.start = part.next.unwrap_or(u64::MAX);
        Ok(pages)
    }

    /// Copies a page into the replica.
    pub fn copy(&mut self, dense: usize, page: &[u8]) {
        self.replica[dense * PAGE..(dense + 1) * PAGE].copy_from_slice(page);
    }

    /// The last call was answered: checks the whole and moves the cursor.
    pub fn finish(&mut self, model: &Model, compare_replica: bool) -> Result<(), String> {
        let progress = self.progress.take().ok_or("no delta was begun")?;
        let geometry = model.geometry();
        for dense in 0..geometry.dense_pages() {
            if progress.told[dense] {
                continue;
            }
            let pgoff = geometry.pgoff(dense);
            let range = format!("epochs {} and {}", self.since, progress.epoch);
            let (before, after) = (&self.content[dense], &progress.content[dense]);
            if !std::sync::Arc::ptr_eq(before, after) && before != after {
                return Err(format!(
                    "UNFORGIVABLE: page {pgoff} differs between {range} and was reported clean"
                ));
            }
            if progress.due[dense] {
                return Err(format!(
                    "page {pgoff} was written between {range}, though with the same bytes, \
                     and was reported clean"
                ));
            }
        }
        self.since = progress.epoch;
        self.content = progress.content;
        if compare_replica {
            self.compare_replica(model)?;
        }
        Ok(())
    }

    // Pages were copied into the replica after they were told, so what was written later may be
    // there or not; every other page must be as the arena has it.
    fn compare_replica(&self, model: &Model) -> Result<(), String> {
        for dense in 0..model.geometry().dense_pages() {
            if model.written_now(dense) || model.written_since(dense, self.since) {
                continue;
            }
            if self.replica[dense * PAGE..(dense + 1) * PAGE] != model.page(dense)[..] {
                return Err(format!(
                    "UNFORGIVABLE: the replica at epoch {} differs in page {}",
                    self.since,
                    model.geometry().pgoff(dense)
                ));
            }
        }
        Ok(())
    }
}

/// What the header says about the ranges of one call.
pub fn check_shape(
    part: &DeltaPart,
    start: u64,
    capacity: usize,
    len_pages: u64,
) -> Result<(), String> {
    let DeltaPart {
        ranges,
        pages,
        next,
        ..
    } = part;
    let wrong = |what: &str| Err(format!("delta from page {start}: {what}: {part:?}"));
    if ranges.len() > capacity {
        return wrong("more entries than fit");
    }
    if ranges.iter().any(|(_, pages)| *pages == 0) {
        return wrong("an empty range");
    }
    if *pages != ranges.iter().map(|(_, pages)| pages).sum::<u64>() {
        return wrong("pages is not the sum");
    }
    if ranges.windows(2).any(|two| two[0].0 + two[0].1 >= two[1].0) {
        return wrong("ranges are not ascending, disjoint and apart");
    }
    if ranges.first().is_some_and(|(first, _)| *first < start) {
        return wrong("a range before the start");
    }
    let end = ranges.last().map_or(start, |(first, pages)| first + pages);
    if end > len_pages && !ranges.is_empty() {
        return wrong("a range beyond the arena");
    }
    match next {
        Some(_) if ranges.len() < capacity => wrong("more, but the array was not full"),
        Some(next) if *next < end => wrong("goes on inside what was told"),
        _ => Ok(()),
    }
}
