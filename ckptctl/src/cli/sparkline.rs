// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Figures as a line of small bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar for each figure, or, when there are more than `width`, for the largest of several; as high
/// as it is in proportion to the largest of all.
pub fn draw(figures: &[u64], width: usize) -> String {
    let most = figures.iter().max().copied().unwrap_or(0).max(1);
    let columns = figures.len().min(width);
    let column = |at: usize| {
        let first = at * figures.len() / columns;
        let end = (at + 1) * figures.len() / columns;
        let largest = figures[first..end].iter().max().copied().unwrap_or(0);
        let height = u128::from(largest) * (BARS.len() as u128 - 1);
        BARS[height.div_ceil(u128::from(most)) as usize]
    };
    (0..columns).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_to_the_largest() {
        assert_eq!(draw(&[0, 1, 50, 100], 60), "▁▂▅█");
        assert_eq!(draw(&[7, 7], 60), "██");
        assert_eq!(draw(&[0, 0], 60), "▁▁");
        assert_eq!(draw(&[u64::MAX, 0], 60), "█▁");
        assert_eq!(draw(&[], 60), "");
    }

    #[test]
    fn a_bar_for_several_is_that_of_the_largest() {
        assert_eq!(draw(&[0, 8, 0, 0, 4, 0], 3), "█▁▅");
        let figures: Vec<u64> = (0..1000).collect();
        let line: Vec<char> = draw(&figures, 60).chars().collect();
        assert_eq!(line.len(), 60);
        assert!(line.is_sorted());
        assert_eq!((line[0], line[59]), ('▂', '█'));
    }
}
