// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An arena as a program sees it: regions at fixed addresses, a heap, a root pointer.

mod adopting;
mod filling;
mod head;
mod heap;
mod memory_kind;
mod outside;
mod rewind;

use std::ptr::NonNull;

pub use adopting::Adopted;
pub(crate) use filling::Filling;
pub use head::HEAD_PAGES;
pub use head::NAME_MAX;
pub use head::REGIONS_MAX;
pub(crate) use heap::Heap;
pub use outside::OutsideView;

use crate::error::Error;
use crate::store::Identity;
use crate::store::RegionEntry;
use crate::sys::device::ArenaFd;
use crate::sys::memory::PAGE;
use crate::track::Committed;
use crate::track::Frozen;
use crate::track::PageRange;
use crate::track::SnapshotCosts;
use crate::track::Tracker;
use head::Entry;
use head::Head;

/// What a program asks a region to be.
#[derive(Clone, Copy, Debug)]
pub struct RegionSpec<'a> {
    /// Its name: 1 to [`NAME_MAX`] printable ASCII characters.
    pub name: &'a str,
    /// The program's own number for what is in it.
    pub kind: u32,
    /// Bytes it shall have now; rounded up to pages.
    pub len_bytes: u64,
    /// Bytes of address space to keep for it; 0 for no more than it has now.
    pub reserve_bytes: u64,
}

/// The memory of a program's state.
pub(crate) struct Arena {
    tracker: Box<dyn Tracker>,
    /// What pages can have been written so far, whatever became of the head: ascending,
    /// disjoint.
    reach: Vec<PageRange>,
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE as u64)
}

impl Arena {
    /// An arena with nothing in it.
    pub(crate) fn begin(mut tracker: Box<dyn Tracker>) -> Result<Arena, Error> {
        tracker.reserve(HEAD_PAGES)?;
        let mut arena = Arena {
            tracker,
            reach: vec![0..HEAD_PAGES],
        };
        let (base, len) = (arena.base(), arena.len_bytes());
        arena.head().begin(base, len);
        Ok(arena)
    }

    /// An arena for a state that was saved with these regions, to be filled by
    /// [`Arena::filling`] and examined by [`Arena::resume`].
    pub(crate) fn prepare(
        mut tracker: Box<dyn Tracker>,
        regions: &[RegionEntry],
    ) -> Result<Arena, Error> {
        let len = regions.iter().fold(HEAD_PAGES, |sum, region| {
            sum.saturating_add(region.len_pages)
        });
        tracker.reserve(len)?;
        Ok(Arena {
            tracker,
            reach: vec![0..HEAD_PAGES],
        })
    }

