// SPDX-License-Identifier: GPL-2.0-only
//! Gathering runs of pages into a bounded list.

use core::ops::ControlFlow;

/// A run of pages: first page and number of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Range {
    /// First page.
    pub first: u64,
    /// Number of pages, above zero.
    pub len: u64,
}

/// Joins adjacent runs and stops when a number of them is reached.
///
/// Runs are put in ascending and disjoint. The last one is held back until it is
/// known that nothing adjoins it, so that what comes out is never adjacent, however
/// the walk that puts runs in is cut into pieces.
#[derive(Default)]
pub struct Gather {
    held: Option<Range>,
    given: u32,
    capacity: u32,
    pages: u64,
}

impl Gather {
    /// A gatherer that gives out at most `capacity` runs, which is above zero.
    pub fn new(capacity: u32) -> Self {
        Gather {
            capacity,
            ..Gather::default()
        }
    }

    /// Puts a run in. Complete runs go to `give`.
    ///
    /// Breaks with the first page that did not fit.
    pub fn put<F>(&mut self, first: u64, len: u64, give: F) -> ControlFlow<u64>
    where
        F: FnOnce(Range),
    {
        if let Some(held) = &mut self.held {
            if held.first + held.len == first {
                held.len += len;
                return ControlFlow::Continue(());
            }
            if self.given + 1 == self.capacity {
                return ControlFlow::Break(first);
            }
        }
        if let Some(done) = self.held.replace(Range { first, len }) {
            self.count(&done);
            give(done);
        }
        ControlFlow::Continue(())
    }

    /// Gives out the run held back, at the end.
    pub fn finish(&mut self) -> Option<Range> {
        let done = self.held.take()?;
        self.count(&done);
        Some(done)
    }

    fn count(&mut self, range: &Range) {
        self.given += 1;
        self.pages += range.len;
    }

    /// Runs given out so far.
    pub fn given(&self) -> u32 {
        self.given
    }

    /// Pages in the runs given out so far.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(runs: &[(u64, u64)], capacity: u32) -> (Vec<(u64, u64)>, Option<u64>) {
        let mut gather = Gather::new(capacity);
        let mut out = Vec::new();
        let mut stopped = None;
        for &(first, len) in runs {
            if let ControlFlow::Break(at) = gather.put(first, len, |r| out.push((r.first, r.len))) {
                stopped = Some(at);
                break;
            }
        }
        out.extend(gather.finish().map(|r| (r.first, r.len)));
        assert_eq!(gather.given() as usize, out.len());
        assert_eq!(gather.pages(), out.iter().map(|r| r.1).sum::<u64>());
        (out, stopped)
    }

    #[test]
    fn adjacent_runs_are_joined() {
        let (out, stopped) = gather(&[(0, 2), (2, 1), (3, 5), (9, 1)], 8);
        assert_eq!(out, [(0, 8), (9, 1)]);
        assert_eq!(stopped, None);
    }

    #[test]
    fn a_full_list_says_where_to_go_on() {
        let (out, stopped) = gather(&[(0, 1), (5, 1), (6, 1), (9, 1)], 2);
        assert_eq!(out, [(0, 1), (5, 2)]);
        assert_eq!(stopped, Some(9));
    }

    #[test]
    fn one_place_is_enough_to_go_on_with() {
        let (out, stopped) = gather(&[(4, 1), (8, 1)], 1);
        assert_eq!(out, [(4, 1)]);
        assert_eq!(stopped, Some(8));
    }
}
