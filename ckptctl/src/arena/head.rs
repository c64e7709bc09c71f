// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The arena's head: its first pages, which say what is in the rest.
//!
//! It is ordinary arena memory, so it is saved, restored and rolled back with the state it
//! describes, and whoever has a descriptor of the arena can read it.

use std::collections::HashSet;

use crate::error::Error;
use crate::store::Identity;
use crate::store::RegionEntry;
use crate::sys::memory::PAGE;

/// Pages of the head.
pub const HEAD_PAGES: u64 = 16;
/// Regions there can be.
pub const REGIONS_MAX: usize = 512;
/// Longest name of a region, in bytes.
pub const NAME_MAX: usize = 47;

/// Longest identity of a program, in bytes.
const IDENTITY_MAX: usize = 8192;

const MAGIC: [u8; 8] = *b"CKPTHEAD";
const VERSION: u32 = 1;

/// A region.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    name: [u8; NAME_MAX + 1],
    /// The program's own.
    pub(super) kind: u32,
    /// 1 for memory that was adopted, else 0.
    adopted: u32,
    pub(super) offset_pages: u64,
    pub(super) len_pages: u64,
    /// Of adopted memory its address; its reserve is its length.
    reserve_pages: u64,
}

/// The head as it stands in memory.
#[repr(C)]
pub(super) struct Head {
    magic: [u8; 8],
    version: u32,
    count: u32,
    base: u64,
    len_bytes: u64,
    /// First page that no region has reserved.
    next_page: u64,
    /// The program's root pointer, 0 for none.
    pub(super) root: u64,
    /// Address of the heap's state, 0 while there is no heap.
    pub(super) heap: u64,
    /// End of the heap as its state knows it.
    pub(super) heap_end: u64,
    /// Which build of the allocator the state is of.
    pub(super) heap_layout: u64,
    /// Bytes of `identity` that are used.
    identity_len: u64,
    zero: [u64; 6],
    entries: [Entry; REGIONS_MAX],
    /// The program, as a record of a chain has it: for those who save the arena from outside.
    identity: [u8; IDENTITY_MAX],
}

const _: () = assert!(size_of::<Head>() <= HEAD_PAGES as usize * PAGE);
const _: () = assert!(size_of::<Entry>() == 80 && std::mem::offset_of!(Head, entries) == 128);

impl Entry {
    pub(super) fn name(&self) -> &str {
        let len = self
            .name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(NAME_MAX);
        std::str::from_utf8(&self.name[..len]).unwrap_or_default()
    }

    pub(super) fn reserve_pages(&self) -> u64 {
        match self.adopted {
            0 => self.reserve_pages,
            _ => self.len_pages,
        }
    }

    /// Where the program uses it, if it was adopted.
    pub(super) fn adopted_at(&self) -> Option<u64> {
        (self.adopted != 0).then_some(self.reserve_pages)
    }

    /// Says that the program uses it at an address.
    pub(super) fn note_adopted(&mut self, address: u64) {
        self.adopted = 1;
        self.reserve_pages = address;
    }

    /// Whether it was adopted at an address that can be.
    fn is_sound(&self) -> bool {
        let len = self.len_pages.checked_mul(PAGE as u64);
        self.adopted <= 1
            && self.adopted_at().is_none_or(|at| {
                let end = len.and_then(|len| at.checked_add(len));
                at > 0 && at % PAGE as u64 == 0 && end.is_some()
            })
    }
}

impl Head {
    /// Makes a zeroed head that of an empty arena.
    pub(super) fn begin(&mut self, base: u64, len_bytes: u64) {
        self.magic = MAGIC;
        self.version = VERSION;
        self.base = base;
        self.len_bytes = len_bytes;
        self.next_page = HEAD_PAGES;
    }

