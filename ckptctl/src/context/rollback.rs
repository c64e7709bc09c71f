// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Back to an epoch in place, touching only the pages that changed since.

use std::time::Instant;

use super::Context;
use super::Inner;
use super::PAGE_SHIFT;
use super::Shared;
use super::lock;
use crate::arena::Arena;
use crate::error::Error;
use crate::identity;
use crate::page_ranges::merged;
use crate::page_ranges::without;
use crate::store::Chain;
use crate::store::CommitMeta;
use crate::store::Identity;
use crate::store::Kind;
use crate::sys::memory::PAGE;
use crate::sys::process;
use crate::track::PageRange;

/// What a rollback did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackReport {
    /// The epoch whose state it is.
    pub to: u64,
    /// The epoch that this state has from now on.
    pub epoch: u64,
    /// Pages that were put right.
    pub pages: u64,
    /// How long the call took, hooks included.
    pub total_ns: u64,
}

/// Which epochs of its chain an arena's stamps can tell something of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The epochs of the chain from this one on are states that the arena was in, in its epoch of
    /// the same number.
    pub(super) begun: u64,
    /// What it was filled with in epoch `begun`, if it was.
    pub(super) filled_with: Option<u64>,
}

impl Known {
    /// The arena's epoch in which its state was that of an epoch of the chain, if it is known.
    pub(super) fn when(&self, epoch: u64) -> Option<u64> {
        match epoch {
            _ if epoch >= self.begun => Some(epoch),
            _ if self.filled_with == Some(epoch) => Some(self.begun),
            _ => None,
        }
    }
}

impl Context {
    /// Goes back to a durable epoch, 0 for the last, without a new start: the whole arena is as it
    /// was then, regions, heap and root with it. Only pages that changed since are touched. The
    /// state gets a new epoch and generation, the hooks behind a restore run, and commits go on
    /// from there; the epochs in between stay in the chain.
    ///
    /// First waits until nothing is on its way, and until no thread is inside (see
    /// [`Context::enter`]). The caller sees to it that no other thread uses the arena meanwhile,
    /// and drops what it holds of the later state: pointers to blocks that were allocated since,
    /// for example. Outputs that wait for what is not durable are lost.
    ///
    /// # Errors
    ///
    /// Nothing has changed after [`Error::Store`] (no such epoch, or it is damaged), a refused
    /// identity or place, or [`Error::Memlock`]. After [`Error::Undefined`] the state is neither
    /// the one nor the other: another rollback or the program's end helps, and all else is
    /// refused. After [`Error::NotDurable`] the state is the old one, which could not be written
    /// down yet: the next commit does. After [`Error::Hook`] it is done, too.
    pub fn rollback(&self, epoch: u64) -> Result<RollbackReport, Error> {
        self.refuse_in_hooks("rollback")?;
        let shared = &self.shared;
        shared.threads.refuse_inside("rollback")?;
        let _turn = lock(&shared.turn);
        let begun = Instant::now();
        shared.queue.drain()?;
        let to = match (epoch, shared.queue.durable()) {
            (0, None) => {
                return Err(Error::Invalid(
                    "there is nothing to go back to: nothing was committed yet".into(),
                ));
            }
            (0, Some(last)) => last,
            (epoch, _) => epoch,
        };
        let _held = shared.threads.hold()?;
        let (pages, noted) = shared.go_back(&mut lock(&shared.inner), to)?;
        shared.queue.taken_back();
        let hooks = lock(&shared.hooks).clone();
        let accepted = self.in_hooks(|| hooks.after_rollback(self, to));
        let epoch = noted?;
        accepted?;
        Ok(RollbackReport {
            to,
            epoch,
            pages,
            total_ns: begun.elapsed().as_nanos() as u64,
        })
    }
}

