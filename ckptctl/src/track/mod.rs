// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trackers: who owns an arena's memory and knows which of its pages changed.

mod adoptions;
mod choice;
mod compare;
mod module;
mod pagemap;
mod stamps;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::error::Error;
use crate::sys::device::ArenaFd;
use crate::sys::memory::Mapping;
use crate::sys::span::Span;
pub use adoptions::Adoption;
pub use adoptions::Adoptions;
pub use choice::Choice;
pub use choice::MODULE_GIVES;
pub(crate) use choice::adopt;
pub use choice::open;
pub use choice::try_pagemap;

/// Pages of an arena: first, and behind the last.
pub type PageRange = Range<u64>;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The epoch closed.
    pub epoch: u64,
    /// For how long writers were held up.
    pub pause_ns: u64,
}

/// An arena's memory, and which pages of it changed since any epoch.
pub trait Tracker: Send {
    /// Name, as [`Choice`] has it.
    fn name(&self) -> &'static str;

    /// The memory.
    fn mapping(&self) -> &Mapping;

    /// Where pages are read and written, in order.
    fn places(&self, pages: PageRange) -> Vec<(PageRange, NonNull<u8>)>;

    /// Memory of the program's that is the arena's now.
    fn adoptions(&self) -> &Adoptions;

    /// Makes memory of the program's pages of the arena: what is written there from now on is
    /// told as theirs, and they are what is there. Nobody writes to either meanwhile. When it
    /// fails all is as it was, and pages that were zero are.
    ///
    /// The memory is private, has no file, is neither locked nor adopted, and the pages are as
    /// many and not adopted.
    fn adopt(&mut self, pages: PageRange, memory: Span, wins: Wins) -> Result<(), Error>;

    /// Makes adopted memory the program's own again, with what is in it now. Nobody uses it
    /// meanwhile. What the pages are then is not said.
    fn release(&mut self, pages: PageRange) -> Result<(), Error>;

    /// Sees to it that `pages` pages in all can be touched.
    fn reserve(&mut self, pages: u64) -> Result<(), Error>;

    /// Closes an epoch. Only pages within `used` are ever written by the program.
    fn commit(&mut self, used: &[PageRange]) -> Result<Committed, Error>;

    /// Closes an epoch whose state nobody shall have, to learn what has changed: who follows the
    /// arena from outside is told of the next commit.
    fn commit_quietly(&mut self, used: &[PageRange]) -> Result<Committed, Error> {
        self.commit(used)
    }

    /// Closes an epoch, with a snapshot of the pages that changed after epoch `since`. Several
    /// snapshots may be there at the same time.
    ///
    /// Who writes to a page that a snapshot holds may have to wait until the page was handed
    /// over. When `whole` is set nobody has to, or the snapshot is refused.
    fn commit_with_snapshot(
        &mut self,
        used: &[PageRange],
        since: u64,
        whole: bool,
    ) -> Result<Frozen, Error>;

    /// The pages that changed after epoch `since` and up to the last commit: ascending,
    /// disjoint. May name pages that did not; never misses one that did.
    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error>;

    /// The arena of the module, if there is one behind it.
    fn arena(&self) -> Option<&ArenaFd> {
        None
    }

    /// What snapshots have cost the program since the arena was made.
    fn snapshot_costs(&self) -> Result<SnapshotCosts, Error> {
        Ok(SnapshotCosts::default())
    }
}

/// Whose content it is, when memory is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wins {
    /// The memory's: the pages are new, and zero.
    Memory,
    /// The pages': they were restored.
    Pages,
}

/// What became of a commit with a snapshot.
pub enum Frozen {
    /// The epoch is closed.
    Made(Committed, Box<dyn Snapshot>),
    /// There can be no snapshot now. The epoch may be closed or not, which takes nothing from
    /// any later commit.
    Refused(io::Error),
}

/// The pages that changed up to a commit, as they were then, whatever is written meanwhile.
/// Ends when it is dropped.
pub trait Snapshot: Send {
    /// How many pages it was made with.
    fn pages(&self) -> u64;

    /// Hands over the next pages, by ascending number: their content in `buffer`, which takes a
    /// page at least, without gaps; their numbers in `runs`. None are left when `runs` is empty.
    /// What was handed over is no longer held.
    fn gather(&mut self, buffer: &mut [u8], runs: &mut Vec<PageRange>) -> Result<(), Error>;
}

/// What snapshots have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCosts {
    /// Pages copied aside because they were written while a snapshot held them.
    pub copied_pages: u64,
    /// Times that a writer had to wait until its page was handed over.
    pub writer_waits: u64,
}

/// Adds a page behind all others to ranges.
fn push_page(ranges: &mut Vec<PageRange>, page: u64) {
    push_run(ranges, page..page + 1);
}

/// Adds a run of pages behind all others to ranges.
fn push_run(ranges: &mut Vec<PageRange>, run: PageRange) {
    match ranges.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => ranges.push(run),
    }
}

/// What an arena is made with.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// For people.
    pub name: String,
    /// Address.
    pub base: u64,
    /// Bytes, whole pages.
    pub len_bytes: u64,
    /// The first commit's epoch is one above.
    pub epoch: u64,
}

fn map_error(geometry: &Geometry, source: std::io::Error) -> Error {
    match source.raw_os_error() {
        Some(nix::libc::EEXIST) => Error::AddressTaken {
            base: geometry.base,
            end: geometry.base + geometry.len_bytes,
        },
        _ => Error::Map {
            len_bytes: geometry.len_bytes,
            source,
        },
    }
}
