// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The arena that a spare keeps, with the state that the program will go on from.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use crate::arena::Arena;
use crate::error::Error;
use crate::options::TAKEOVER_GAP;
use crate::store::Chain;
use crate::store::CommitId;
use crate::store::Image;
use crate::store::RegionEntry;
use crate::sys::memory::PAGE;
use crate::track;
use crate::track::Choice;
use crate::track::Geometry;
use crate::warm::Kept;

/// An arena that nobody works on.
pub(super) struct SpareArena {
    arena: Arena,
    /// Its own first epoch.
    begun: u64,
    at: Option<CommitId>,
    regions: Vec<RegionEntry>,
}

impl Image for Arena {
    fn read(&self, pgoff: u64, to: &mut [u8]) {
        self.read_pages(pgoff, to);
    }

    fn write(&mut self, pgoff: u64, bytes: &[u8]) -> bool {
        self.write_pages(pgoff, bytes).is_ok()
    }

    fn clear(&mut self, pages: Range<u64>) -> bool {
        // One that is zero, because it never was touched, stays so.
        pages
            .into_iter()
            .all(|page| self.put_pages(page, &[0; PAGE]).is_ok())
    }
}

impl SpareArena {
    /// An arena of the module's for the state of an epoch of a chain.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] and [`Error::DeviceAccess`] without the module.
    pub(super) fn open(name: &str, chain: &Chain, epoch: u64) -> Result<SpareArena, Error> {
        let meta = chain.get(epoch)?;
        let newest = chain.commits().next_back().map_or(epoch, |info| info.epoch);
        let begun = newest.saturating_add(TAKEOVER_GAP);
        let geometry = Geometry {
            name: name.to_owned(),
            base: meta.arena_base,
            len_bytes: meta.arena_len_pages << meta.page_shift,
            epoch: begun,
        };
        let tracker = track::open(Choice::Module, &geometry)?;
        Ok(SpareArena {
            arena: Arena::prepare(tracker, &meta.regions)?,
            begun,
            at: None,
            regions: Vec::new(),
        })
    }

    /// The commit whose state it has.
    pub(super) fn at(&self) -> Option<CommitId> {
        self.at
    }

    /// Whether it can be brought to an epoch of a chain, and handed over then.
    pub(super) fn fits(&self, chain: &Chain, epoch: u64) -> Result<bool, Error> {
        let meta = chain.get(epoch)?;
        let behind = self.at.is_none_or(|at| chain.has(at));
        let len = meta.arena_len_pages << meta.page_shift;
        let newest = chain.commits().next_back().map_or(epoch, |info| info.epoch);
        Ok(behind
            && (meta.arena_base, len) == (self.arena.base(), self.arena.len_bytes())
            && newest.saturating_add(TAKEOVER_GAP / 2) < self.begun)
    }

    /// Brings it to an epoch of a chain. Returns how many pages that took. After an error it is
    /// undefined.
    pub(super) fn bring_to(&mut self, chain: &Chain, epoch: u64) -> Result<u64, Error> {
        let Some(info) = chain.find(epoch).cloned() else {
            return Err(Error::Invalid(format!("there is no epoch {epoch}")));
        };
        let meta = chain.get(epoch)?;
        if meta.regions != self.regions {
            self.arena.reach(&meta.regions)?;
            self.regions = meta.regions;
        }
        let from = self.at.take().map(|at| at.epoch);
        let pages = match from {
            Some(_) if from == info.parent => chain.step(epoch, &mut self.arena)?,
            _ => chain.jump(from, epoch, &mut self.arena)?,
        };
        // So that there is little to be looked at when it is handed over.
        self.arena.commit_reach()?;
        self.at = Some(info.id());
        Ok(pages)
    }

    /// Its descriptor, and what the program has to know that goes on in it. From then on the arena is
    /// not this process's.
    pub(super) fn hand_over(mut self) -> Result<(OwnedFd, Kept), Error> {
        let (Some(at), true) = (self.at, self.arena.fd().is_some()) else {
            return Err(Error::Invalid("the arena has no state yet".into()));
        };
        let begun = self.arena.commit_reach()?.epoch;
        let kept = Kept {
            generations: [at.generation; 2],
            begun,
            filled_with: Some(at.epoch),
            base: self.arena.base(),
            len_bytes: self.arena.len_bytes(),
        };
        let fd = self.arena.fd().map(|fd| fd.as_fd().try_clone_to_owned());
        match fd {
            Some(Ok(fd)) => Ok((fd, kept)),
            Some(Err(source)) => Err(failed(source)),
            None => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::System {
        doing: "hand the arena over",
        source,
    }
}
