// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A picture of an arena: how recently, and how often, commits wrote each page.

use std::ops::Range;

use ckptctl::store::Written;
use svg::Document;
use svg::node::element::Definitions;
use svg::node::element::Group;
use svg::node::element::LinearGradient;
use svg::node::element::Rectangle;
use svg::node::element::Stop;
use svg::node::element::Text;
use svg::node::element::Title;

use super::figures;

/// A part of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its region's, if it is one.
    pub name: Option<String>,
    /// Where it lies.
    pub pages: Range<u64>,
    /// How many of them are there.
    pub len_pages: u64,
}

impl Area {
    /// What to call it. Before the first region there is the arena's head.
    pub fn label(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if self.pages.start == 0 => "(arena head)",
            None => "(no region)",
        }
    }
}

/// What commits did to some pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// Which of the commits was the last to write here, counted from 1; 0 for none.
    last: u64,
    /// How many of them wrote here.
    times: u64,
}

/// An area as cells of so many pages each.
struct Row {
    label: String,
    cells: Vec<Cell>,
}

/// The picture's content.
pub struct ArenaMap {
    rows: Vec<Row>,
    cell_pages: u64,
    page_shift: u32,
    /// First and last of the commits, and how many they are.
    epochs: Option<(u64, u64)>,
    commits: u64,
}

/// Cells that can be told apart in a picture of a bearable size.
const CELLS_MAX: u64 = 16_384;
/// Cells side by side.
const COLUMNS: usize = 64;
/// Lengths are in pixels.
const CELL: usize = 8;
const PANEL: usize = COLUMNS * CELL;
const MARGIN: usize = 24;
const GAP: usize = 48;
const LABEL: usize = 22;
const HEAD: usize = 96;

const NEVER: [u8; 3] = [0xee, 0xee, 0xee];
const RECENTLY: [[u8; 3]; 3] = [[0xc6, 0xdb, 0xef], [0x42, 0x92, 0xc6], [0x08, 0x30, 0x6b]];
const OFTEN: [[u8; 3]; 3] = [[0xfd, 0xd0, 0xa2], [0xf1, 0x69, 0x13], [0x7f, 0x27, 0x04]];

impl ArenaMap {
    /// Counts what commits, oldest first, wrote to areas, which ascend.
    pub fn new(areas: &[&Area], written: &[Written], page_shift: u32) -> ArenaMap {
        let lengths: Vec<u64> = areas.iter().map(|area| drawn_len(area, written)).collect();
        let mut cell_pages = 1;
        let cells =
            |cell_pages: u64| -> u64 { lengths.iter().map(|len| len.div_ceil(cell_pages)).sum() };
        // Each area takes a cell at least, so it ends before the cells can be that large.
        while cells(cell_pages) > CELLS_MAX.max(areas.len() as u64) && cell_pages < 1 << 40 {
            cell_pages *= 2;
        }
        let mut rows = Vec::new();
        for (area, &len) in areas.iter().zip(&lengths) {
            let mut row = Row {
                label: format!("{}: {}", area.label(), figures::bytes(len << page_shift)),
                cells: vec![Cell::default(); len.div_ceil(cell_pages) as usize],
            };
            let pages = area.pages.start..area.pages.start + len;
            for (commit, number) in written.iter().zip(1..) {
                row.mark(number, &commit.pages, &pages, cell_pages);
            }
            if len > 0 {
                rows.push(row);
            }
        }
        ArenaMap {
            rows,
            cell_pages,
            page_shift,
            epochs: written
                .first()
                .zip(written.last())
                .map(|(first, last)| (first.epoch, last.epoch)),
            commits: written.len() as u64,
        }
    }

