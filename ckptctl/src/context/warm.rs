// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going on in the arena of a program that died.
//!
//! Whatever that program was in the middle of, a commit or a rollback, the module has stamped
//! every page that it wrote. What changed since an epoch of the chain that the arena was in is
//! put right from the chain, and the rest is right.

use std::time::Duration;
use std::time::Instant;

use super::Context;
use super::Inner;
use super::rollback::Changed;
use super::rollback::Known;
use super::rollback::check_place;
use crate::arena::Arena;
use crate::error::Error;
use crate::store::CommitMeta;
use crate::store::Identity;
use crate::store::Writer;
use crate::track;
use crate::track::Choice;
use crate::track::Geometry;
use crate::warm::Going;
use crate::warm::Kept;
use crate::warm::Survivor;

/// For how long the dead program may go without having been waited for by its parent.
const WAITED_FOR: Duration = Duration::from_secs(1);

/// An arena that was taken over, with the state of the epoch that was asked for.
pub(super) struct Taken {
    pub(super) arena: Arena,
    pub(super) known: Known,
    pub(super) pages: u64,
    pub(super) took: Duration,
}

/// What the program would restore.
pub(super) struct Wanted<'a> {
    pub(super) choice: Choice,
    pub(super) geometry: &'a Geometry,
    /// The highest epoch of the chain.
    pub(super) in_chain: u64,
    pub(super) meta: Option<&'a CommitMeta>,
    pub(super) identity: &'a Identity,
}

impl Taken {
    /// Takes over an arena, or tells why it cannot be.
    pub(super) fn from(
        survivor: &Survivor,
        writer: &mut Writer,
        wanted: &Wanted<'_>,
    ) -> Result<Taken, String> {
        let begun = Instant::now();
        let kept = &survivor.kept;
        let Wanted {
            choice,
            geometry,
            in_chain,
            meta,
            identity,
        } = *wanted;
        let Some(meta) = meta else {
            return Err("it begins anew".into());
        };
        if (kept.base, kept.len_bytes) != (geometry.base, geometry.len_bytes) {
            return Err("its arena shall have another place or size".into());
        }
        let failed = |error: Error| error.to_string();
        let settled = writer.settled().map_err(|error| error.to_string())?;
        let chain = settled.chain;
        let newest = chain.commits().next_back();
        if !newest.is_some_and(|newest| kept.generations.contains(&newest.generation)) {
            return Err("the chain has moved on without its arena".into());
        }
        let known = Known::of(kept);
        if known.when(meta.epoch).is_none() {
            return Err(format!("its arena is younger than epoch {}", meta.epoch));
        }
        let fd = survivor.fd.try_clone().map_err(|error| error.to_string())?;
        let tracker = track::adopt(choice, fd, geometry).map_err(failed)?;
        let mut arena = Arena::prepare(tracker, &meta.regions).map_err(failed)?;
        check_place(&arena, meta).map_err(failed)?;
        let changed = Changed::find(&mut arena, chain, meta, known).map_err(failed)?;
        let pages = changed
            .put_right(&mut arena, chain, meta, identity)
            .map_err(failed)?;
        // Its own epoch is behind all that it has written to the chain.
        let epoch = changed.closed;
        if epoch <= in_chain {
            return Err(format!(
                "its arena is at epoch {epoch} and the chain at {in_chain}"
            ));
        }
        // Only now: until its state is right again nobody shall take this process for its program.
        if let Some(fd) = arena.fd() {
            fd.take_over(WAITED_FOR)
                .map_err(|error| format!("its arena cannot be taken over: {error}"))?;
        }
        Ok(Taken {
            arena,
            known,
            pages,
            took: begun.elapsed(),
        })
    }

    /// How the program goes on.
    pub(super) fn going(&self) -> Going {
        Going::Warm {
            pages: self.pages,
            took: self.took,
        }
    }
}

impl Known {
    fn of(kept: &Kept) -> Known {
        Known {
            begun: kept.begun,
            filled_with: kept.filled_with,
        }
    }

    /// What a supervisor has to know of an arena, whose program has these generations.
    pub(super) fn kept(self, arena: &Arena, generations: [[u8; 16]; 2]) -> Kept {
        Kept {
            generations,
            begun: self.begun,
            filled_with: self.filled_with,
            base: arena.base(),
            len_bytes: arena.len_bytes(),
        }
    }
}

impl Inner {
    /// The same of a context's arena.
    pub(super) fn kept(&self, generations: [[u8; 16]; 2]) -> Kept {
        self.known.kept(&self.arena, generations)
    }
}

impl Context {
    /// A sign of life, for `ckptctl run --watchdog`: a program that neither commits nor gives one
    /// for as long as is said there is taken for dead, killed, and started again. Costs a look at
    /// the clock most of the time, and nothing without a watchdog. Only the first context of a
    /// program is looked at.
    pub fn alive(&self) -> Result<(), Error> {
        self.check_process()?;
        if let Some(supervisor) = &self.shared.supervisor {
            supervisor.alive();
        }
        Ok(())
    }
}
