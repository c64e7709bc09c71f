// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of the program's that becomes a region, at the address that it has.

use std::ops::Range;

use super::Arena;
use super::check_name;
use super::memory_kind;
use crate::error::Error;
use crate::store::RegionEntry;
use crate::sys::memory::PAGE;
use crate::sys::span::Span;
use crate::track::PageRange;
use crate::track::Wins;

/// What became of memory that was adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is a new region, with the content that it had.
    New,
    /// The region was there, from this run or by restore, and its content is in the memory now.
    Found,
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn addresses(region: &RegionEntry) -> Option<Range<u64>> {
    let start = region.adopted_at?;
    Some(start..start + region.len_pages * PAGE as u64)
}

fn pages_of(region: &RegionEntry) -> PageRange {
    region.offset_pages..region.offset_pages + region.len_pages
}

impl Arena {
    /// Makes memory a region, or finds the region that it is. Nobody uses it meanwhile. When it
    /// fails all is as it was.
    pub(crate) fn adopt(&mut self, name: &str, kind: u32, memory: Span) -> Result<Adopted, Error> {
        check_name(name)?;
        let wanted = self.check_place(memory)?;
        let table = self.regions();
        let Some(found) = table.iter().find(|region| region.name == name) else {
            self.check_others(&table, name, &wanted)?;
            memory_kind::check(&wanted)?;
            self.adopt_new(name, kind, memory)?;
            return Ok(Adopted::New);
        };
        if found.kind != kind {
            return Err(Error::RegionType {
                name: name.to_owned(),
                has: found.kind,
                wanted: kind,
            });
        }
        if addresses(found).as_ref() != Some(&wanted) {
            return Err(Error::RegionPlace {
                name: name.to_owned(),
                has_len: found.len_pages * PAGE as u64,
                has_place: match found.adopted_at {
                    Some(address) => format!("at {address:#x}"),
                    None => "at its own place in the arena".into(),
                },
                len: memory.len_bytes() as u64,
                address: wanted.start,
            });
        }
        let pages = pages_of(found);
        if self.tracker.adoptions().find(&pages) != Some(memory) {
            self.check_others(&table, name, &wanted)?;
            memory_kind::check(&wanted)?;
            self.tracker.adopt(pages, memory, Wins::Pages)?;
        }
        Ok(Adopted::Found)
    }

    fn adopt_new(&mut self, name: &str, kind: u32, memory: Span) -> Result<(), Error> {
        let len_pages = (memory.len_bytes() / PAGE) as u64;
        self.reserve_more(len_pages)?;
        let entry = self.head().add(name, kind, len_pages, len_pages)?;
        let pages = entry.offset_pages..entry.offset_pages + len_pages;
        let done = self.tracker.adopt(pages, memory, Wins::Memory);
        match done {
            Ok(()) => {
                let address = memory.base().as_ptr() as u64;
                if let Some(entry) = self.head().find(name) {
                    entry.note_adopted(address);
                }
                self.note_reach();
            }
            Err(_) => self.head().take_back(),
        }
        done
    }

    /// Examines where memory is.
    fn check_place(&self, memory: Span) -> Result<Range<u64>, Error> {
        let start = memory.base().as_ptr() as u64;
        let len = memory.len_bytes() as u64;
        let page = PAGE as u64;
        let end = start.checked_add(len);
        let (true, Some(end)) = (start % page == 0 && len % page == 0 && len > 0, end) else {
            return Err(Error::Invalid(format!(
                "{len} bytes at {start:#x} are not whole pages of {PAGE} bytes: align address and length to them (alignas, aligned_alloc)"
            )));
        };
        let wanted = start..end;
        let arena = self.base()..self.base() + self.len_bytes();
        match overlap(&wanted, &arena) {
            false => Ok(wanted),
            true => Err(Error::Overlap {
                start,
                end,
                what: "the arena's own addresses".into(),
            }),
        }
    }

    /// Refuses memory that is another region's.
    fn check_others(
        &self,
        table: &[RegionEntry],
        name: &str,
        wanted: &Range<u64>,
    ) -> Result<(), Error> {
        let others = table.iter().filter(|region| region.name != name);
        let taken = |region: &&RegionEntry| {
            addresses(region).is_some_and(|addresses| overlap(&addresses, wanted))
        };
        let mut adopted = self.tracker.adoptions().iter();
        let what = match others.into_iter().find(taken) {
            Some(region) => format!("region {}", region.name),
            None if adopted.any(|it| overlap(&it.addresses(), wanted)) => "adopted memory".into(),
            None => return Ok(()),
        };
        Err(Error::Overlap {
            start: wanted.start,
            end: wanted.end,
            what,
        })
    }

    /// Makes adopted memory the program's own again, with what is in it, but for that which is
    /// adopted by these regions as well. Nobody uses it meanwhile.
    pub(crate) fn release_all_but(&mut self, regions: &[RegionEntry]) -> Result<(), Error> {
        let stays = |pages: &PageRange, at: &Range<u64>| {
            let same =
                |it: &RegionEntry| pages_of(it) == *pages && addresses(it).as_ref() == Some(at);
            regions.iter().any(same)
        };
        let adopted = self.tracker.adoptions().iter();
        let going: Vec<PageRange> = adopted
            .filter(|it| !stays(&it.pages, &it.addresses()))
            .map(|it| it.pages.clone())
            .collect();
        // All of them, whatever becomes of one.
        let mut done = Ok(());
        for pages in going {
            done = done.and(self.tracker.release(pages));
        }
        done
    }
}
