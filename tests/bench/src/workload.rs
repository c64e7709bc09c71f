// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pages an epoch changes, and the writing itself.

use ckptctl::sys::memory::Mapping;
use ckptctl::sys::memory::PAGE;

/// Which pages are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The first of one fixed permutation of all pages.
    Random,
    /// The first pages.
    Sequential,
}

impl Pattern {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Random => "random",
            Pattern::Sequential => "sequential",
        }
    }
}

/// The pages of an epoch, in the order in which they are written.
pub struct Workload {
    pages: Vec<u64>,
}

impl Workload {
    /// `changed` of `all` pages.
    pub fn new(pattern: Pattern, all: u64, changed: u64) -> Workload {
        let mut pages: Vec<u64> = (0..all).collect();
        if pattern == Pattern::Random {
            shuffle(&mut pages);
        }
        pages.truncate(changed as usize);
        Workload { pages }
    }

    /// These pages.
    pub fn of_pages(pages: Vec<u64>) -> Workload {
        Workload { pages }
    }

    /// Eight increments in each page, 512 bytes apart.
    pub fn write(&self, mapping: &Mapping) {
        for &page in &self.pages {
            for place in (0..PAGE).step_by(512) {
                let offset = page as usize * PAGE + place;
                assert!(offset < mapping.len_bytes());
                // SAFETY: Within the mapping, which this thread alone writes.
                unsafe {
                    let byte = mapping.base().add(offset);
                    byte.write_volatile(byte.read_volatile().wrapping_add(1));
                }
            }
        }
    }
}

/// Fisher and Yates, with numbers of a fixed sequence.
fn shuffle(pages: &mut [u64]) {
    let mut state = 1u64;
    for last in (1..pages.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        pages.swap(last, (state >> 33) as usize % (last + 1));
    }
}