    /// Draws it.
    pub fn draw(&self, title: &str) -> Document {
        let body: usize = self.rows.iter().map(Row::height).sum();
        let (width, height) = (2 * MARGIN + 2 * PANEL + GAP, HEAD + body + MARGIN);
        let background = Rectangle::new()
            .set("width", width)
            .set("height", height)
            .set("fill", "#ffffff");
        let mut document = Document::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .set("font-family", "sans-serif")
            .set("font-size", 13)
            .set("fill", "#222222")
            .add(Title::new(title))
            .add(
                Definitions::new()
                    .add(gradient("recently", &RECENTLY))
                    .add(gradient("often", &OFTEN)),
            )
            .add(background)
            .add(
                text(MARGIN, 28, title)
                    .set("font-size", 16)
                    .set("font-weight", "bold"),
            );
        let cell = match self.cell_pages {
            1 => format!(
                "a square is a page of {}",
                figures::bytes(1 << self.page_shift)
            ),
            pages => format!(
                "a square is {}, {}",
                figures::counted(pages, "page"),
                figures::bytes(pages << self.page_shift)
            ),
        };
        document = document.add(text(MARGIN, 46, &format!("{cell}; grey: not written")));
        let (oldest, newest) = match self.epochs {
            Some((first, last)) => (format!("epoch {first}"), format!("epoch {last}")),
            None => ("no commit".into(), String::new()),
        };
        let most = figures::counted(self.commits, "commit");
        let right = MARGIN + PANEL + GAP;
        document = document
            .add(legend(
                MARGIN,
                "written last in",
                "recently",
                &oldest,
                &newest,
            ))
            .add(legend(right, "written by", "often", "1 commit", &most));
        let mut y = HEAD;
        for row in &self.rows {
            document = document
                .add(text(MARGIN, y + 16, &row.label))
                .add(text(right, y + 16, &row.label))
                .add(row.panel(MARGIN, y + LABEL, |cell| self.recently(cell)))
                .add(row.panel(right, y + LABEL, |cell| self.often(cell)));
            y += row.height();
        }
        document
    }

    fn recently(&self, cell: Cell) -> [u8; 3] {
        match cell.last {
            0 => NEVER,
            last => shade(&RECENTLY, last - 1, self.commits.saturating_sub(1)),
        }
    }

    fn often(&self, cell: Cell) -> [u8; 3] {
        // By orders of magnitude: most pages are written rarely, some always.
        let scale = |times: u64| (times as f64).ln() * 1000.0;
        match cell.times {
            0 => NEVER,
            times => shade(&OFTEN, scale(times) as u64, scale(self.commits) as u64),
        }
    }
}

/// Pages of an area that are drawn: what is in no region, only as far as something was written.
fn drawn_len(area: &Area, written: &[Written]) -> u64 {
    if area.name.is_some() {
        return area.len_pages;
    }
    let inside = |range: &&Range<u64>| range.start < area.pages.end && range.end > area.pages.start;
    let ends = written
        .iter()
        .flat_map(|commit| commit.pages.iter().filter(inside))
        .map(|range| range.end.min(area.pages.end));
    ends.max().map_or(0, |end| end - area.pages.start)
}

impl Row {
    /// Notes that a commit wrote these ranges, of which some lie in the area's pages.
    fn mark(&mut self, number: u64, ranges: &[Range<u64>], pages: &Range<u64>, cell_pages: u64) {
        let first = ranges.partition_point(|range| range.end <= pages.start);
        let inside = ranges[first..]
            .iter()
            .take_while(|range| range.start < pages.end);
        for range in inside {
            let start = range.start.max(pages.start) - pages.start;
            let end = range.end.min(pages.end) - pages.start;
            let cells = (start / cell_pages) as usize..end.div_ceil(cell_pages) as usize;
            for cell in &mut self.cells[cells] {
                if cell.last != number {
                    cell.last = number;
                    cell.times += 1;
                }
            }
        }
    }

    fn height(&self) -> usize {
        LABEL + self.cells.len().div_ceil(COLUMNS) * CELL + 12
    }

    /// Its cells; those of a colour that lie side by side are one rectangle.
    fn panel(&self, x: usize, y: usize, colour: impl Fn(Cell) -> [u8; 3]) -> Group {
        let mut group = Group::new();
        for (line, cells) in self.cells.chunks(COLUMNS).enumerate() {
            let mut column = 0;
            for same in cells.chunk_by(|a, b| colour(*a) == colour(*b)) {
                group = group.add(
                    Rectangle::new()
                        .set("x", x + column * CELL)
                        .set("y", y + line * CELL)
                        .set("width", same.len() * CELL)
                        .set("height", CELL - 1)
                        .set("fill", hex(colour(same[0]))),
                );
                column += same.len();
            }
        }
        group
    }
}

/// The colour for `part` of `whole`.
fn shade(stops: &[[u8; 3]; 3], part: u64, whole: u64) -> [u8; 3] {
    let share = match whole {
        0 => 1.0,
        whole => (part as f64 / whole as f64).clamp(0.0, 1.0),
    };
    let (from, to, share) = match share {
        share if share < 0.5 => (stops[0], stops[1], share * 2.0),
        share => (stops[1], stops[2], share * 2.0 - 1.0),
    };
    std::array::from_fn(|at| {
        let (from, to) = (f64::from(from[at]), f64::from(to[at]));
        (from + (to - from) * share).round() as u8
    })
}

