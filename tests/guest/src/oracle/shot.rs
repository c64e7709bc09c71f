// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a snapshot must hold and show, with the checks of what it hands over.

use super::backend::GatherCall;
use super::backend::Gathered;
use super::backend::SnapshotFacts;
use super::backend::SnapshotMade;
use super::model::Content;
use super::model::Model;
use crate::device::PAGE;

/// What is known of a page in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It is not there, or not any more.
    No,
    /// It may be there: something touched it for writing, but wrote nothing.
    May,
    /// It is there.
    Must,
}

/// The model of one snapshot.
pub struct Shot {
    epoch: u64,
    since: u64,
    /// The content as of its commit.
    content: Content,
    held: Vec<Held>,
    /// Pages touched for writing since the commit: they may have been copied aside.
    disturbed: Vec<bool>,
    /// Pages written since the commit: as long as they are held, they have been copied.
    written: Vec<bool>,
    made: SnapshotMade,
}

impl Shot {
    /// A snapshot of what changed after `since`; the model has made the commit.
    pub fn new(
        model: &Model,
        since: u64,
        reserve: u64,
        made: SnapshotMade,
    ) -> Result<Self, String> {
        let pages = model.geometry().dense_pages();
        let held: Vec<_> = (0..pages)
            .map(|dense| {
                if model.written_since(dense, since) {
                    Held::Must
                } else if model.touched_since(dense, since) {
                    Held::May
                } else {
                    Held::No
                }
            })
            .collect();
        let shot = Self {
            epoch: model.epoch(),
            since,
            content: model.committed().clone(),
            held,
            disturbed: vec![false; pages],
            written: vec![false; pages],
            made,
        };
        let (least, most) = shot.held_bounds();
        if !(least..=most).contains(&made.pages) {
            return Err(format!(
                "the snapshot has {} pages, not {least} to {most}",
                made.pages
            ));
        }
        let wanted = if reserve == 0 {
            made.pages
        } else {
            reserve.min(made.pages)
        };
        if made.reserve_pages < wanted {
            return Err(format!(
                "{} pages of {} may be copied aside, {reserve} were asked for",
                made.reserve_pages, made.pages
            ));
        }
        Ok(shot)
    }

    /// Pages at which something happens: where runs of held pages begin and end.
    pub fn edges(&self) -> Vec<usize> {
        (0..self.held.len())
            .filter(|dense| {
                let before = dense
                    .checked_sub(1)
                    .map_or(Held::No, |prior| self.held[prior]);
                before != self.held[*dense]
            })
            .collect()
    }

    /// Least and most pages that it holds.
    fn held_bounds(&self) -> (u64, u64) {
        let count = |wanted: &dyn Fn(Held) -> bool| {
            self.held.iter().filter(|held| wanted(**held)).count() as u64
        };
        (
            count(&|held| held == Held::Must),
            count(&|held| held != Held::No),
        )
    }

    /// Whether touching these pages for writing may need more copies than there may be.
    pub fn is_full_for(&self, pages: impl Iterator<Item = usize>) -> bool {
        if self.made.reserve_pages >= self.made.pages {
            return false;
        }
        let may_be_copied = |dense: usize| self.held[dense] != Held::No;
        let copied = (0..self.held.len())
            .filter(|dense| self.disturbed[*dense] && may_be_copied(*dense))
            .count();
        let more = pages
            .filter(|dense| !self.disturbed[*dense] && may_be_copied(*dense))
            .count();
        more > 0 && (copied + more) as u64 > self.made.reserve_pages
    }

    /// A page was touched for writing after the commit.
    pub fn disturb(&mut self, dense: usize, written: bool) {
        self.disturbed[dense] = true;
        self.written[dense] |= written;
    }

    /// Checks what a call handed over, every byte of it.
    pub fn take(
        &mut self,
        model: &Model,
        call: &GatherCall,
        part: &Gathered,
    ) -> Result<(), String> {
        check_shape(call, part, model.geometry().len_pages)?;
        let mut from = call.start;
        for (index, pgoff) in part.page_offsets().into_iter().enumerate() {
            self.pass_over(model, from, pgoff)?;
            from = pgoff + 1;
            let dense = model
                .geometry()
                .dense(pgoff)
                .filter(|dense| self.held[*dense] != Held::No)
                .ok_or_else(|| self.wrong(pgoff, "is handed over but is not in it"))?;
            if call.buffer_pages > 0 {
                let content = &part.content[index * PAGE..(index + 1) * PAGE];
                self.compare(dense, pgoff, content)?;
            }
            self.held[dense] = if call.thaw { Held::No } else { Held::Must };
        }
        match part.next {
            None => self.pass_over(model, from, u64::MAX),
            Some(next) if next < from => Err(format!("goes on at {next}, inside what was told")),
            Some(next) => {
                self.pass_over(model, from, next)?;
                let (_, most) = self.held_bounds_from(model, next);
                match most {
                    0 => Err(format!(
                        "says there is more at or after {next}, but all was told"
                    )),
                    _ => Ok(()),
                }
            }
        }
    }

