// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots in flight: makes them, lets them hand over their pages, and compares.

use super::backend::Backend;
use super::backend::Committed;
use super::backend::GatherCall;
use super::model::Model;
use super::op::Closing;
use super::op::Op;
use super::shot::Shot;

/// Snapshots that are open at the same time, at most.
const SHOTS: usize = 5;

/// All snapshots of a run.
pub struct Snapshots {
    shots: Vec<Option<Shot>>,
}

/// What was done with snapshots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Made.
    pub made: usize,
    /// Calls that handed pages over.
    pub gathers: usize,
    /// Pages compared byte by byte.
    pub compared: usize,
    /// Times that a snapshot had to give pages up for a write.
    pub emptied: usize,
}

impl Snapshots {
    /// None yet.
    pub fn new() -> Self {
        Self {
            shots: (0..SHOTS).map(|_| None).collect(),
        }
    }

    /// By number; `None` where one can be made.
    pub fn shots(&self) -> &[Option<Shot>] {
        &self.shots
    }

    /// Closes the epoch with a snapshot. The model learns of the commit by `commit`.
    pub fn make(
        &mut self,
        backend: &mut impl Backend,
        model: &mut Model,
        op: &Op,
        counts: &mut Counts,
    ) -> Result<Committed, String> {
        let Op::CommitWithSnapshot {
            shot,
            since,
            reserve,
        } = *op
        else {
            return Err(format!("no commit with a snapshot: {op}"));
        };
        let made = backend.commit_with_snapshot(shot, since, reserve)?;
        model.commit();
        self.shots[shot] = Some(Shot::new(model, since, reserve, made)?);
        counts.made += 1;
        Ok(made.committed)
    }

    /// Carries out what is done with a snapshot.
    pub fn act(
        &mut self,
        backend: &mut impl Backend,
        model: &Model,
        op: &Op,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match *op {
            Op::Gather { shot, ref call } => {
                self.gather(backend, model, shot, call, counts)?;
            }
            Op::Thaw { shot, pgoff, pages } => {
                backend.thaw(shot, pgoff, pages)?;
                self.open(shot)?.thaw(model, pgoff, pages);
            }
            Op::SnapshotInfo { shot } => {
                let facts = backend.snapshot_facts(shot)?;
                self.open(shot)?.check_facts(&facts)?;
            }
            Op::CloseSnapshot { shot, how } => {
                backend.close_snapshot(shot, how)?;
                self.shots[shot] = None;
            }
            ref other => return Err(format!("nothing to do with a snapshot: {other}")),
        }
        Ok(())
    }

    /// Makes it possible to write to these pages: where a snapshot may have no copies left
    /// for them, its consumer takes all that it has.
    pub fn make_room(
        &mut self,
        backend: &mut impl Backend,
        model: &Model,
        pages: &[usize],
        counts: &mut Counts,
    ) -> Result<(), String> {
        for shot in 0..self.shots.len() {
            let full = self.shots[shot]
                .as_ref()
                .is_some_and(|open| open.is_full_for(pages.iter().copied()));
            if full {
                counts.emptied += 1;
                self.empty(backend, model, shot, counts)?;
            }
        }
        Ok(())
    }

    /// Pages were touched for writing.
    pub fn disturb(&mut self, pages: &[usize], written: bool) {
        for open in self.shots.iter_mut().flatten() {
            pages.iter().for_each(|dense| open.disturb(*dense, written));
        }
    }

    /// Takes everything out of all snapshots and closes them.
    pub fn finish(
        &mut self,
        backend: &mut impl Backend,
        model: &Model,
        counts: &mut Counts,
    ) -> Result<(), String> {
        for shot in 0..self.shots.len() {
            if self.shots[shot].is_none() {
                continue;
            }
            self.empty(backend, model, shot, counts)?;
            let facts = backend.snapshot_facts(shot)?;
            self.open(shot)?.check_facts(&facts)?;
            backend.close_snapshot(shot, Closing::Close)?;
            self.shots[shot] = None;
        }
        Ok(())
    }

    fn empty(
        &mut self,
        backend: &mut impl Backend,
        model: &Model,
        shot: usize,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let mut call = GatherCall {
            start: 0,
            capacity: 64,
            buffer_pages: 128,
            thaw: true,
        };
        while let Some(next) = self.gather(backend, model, shot, &call, counts)? {
            call.start = next;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        backend: &mut impl Backend,
        model: &Model,
        shot: usize,
        call: &GatherCall,
        counts: &mut Counts,
    ) -> Result<Option<u64>, String> {
        let part = backend.gather(shot, call)?;
        self.open(shot)?.take(model, call, &part)?;
        counts.gathers += 1;
        if call.buffer_pages > 0 {
            counts.compared += part.pages as usize;
        }
        Ok(part.next)
    }

    fn open(&mut self, shot: usize) -> Result<&mut Shot, String> {
        self.shots[shot]
            .as_mut()
            .ok_or_else(|| format!("snapshot {shot} is not open"))
    }
}
