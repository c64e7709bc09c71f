// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pages of an arena an oracle uses.
//!
//! A sparse arena has far more pages than a model could hold. The oracle uses
//! only those of some windows, and numbers them without gaps: *dense* pages.

use std::ops::Range;

/// A run of pages that is used.
#[derive(Clone, Debug)]
pub struct Window {
    /// First page in the arena.
    pub pgoff: u64,
    /// Number of pages.
    pub pages: usize,
    /// First page by dense number.
    pub dense: usize,
}

impl Window {
    /// Its pages by dense number.
    pub fn dense_range(&self) -> Range<usize> {
        self.dense..self.dense + self.pages
    }
}

/// The used pages of an arena.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// For messages.
    pub name: &'static str,
    /// Size of the arena.
    pub len_pages: u64,
    windows: Vec<Window>,
    dense_pages: usize,
}

impl Geometry {
    /// An arena of which these runs (first page, pages) are used: ascending and
    /// disjoint.
    pub fn sparse(name: &'static str, len_pages: u64, runs: &[(u64, usize)]) -> Self {
        let mut dense = 0;
        let mut end = 0;
        let mut windows = Vec::new();
        for (pgoff, pages) in runs.iter().copied() {
            assert!(pgoff >= end && pages > 0, "{name}: runs must ascend");
            end = pgoff + pages as u64;
            windows.push(Window {
                pgoff,
                pages,
                dense,
            });
            dense += pages;
        }
        assert!(end <= len_pages, "{name}: a run goes beyond the arena");
        Self {
            name,
            len_pages,
            windows,
            dense_pages: dense,
        }
    }

    /// An arena that is used from end to end.
    pub fn whole(name: &'static str, len_pages: usize) -> Self {
        Self::sparse(name, len_pages as u64, &[(0, len_pages)])
    }

    /// The windows, ascending.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// How many pages are used.
    pub fn dense_pages(&self) -> usize {
        self.dense_pages
    }

    /// The arena's page of a dense one.
    pub fn pgoff(&self, dense: usize) -> u64 {
        let window = &self.windows[self.window_of(dense)];
        window.pgoff + (dense - window.dense) as u64
    }

    /// The dense number of an arena's page, if it is used.
    pub fn dense(&self, pgoff: u64) -> Option<usize> {
        self.windows.iter().find_map(|window| {
            let page = usize::try_from(pgoff.checked_sub(window.pgoff)?).ok()?;
            (page < window.pages).then_some(window.dense + page)
        })
    }

    /// Which window a dense page is in.
    pub fn window_of(&self, dense: usize) -> usize {
        self.windows
            .iter()
            .position(|window| window.dense_range().contains(&dense))
            .unwrap_or_else(|| panic!("{}: no dense page {dense}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::Geometry;

    #[test]
    fn dense_numbers_have_no_gaps_and_lead_back() {
        let geometry = Geometry::sparse("t", 10_000, &[(3, 2), (510, 4), (9_999, 1)]);
        assert_eq!(geometry.dense_pages(), 7);
        let pgoffs: Vec<_> = (0..7).map(|dense| geometry.pgoff(dense)).collect();
        assert_eq!(pgoffs, [3, 4, 510, 511, 512, 513, 9_999]);
        for (dense, pgoff) in pgoffs.into_iter().enumerate() {
            assert_eq!(geometry.dense(pgoff), Some(dense));
        }
        for unused in [0, 2, 5, 509, 514, 9_998] {
            assert_eq!(geometry.dense(unused), None);
        }
    }
}