fn hex(colour: [u8; 3]) -> String {
    format!("#{}", figures::hex(&colour))
}

fn text(x: usize, y: usize, words: &str) -> Text {
    Text::new(words).set("x", x).set("y", y)
}

fn gradient(id: &str, stops: &[[u8; 3]; 3]) -> LinearGradient {
    let offsets = ["0%", "50%", "100%"];
    let mut gradient = LinearGradient::new().set("id", id);
    for (offset, colour) in offsets.into_iter().zip(stops) {
        let stop = Stop::new()
            .set("offset", offset)
            .set("stop-color", hex(*colour));
        gradient = gradient.add(stop);
    }
    gradient
}

fn legend(x: usize, what: &str, id: &str, from: &str, to: &str) -> Group {
    const Y: usize = 76;
    let bar = Rectangle::new()
        .set("x", x + 190)
        .set("y", Y - 11)
        .set("width", 120)
        .set("height", 12)
        .set("fill", format!("url(#{id})"));
    let from = text(x + 182, Y, from).set("text-anchor", "end");
    Group::new()
        .add(text(x, Y, what).set("font-weight", "bold"))
        .add(from)
        .add(bar)
        .add(text(x + 318, Y, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(name: Option<&str>, start: u64, end: u64, len_pages: u64) -> Area {
        Area {
            name: name.map(str::to_owned),
            pages: start..end,
            len_pages,
        }
    }

    fn written(epoch: u64, pages: &[Range<u64>]) -> Written {
        Written {
            epoch,
            pages: pages.to_vec(),
        }
    }

    #[test]
    fn a_cell_knows_its_last_commit_and_how_many_there_were() {
        let head = area(None, 0, 4, 4);
        let heap = area(Some("heap"), 4, 20, 6);
        let commits = [
            written(11, &[0..1, 3..6]),
            written(12, &[4..5]),
            written(15, &[9..20]),
        ];
        let map = ArenaMap::new(&[&head, &heap], &commits, 12);
        let cells = |row: usize| -> Vec<(u64, u64)> {
            let cells = &map.rows[row].cells;
            cells.iter().map(|cell| (cell.last, cell.times)).collect()
        };
        assert_eq!(cells(0), [(1, 1), (0, 0), (0, 0), (1, 1)]);
        assert_eq!(cells(1), [(2, 2), (1, 1), (0, 0), (0, 0), (0, 0), (3, 1)]);
        assert_eq!((map.epochs, map.commits), (Some((11, 15)), 3));
        assert_eq!(map.often(map.rows[1].cells[2]), NEVER);
        assert_eq!(map.recently(map.rows[1].cells[5]), RECENTLY[2]);
        assert_eq!(map.recently(map.rows[1].cells[1]), RECENTLY[0]);
        assert_eq!(map.often(map.rows[1].cells[1]), OFTEN[0]);
    }

    #[test]
    fn a_large_arena_has_cells_of_several_pages_which_are_counted_once_a_commit() {
        let heap = area(Some("heap"), 16, 1 << 30, 4 * CELLS_MAX);
        let commits = [written(1, &[16..17, 18..19]), written(2, &[17..18])];
        let map = ArenaMap::new(&[&heap], &commits, 12);
        assert_eq!(map.cell_pages, 4);
        assert_eq!(map.rows[0].cells.len() as u64, CELLS_MAX);
        assert_eq!(map.rows[0].cells[0], Cell { last: 2, times: 2 });
        assert_eq!(map.rows[0].cells[1], Cell::default());
    }

    #[test]
    fn a_picture_has_each_written_cell_in_both_panels() {
        let heap = area(Some("a<b"), 0, 130, 130);
        let map = ArenaMap::new(&[&heap], &[written(7, &[0..1, 64..66])], 12);
        let drawing = map.draw("of <this>").to_string();
        // Three lines of cells, of which two have two colours.
        assert_eq!(drawing.matches("<rect").count(), 3 + 2 * 5);
        assert_eq!(drawing.matches(&hex(RECENTLY[2])).count(), 3);
        assert!(drawing.contains("a&lt;b"), "{drawing}");
        assert!(!drawing.contains("<this>"));
    }
}