impl Shared {
    /// Puts the arena back; how many pages that took, and the new epoch, or why it is not durable.
    fn go_back(&self, inner: &mut Inner, to: u64) -> Result<(u64, Result<u64, Error>), Error> {
        let mut end = lock(&self.chain_end);
        let settled = end.chain()?;
        let chain = settled.chain;
        let meta = chain.get(to)?;
        check_place(&inner.arena, &meta)?;
        identity::check(&meta.identity, &self.identity)?;
        let generation = new_generation()?;
        let changed = Changed::find(&mut inner.arena, chain, &meta, inner.known)?;
        changed.check(chain, to)?;
        // What that state does not have at its address stays as it is, and is not the arena's.
        inner.arena.release_all_but(&meta.regions)?;
        inner.undefined = Some(to);
        let count = changed.put_right(&mut inner.arena, chain, &meta, &self.identity);
        let done = count.and_then(|count| Ok((count, inner.arena.commit_reach()?)));
        let (count, committed) = done.map_err(|source| Error::Undefined {
            epoch: to,
            why: source.to_string(),
        })?;
        inner.undefined = None;
        drop(settled);
        let before = std::mem::replace(&mut *lock(&self.generation), generation);
        if let Some(supervisor) = &self.supervisor {
            supervisor.keep(inner.kept([generation, before]), None);
            supervisor.alive();
        }
        self.control.closed(committed.epoch);
        let meta = self.meta(inner, committed, Kind::Rollback, Some(to));
        let noted = self
            .queue
            .went_back(committed.epoch, to, end.append_empty(&meta));
        if let Ok(epoch) = noted {
            self.control.saved(epoch);
        }
        Ok((count, noted))
    }
}

/// The pages in which an arena may differ from an epoch of its chain.
pub(super) struct Changed {
    /// Ascending, disjoint.
    pages: Vec<PageRange>,
    /// The epoch that was closed to find them.
    pub(super) closed: u64,
    /// They are all that there are: what else the epoch has must be looked at as well, and most of
    /// it may be right already.
    all: bool,
}

impl Changed {
    /// Closes an epoch of the arena, and finds them. What the arena says of itself is not relied
    /// on, and who follows it from outside does not get that epoch: its state is what the program
    /// happened to have, and wants to be rid of.
    pub(super) fn find(
        arena: &mut Arena,
        chain: &Chain,
        meta: &CommitMeta,
        known: Known,
    ) -> Result<Changed, Error> {
        arena.reach(&meta.regions)?;
        let since = known.when(meta.epoch);
        let closed = arena.commit_reach_quietly()?.epoch;
        let mut pages = arena.delta(since.unwrap_or(0))?;
        if since.is_none() {
            for run in chain.load(meta.epoch)?.pages_of() {
                pages.push(run);
            }
            pages = merged(pages);
        }
        Ok(Changed {
            pages,
            closed,
            all: since.is_none(),
        })
    }

    /// Reads all that will be put in, so that damage shows before anything has changed.
    fn check(&self, chain: &Chain, epoch: u64) -> Result<(), Error> {
        let mut loader = chain.load(epoch)?.only(&self.pages);
        while loader.next_run()?.is_some() {}
        Ok(())
    }

    /// Makes them what the epoch has. Returns how many were something else, or may have been.
    pub(super) fn put_right(
        &self,
        arena: &mut Arena,
        chain: &Chain,
        meta: &CommitMeta,
        identity: &Identity,
    ) -> Result<u64, Error> {
        let mut loader = chain.load(meta.epoch)?.only(&self.pages);
        // What is not handed out is zero in that epoch.
        let zero = without(&self.pages, merged(loader.pages_of().collect()));
        let mut count = 0;
        for page in zero.into_iter().flatten() {
            count += arena.put_pages(page, &[0; PAGE])?;
        }
        while let Some(run) = loader.next_run()? {
            count += match self.all {
                true => arena.put_pages(run.pgoff, run.bytes)?,
                false => arena.write_pages(run.pgoff, run.bytes)?,
            };
        }
        arena.resume()?;
        arena.set_identity(identity);
        Ok(count)
    }
}

/// Whether an epoch of a chain fits the place of an arena.
pub(super) fn check_place(arena: &Arena, meta: &CommitMeta) -> Result<(), Error> {
    if meta.page_shift != PAGE_SHIFT
        || meta.arena_base != arena.base()
        || meta.arena_len_pages > arena.len_bytes() >> PAGE_SHIFT
    {
        return Err(Error::Invalid(format!(
            "epoch {} is of an arena of another place or size: start the program from it (`ckptctl restore`)",
            meta.epoch
        )));
    }
    Ok(())
}

/// 16 random bytes.
pub(super) fn new_generation() -> Result<[u8; 16], Error> {
    let mut generation = [0; 16];
    process::random(&mut generation).map_err(|source| Error::System {
        doing: "draw a random number",
        source,
    })?;
    Ok(generation)
}