    /// Examines a restored head, and notes that the arena is now `len_bytes` long.
    pub(super) fn resume(&mut self, base: u64, len_bytes: u64) -> Result<(), Error> {
        let wrong = |what: &str| {
            Err(Error::Layout(format!(
                "the head of the restored arena {what}"
            )))
        };
        if self.magic != MAGIC {
            return wrong("has no magic number");
        }
        if self.version != VERSION {
            return wrong(&format!("has version {}", self.version));
        }
        if self.base != base || self.count as usize > REGIONS_MAX {
            return wrong("does not fit its place");
        }
        let len_pages = len_bytes / PAGE as u64;
        // Each was added behind the one before.
        let mut free = HEAD_PAGES;
        let mut names = HashSet::new();
        for entry in self.entries() {
            let end = entry.offset_pages.checked_add(entry.reserve_pages());
            match end {
                Some(end) if entry.offset_pages >= free && entry.is_sound() => free = end,
                _ => return wrong("has regions one over the other"),
            }
            if entry.len_pages > entry.reserve_pages() {
                return wrong("has a region that is longer than its reserve");
            }
            if entry.name().is_empty() || !names.insert(entry.name()) {
                return wrong("has two regions of a name, or one without any");
            }
        }
        if !(free..=len_pages).contains(&self.next_page) {
            return wrong("has regions outside of it");
        }
        self.len_bytes = len_bytes;
        Ok(())
    }

    /// The address that it says it has.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The program, if one was noted.
    pub(super) fn identity(&self) -> Option<Identity> {
        let bytes = self.identity.get(..self.identity_len as usize)?;
        Identity::decode(bytes).ok()
    }

    /// Notes which program it is.
    pub(super) fn set_identity(&mut self, identity: &Identity) {
        let bytes = identity.encode();
        // A path that is too long is cut: it is for people.
        let len = bytes.len().min(IDENTITY_MAX);
        if self.identity[..len] != bytes[..len] || self.identity_len != len as u64 {
            self.identity[..len].copy_from_slice(&bytes[..len]);
            self.identity_len = len as u64;
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        // In a head that the program has damaged the count may be anything.
        &self.entries[..REGIONS_MAX.min(self.count as usize)]
    }

    pub(super) fn find(&mut self, name: &str) -> Option<&mut Entry> {
        let count = self.count as usize;
        self.entries[..REGIONS_MAX.min(count)]
            .iter_mut()
            .find(|entry| entry.name() == name)
    }

    /// Takes the region that was added last out again.
    pub(super) fn take_back(&mut self) {
        self.count -= 1;
        self.next_page = self.entries[self.count as usize].offset_pages;
    }

    /// Pages that no region has reserved.
    pub(super) fn free_pages(&self) -> u64 {
        self.len_bytes / PAGE as u64 - self.next_page
    }

    /// Adds a region. Its name was checked and is new.
    pub(super) fn add(
        &mut self,
        name: &str,
        kind: u32,
        len_pages: u64,
        reserve_pages: u64,
    ) -> Result<Entry, Error> {
        if self.count as usize == REGIONS_MAX {
            return Err(Error::TooManyRegions(REGIONS_MAX));
        }
        if reserve_pages > self.free_pages() {
            return Err(Error::ArenaFull {
                wanted_bytes: reserve_pages.saturating_mul(PAGE as u64),
                free_bytes: self.free_pages() * PAGE as u64,
            });
        }
        let entry = &mut self.entries[self.count as usize];
        entry.name = [0; NAME_MAX + 1];
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        entry.kind = kind;
        entry.adopted = 0;
        entry.offset_pages = self.next_page;
        entry.len_pages = len_pages;
        entry.reserve_pages = reserve_pages;
        self.count += 1;
        self.next_page += reserve_pages;
        Ok(*entry)
    }

    /// The region table as a chain has it.
    pub(super) fn table(&self) -> Vec<RegionEntry> {
        let entries = self.entries().iter();
        entries
            .map(|entry| RegionEntry {
                name: entry.name().to_owned(),
                kind: entry.kind,
                offset_pages: entry.offset_pages,
                len_pages: entry.len_pages,
                reserve_pages: entry.reserve_pages(),
                adopted_at: entry.adopted_at(),
            })
            .collect()
    }
}

#[cfg(test)]
impl Head {
    pub(super) fn entry_mut(&mut self, number: usize) -> &mut Entry {
        &mut self.entries[number]
    }

    pub(super) fn rename(&mut self, number: usize, name: &str) {
        let entry = &mut self.entries[number];
        entry.name = [0; NAME_MAX + 1];
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
    }

    pub(super) fn set_next_page(&mut self, page: u64) {
        self.next_page = page;
    }
}