    // A call went over these pages without handing them over.
    fn pass_over(&mut self, model: &Model, from: u64, to: u64) -> Result<(), String> {
        for window in model.geometry().windows() {
            let end = window.pgoff + window.pages as u64;
            for pgoff in from.max(window.pgoff)..to.min(end) {
                let dense = window.dense + (pgoff - window.pgoff) as usize;
                match self.held[dense] {
                    Held::Must => return Err(self.wrong(pgoff, "was passed over")),
                    Held::May => self.held[dense] = Held::No,
                    Held::No => {}
                }
            }
        }
        Ok(())
    }

    fn held_bounds_from(&self, model: &Model, from: u64) -> (u64, u64) {
        let mut bounds = (0, 0);
        for (dense, held) in self.held.iter().enumerate() {
            if *held != Held::No && model.geometry().pgoff(dense) >= from {
                bounds.0 += u64::from(*held == Held::Must);
                bounds.1 += 1;
            }
        }
        bounds
    }

    fn compare(&self, dense: usize, pgoff: u64, content: &[u8]) -> Result<(), String> {
        if *content == self.content[dense][..] {
            return Ok(());
        }
        let at = content
            .iter()
            .zip(self.content[dense].iter())
            .position(|(one, other)| one != other);
        Err(format!(
            "UNFORGIVABLE: {}: first at byte {at:?}",
            self.wrong(pgoff, "is not what it was at the commit")
        ))
    }

    fn wrong(&self, pgoff: u64, what: &str) -> String {
        format!(
            "page {pgoff} of the snapshot of epoch {} since {} {what}",
            self.epoch, self.since
        )
    }

    /// A range was thawed.
    pub fn thaw(&mut self, model: &Model, pgoff: u64, pages: u64) {
        for dense in 0..self.held.len() {
            let at = model.geometry().pgoff(dense);
            if at >= pgoff && at - pgoff < pages {
                self.held[dense] = Held::No;
            }
        }
    }

    /// Checks what it tells about itself.
    pub fn check_facts(&self, facts: &SnapshotFacts) -> Result<(), String> {
        let same = (facts.epoch, facts.since, facts.pages, facts.reserve_pages)
            == (
                self.epoch,
                self.since,
                self.made.pages,
                self.made.reserve_pages,
            );
        let (least, most) = self.held_bounds();
        let copied = (0..self.held.len())
            .filter(|dense| self.written[*dense] && self.held[*dense] == Held::Must)
            .count() as u64;
        if !same {
            return Err(format!("tells {facts:?}, made as {:?}", self.made));
        }
        if !(least..=most).contains(&facts.held_pages) {
            return Err(format!(
                "holds {} pages, not {least} to {most}",
                facts.held_pages
            ));
        }
        if facts.copied_pages < copied
            || facts.copied_pages > facts.held_pages.min(facts.reserve_pages)
        {
            return Err(format!(
                "has copied {} pages, not {copied} to {} of {} held",
                facts.copied_pages, facts.reserve_pages, facts.held_pages
            ));
        }
        Ok(())
    }
}

// What the header says about the answer to one call.
fn check_shape(call: &GatherCall, part: &Gathered, len_pages: u64) -> Result<(), String> {
    let wrong = |what: &str| {
        Err(format!(
            "{call:?}: {what}: {} pages, {:?}, next {:?}",
            part.pages, part.ranges, part.next
        ))
    };
    if part.ranges.len() > call.capacity {
        return wrong("more entries than fit");
    }
    if part.ranges.iter().any(|(_, pages)| *pages == 0) {
        return wrong("an empty range");
    }
    if part.pages != part.ranges.iter().map(|(_, pages)| pages).sum::<u64>() {
        return wrong("pages is not the sum");
    }
    if call.buffer_pages > 0 && part.pages > call.buffer_pages as u64 {
        return wrong("more pages than fit");
    }
    if call.buffer_pages > 0 && part.content.len() as u64 != part.pages * PAGE as u64 {
        return wrong("not the content of as many pages");
    }
    if part
        .ranges
        .windows(2)
        .any(|two| two[0].0 + two[0].1 >= two[1].0)
    {
        return wrong("ranges are not ascending, disjoint and apart");
    }
    if part
        .ranges
        .first()
        .is_some_and(|(first, _)| *first < call.start)
    {
        return wrong("a range before the start");
    }
    if part
        .ranges
        .last()
        .is_some_and(|(first, pages)| first + pages > len_pages)
    {
        return wrong("a range beyond the arena");
    }
    if part.next.is_some() && part.pages == 0 {
        return wrong("more, but nothing was handed over");
    }
    Ok(())
}