    /// Examines what was restored.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        let (base, len) = (self.base(), self.len_bytes());
        self.head().resume(base, len)?;
        self.note_reach();
        heap::check(self.head())
    }

    /// Notes which program works on it.
    pub(crate) fn set_identity(&mut self, identity: &Identity) {
        self.head().set_identity(identity);
    }

    /// Name of the tracker behind it.
    pub(crate) fn tracker_name(&self) -> &'static str {
        self.tracker.name()
    }

    /// Address of the arena.
    pub(crate) fn base(&self) -> u64 {
        self.tracker.mapping().base().as_ptr() as u64
    }

    /// Size of the arena.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.tracker.mapping().len_bytes() as u64
    }

    fn head(&mut self) -> &mut Head {
        // SAFETY: The arena begins with the head, for which it is large enough and aligned;
        // any bytes are a head. Nobody else uses these pages: the program is given regions
        // only, and this `&mut self` is the only way here.
        unsafe { self.tracker.mapping().base().cast::<Head>().as_mut() }
    }

    fn address(&self, entry: &Entry) -> NonNull<u8> {
        let base = self.tracker.mapping().base();
        // SAFETY: Regions lie within the arena: examined when they were made or restored.
        unsafe { base.add(entry.offset_pages as usize * PAGE) }
    }

    /// Charges what all regions have, and `more` pages.
    fn reserve_more(&mut self, more: u64) -> Result<(), Error> {
        let have: u64 = self
            .head()
            .entries()
            .iter()
            .map(|entry| entry.len_pages)
            .sum();
        self.tracker.reserve(HEAD_PAGES + have + more)
    }

    /// Finds a region, or makes it.
    pub(crate) fn region(&mut self, spec: &RegionSpec<'_>) -> Result<NonNull<u8>, Error> {
        check_name(spec.name)?;
        let len_pages = pages(spec.len_bytes);
        if len_pages == 0 {
            return Err(Error::Invalid(format!(
                "region {} cannot be empty: give it a length",
                spec.name
            )));
        }
        if let Some(entry) = self.head().find(spec.name).copied() {
            if let Some(address) = entry.adopted_at() {
                return Err(Error::Invalid(format!(
                    "region {} is adopted memory at {address:#x}: find it by ckpt_adopt",
                    spec.name
                )));
            }
            if entry.kind != spec.kind {
                return Err(Error::RegionType {
                    name: spec.name.to_owned(),
                    has: entry.kind,
                    wanted: spec.kind,
                });
            }
            self.grow(spec.name, spec.len_bytes)?;
            return Ok(self.address(&entry));
        }
        let reserve_pages = match spec.reserve_bytes {
            0 => len_pages,
            bytes => pages(bytes),
        };
        if reserve_pages < len_pages {
            return Err(Error::Invalid(format!(
                "region {} is {} bytes long and cannot have a reserve of {}: reserve at least its length",
                spec.name, spec.len_bytes, spec.reserve_bytes
            )));
        }
        self.reserve_more(len_pages)?;
        let entry = self
            .head()
            .add(spec.name, spec.kind, len_pages, reserve_pages)?;
        self.note_reach();
        Ok(self.address(&entry))
    }

    /// Makes a region at least `len_bytes` long.
    pub(crate) fn grow(&mut self, name: &str, len_bytes: u64) -> Result<(), Error> {
        let wanted = pages(len_bytes);
        let entry = *self
            .head()
            .find(name)
            .ok_or_else(|| Error::NoRegion(name.to_owned()))?;
        if wanted <= entry.len_pages {
            return Ok(());
        }
        if wanted > entry.reserve_pages() {
            return Err(Error::RegionFull {
                name: name.to_owned(),
                reserve_bytes: entry.reserve_pages() * PAGE as u64,
                wanted_bytes: len_bytes,
            });
        }
        self.reserve_more(wanted - entry.len_pages)?;
        if let Some(entry) = self.head().find(name) {
            entry.len_pages = wanted;
        }
        self.note_reach();
        Ok(())
    }

    /// Length of a region in bytes.
    pub(crate) fn region_len(&mut self, name: &str) -> Option<u64> {
        let entry = self.head().find(name)?;
        Some(entry.len_pages * PAGE as u64)
    }

    /// The region table.
    pub(crate) fn regions(&mut self) -> Vec<RegionEntry> {
        self.head().table()
    }

    /// The root pointer, 0 for none.
    pub(crate) fn root(&mut self) -> u64 {
        self.head().root
    }

    /// Sets the root pointer: 0, or an address in the arena.
    pub(crate) fn set_root(&mut self, root: u64) -> Result<(), Error> {
        let (base, len) = (self.base(), self.len_bytes());
        if root != 0 && !(base..base + len).contains(&root) {
            return Err(Error::Invalid(format!(
                "the root {root:#x} is not in the arena ({base:#x} to {:#x}): point it at what ckpt_malloc or ckpt_region gave",
                base + len
            )));
        }
        self.head().root = root;
        Ok(())
    }

    /// Pages that the program can have written.
    fn used(&mut self) -> Vec<PageRange> {
        let regions = self.head().entries().iter().map(|entry| {
            let first = entry.offset_pages;
            first..first + entry.len_pages
        });
        std::iter::once(0..HEAD_PAGES).chain(regions).collect()
    }

    /// Closes an epoch.
    pub(crate) fn commit(&mut self) -> Result<Committed, Error> {
        let used = self.used();
        self.tracker.commit(&used)
    }

    /// Closes an epoch with a snapshot, see [`Tracker::commit_with_snapshot`].
    pub(crate) fn commit_with_snapshot(
        &mut self,
        since: u64,
        whole: bool,
    ) -> Result<Frozen, Error> {
        let used = self.used();
        self.tracker.commit_with_snapshot(&used, since, whole)
    }

    /// The module's arena, if it is one.
    pub(crate) fn fd(&self) -> Option<&ArenaFd> {
        self.tracker.arena()
    }

    /// What snapshots have cost the program.
    pub(crate) fn snapshot_costs(&self) -> Result<SnapshotCosts, Error> {
        self.tracker.snapshot_costs()
    }

    /// Pages that changed after `since`, up to the last commit.
    pub(crate) fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        self.tracker.delta(since)
    }

    /// Copies pages out: as many as fit into `to`, from page `first` on.
    pub(crate) fn read_pages(&self, first: u64, to: &mut [u8]) {
        let pages = first..first + (to.len() / PAGE) as u64;
        let mut rest = to;
        for (pages, from) in self.tracker.places(pages) {
            let (to, behind) = rest.split_at_mut((pages.end - pages.start) as usize * PAGE);
            rest = behind;
            let words = to.len() / size_of::<u64>();
            // SAFETY: The range lies in the arena. A thread of the program that does not keep to
            // the rules may write meanwhile: volatile loads make that a torn value, not more.
            unsafe {
                let from = from.cast::<u64>();
                let to = to.as_mut_ptr().cast::<u64>();
                for word in 0..words {
                    to.add(word).write_unaligned(from.add(word).read_volatile());
                }
            }
        }
    }

    /// Lets pages be copied in, while it is new and the program has no pointer to it yet.
    pub(crate) fn filling(&mut self) -> Filling<'_> {
        Filling::new(self.tracker.mapping())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if name.is_empty() || name.len() > NAME_MAX || !printable {
        return Err(Error::Invalid(format!(
            "{name:?} cannot be a region's name: it has 1 to {NAME_MAX} printable ASCII characters"
        )));
    }
    Ok(())
}
