// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cost against changed pages, as a picture: one line for each mechanism, both axes
//! logarithmic. Plain SVG, with colours for light and dark pages.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;

use crate::record::number;
use crate::record::read;
use crate::record::text;

/// Mechanisms, how they are called in the picture, and their colours on light and dark.
const LINES: [(&str, &str, &str, &str); 5] = [
    ("module", "ckpt", "#0b7a4b", "#3ddc97"),
    ("pagemap_scan", "PAGEMAP_SCAN", "#2457c5", "#7aa2ff"),
    ("soft_dirty", "soft-dirty", "#8a4fbf", "#c79bff"),
    ("mprotect", "mprotect + SIGSEGV", "#c0392b", "#ff8a7a"),
    ("fork", "fork, copy on write", "#8a6d00", "#e3c04d"),
];

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 350.0;
const PANELS: [(&str, f64, f64); 2] = [("random", 70.0, 430.0), ("sequential", 490.0, 850.0)];
/// Changed pages, and instructions, at the ends of the axes.
const PAGES: (f64, f64) = (4.0, 50_000.0);
const COST: (f64, f64) = (1e4, 1e9);

/// Draws.
pub fn run(folder: &Path, picture: &Path) -> Result<()> {
    let results = read(folder, "tracking")?;
    if results.is_empty() {
        bail!("{} has no tracking.json: run make bench", folder.display());
    }
    fs::write(picture, draw(&results)).with_context(|| format!("writing {}", picture.display()))
}

fn along(value: f64, (from, to): (f64, f64), (first, last): (f64, f64)) -> f64 {
    first + (value / from).ln() / (to / from).ln() * (last - first)
}

fn draw(results: &[Value]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n<title>Instructions per epoch \
         against changed pages, by mechanism</title>\n<style>\n.ink{{fill:#333}}.grid{{stroke:#ccc;\
         stroke-width:.6}}.line{{fill:none;stroke-width:1.8}}.ours{{stroke-width:3}}\n"
    );
    for (name, _, light, _) in LINES {
        let _ = writeln!(svg, ".{name}{{stroke:{light}}}.{name}-dot{{fill:{light}}}");
    }
    svg.push_str("@media (prefers-color-scheme:dark){.ink{fill:#ddd}.grid{stroke:#444}\n");
    for (name, _, _, dark) in LINES {
        let _ = writeln!(svg, ".{name}{{stroke:{dark}}}.{name}-dot{{fill:{dark}}}");
    }
    svg.push_str("}\n</style>\n");
    let _ = writeln!(
        svg,
        "<text class=\"ink\" x=\"8\" y=\"{}\">instructions per epoch</text>",
        TOP - 16.0
    );
    for panel in PANELS {
        axes(&mut svg, panel);
        for (name, _, _, _) in LINES {
            line(&mut svg, results, panel, name);
        }
    }
    legend(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, (name, left, right): (&str, f64, f64)) {
    let middle = (left + right) / 2.0;
    let _ = writeln!(
        svg,
        "<text class=\"ink\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"14\">{name} pages</text>",
        TOP - 16.0
    );
    for (pages, label) in [
        (10.0, "10"),
        (100.0, "100"),
        (1e3, "1,000"),
        (1e4, "10,000"),
    ] {
        let x = along(pages, PAGES, (left, right));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/><text class=\"ink\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            BOTTOM + 16.0
        );
    }
    for (cost, label) in [
        (1e4, "10 k"),
        (1e5, "100 k"),
        (1e6, "1 M"),
        (1e7, "10 M"),
        (1e8, "100 M"),
        (1e9, "1 G"),
    ] {
        let y = along(cost, COST, (BOTTOM, TOP));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text class=\"ink\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 6.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"ink\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">changed pages of 65,536</text>",
        BOTTOM + 34.0
    );
}

fn line(svg: &mut String, results: &[Value], (panel, left, right): (&str, f64, f64), name: &str) {
    let mut points: Vec<_> = results
        .iter()
        .filter(|one| text(one, "mechanism") == name && text(one, "workload") == panel)
        .filter(|one| one["arena_pages"] == 65_536)
        .filter_map(|one| {
            Some((
                number(one, "dirty_pages")?,
                number(one, "total_instructions")?,
            ))
        })
        .filter(|&(pages, cost)| pages > 0.0 && cost > 0.0)
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let place = |&(pages, cost): &(f64, f64)| {
        (
            along(pages, PAGES, (left, right)),
            along(cost, COST, (BOTTOM, TOP)),
        )
    };
    let path: Vec<_> = points
        .iter()
        .map(place)
        .map(|(x, y)| format!("{x:.1} {y:.1}"))
        .collect();
    if path.is_empty() {
        return;
    }
    let ours = if name == LINES[0].0 { " ours" } else { "" };
    let _ = writeln!(
        svg,
        "<path class=\"line {name}{ours}\" d=\"M{}\"/>",
        path.join("L")
    );
    for (x, y) in points.iter().map(place) {
        let _ = writeln!(
            svg,
            "<circle class=\"{name}-dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>"
        );
    }
}

fn legend(svg: &mut String) {
    let y = HEIGHT - 12.0;
    let mut x = 70.0;
    for (name, label, _, _) in LINES {
        let ours = if name == LINES[0].0 { " ours" } else { "" };
        let _ = writeln!(
            svg,
            "<path class=\"line {name}{ours}\" d=\"M{x} {}h22\"/><text class=\"ink\" x=\"{}\" y=\"{y}\">{label}</text>",
            y - 4.0,
            x + 28.0
        );
        x += 52.0 + label.len() as f64 * 7.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(mechanism: &str, dirty: u64, cost: u64) -> Value {
        json!({
            "mechanism": mechanism, "workload": "random", "arena_pages": 65_536,
            "dirty_pages": dirty, "total_instructions": cost,
        })
    }

    #[test]
    fn a_line_goes_through_its_results_by_pages_and_others_have_none() {
        let svg = draw(&[result("module", 655, 900_000), result("module", 6, 20_000)]);
        assert_eq!(svg.matches("class=\"line module ours\" d=\"M").count(), 2);
        assert_eq!(svg.matches("<circle class=\"module-dot\"").count(), 2);
        assert_eq!(svg.matches("<circle class=\"fork-dot\"").count(), 0);
        let path = svg
            .lines()
            .find(|line| line.contains("ours\" d=\"M") && line.contains('L'));
        let places: Vec<f64> = path
            .unwrap()
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(places[0] < places[2], "pages grow to the right");
        assert!(places[1] > places[3], "cost grows upwards");
    }

    #[test]
    fn the_ends_of_an_axis_are_its_ends() {
        assert!((along(4.0, PAGES, (70.0, 430.0)) - 70.0).abs() < 1e-9);
        assert!((along(50_000.0, PAGES, (70.0, 430.0)) - 430.0).abs() < 1e-9);
    }
}
