// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was measured, as tables in Markdown.

use std::collections::BTreeMap;
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

/// A part of the report, and its place in a document: between two lines.
struct Part {
    name: &'static str,
    tables: String,
}

impl Part {
    fn lines(&self) -> (String, String) {
        let name = self.name;
        (
            format!("<!-- {name}:begin -->\n"),
            format!("<!-- {name}:end -->"),
        )
    }

    /// The document with these tables in their place. Without any it stays as it is.
    fn put(&self, document: &str) -> Result<String> {
        let (begin, end) = self.lines();
        if self.tables.is_empty() {
            return Ok(document.to_string());
        }
        let (Some(from), Some(to)) = (document.find(&begin), document.find(&end)) else {
            bail!("it has no place for a report: {begin}…{end}");
        };
        let (before, behind) = (&document[..from + begin.len()], &document[to..]);
        Ok(format!("{before}{}{behind}", self.tables))
    }
}

/// Prints the tables, or puts them into a document: those of which something was measured.
pub fn run(folder: &Path, into: Option<&Path>) -> Result<()> {
    let parts = [
        Part {
            name: "report",
            tables: tables(
                &read(folder, "tracking")?,
                &read(folder, "pause")?,
                &read(folder, "durable")?,
            ),
        },
        Part {
            name: "report-store",
            tables: stores(&read(folder, "store")?),
        },
    ];
    let Some(path) = into else {
        parts.iter().for_each(|part| print!("{}", part.tables));
        return Ok(());
    };
    let document =
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let filled = parts
        .iter()
        .try_fold(document, |document, part| part.put(&document))
        .with_context(|| format!("filling {}", path.display()))?;
    fs::write(path, filled).with_context(|| format!("writing {}", path.display()))
}

/// A number with commas between its thousands.
fn commas(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

fn row(to: &mut String, cells: &[String]) {
    let _ = writeln!(to, "| {} |", cells.join(" | "));
}

fn head(to: &mut String, title: &str, cells: &[&str]) {
    let _ = writeln!(to, "\n**{title}**\n");
    row(
        to,
        &cells.iter().map(ToString::to_string).collect::<Vec<_>>(),
    );
    let rules = cells
        .iter()
        .enumerate()
        .map(|(index, _)| if index < 2 { "---" } else { "---:" });
    row(to, &rules.map(str::to_string).collect::<Vec<_>>());
}

fn tables(tracking: &[Value], pause: &[Value], durable: &[Value]) -> String {
    let mut out = String::new();
    grid(&mut out, tracking);
    changing(&mut out, tracking);
    sizes(&mut out, tracking);
    snapshots(&mut out, tracking);
    pauses(&mut out, pause);
    durables(&mut out, durable);
    out
}

const MECHANISMS: [&str; 5] = ["module", "pagemap_scan", "soft_dirty", "mprotect", "fork"];

/// By pattern and changed pages: the total of each mechanism.
type Cells = BTreeMap<(String, u64), BTreeMap<String, f64>>;

fn cells(tracking: &[Value], workloads: &[&str]) -> Cells {
    let mut cells = Cells::new();
    for one in tracking {
        if !workloads.contains(&text(one, "workload")) || one["arena_pages"] != 65_536 {
            continue;
        }
        let name = match text(one, "workload") {
            workload if workload == text(one, "pattern") => workload.to_string(),
            workload => format!("{workload}, {}", text(one, "pattern")),
        };
        if let (Some(dirty), Some(total)) = (
            number(one, "dirty_pages"),
            number(one, "total_instructions"),
        ) {
            cells
                .entry((name, dirty as u64))
                .or_default()
                .insert(text(one, "mechanism").to_string(), total);
        }
    }
    cells
}

fn totals(out: &mut String, cells: &Cells, mechanisms: &[&str]) {
    for ((name, dirty), costs) in cells {
        let mut line = vec![name.clone(), commas(*dirty as f64)];
        line.extend(mechanisms.iter().map(|mechanism| {
            costs
                .get(*mechanism)
                .map_or("".into(), |&cost| commas(cost / 1000.0))
        }));
        let ratio = costs.get("module").zip(costs.get("pagemap_scan"));
        line.push(ratio.map_or(String::new(), |(ours, theirs)| {
            format!("{:.3}", ours / theirs)
        }));
        row(out, &line);
    }
}

fn grid(out: &mut String, tracking: &[Value]) {
    let cells = cells(tracking, &["random", "sequential", "idle"]);
    if cells.is_empty() {
        return;
    }
    head(
        out,
        "The same pages in every epoch: thousands of instructions per epoch, 256 MiB",
        &[
            "pages",
            "changed",
            "ckpt",
            "PAGEMAP_SCAN",
            "soft-dirty",
            "mprotect",
            "fork",
            "ckpt / PAGEMAP_SCAN",
        ],
    );
    totals(out, &cells, &MECHANISMS);
}

fn changing(out: &mut String, tracking: &[Value]) {
    let cells = cells(tracking, &["fresh", "moving", "mix"]);
    if cells.is_empty() {
        return;
    }
    head(
        out,
        "Workloads that change: thousands of instructions per epoch, mean of the whole run, 256 MiB",
        &[
            "pages",
            "changed",
            "ckpt",
            "always armed",
            "always open",
            "PAGEMAP_SCAN",
            "ckpt / PAGEMAP_SCAN",
        ],
    );
    totals(
        out,
        &cells,
        &["module", "module-armed", "module-open", "pagemap_scan"],
    );
}

fn sizes(out: &mut String, tracking: &[Value]) {
    let ours: Vec<_> = tracking
        .iter()
        .filter(|one| text(one, "mechanism") == "module")
        .filter(|one| matches!(text(one, "workload"), "size" | "idle"))
        .collect();
    if ours.is_empty() {
        return;
    }
    head(
        out,
        "Arenas of two sizes, all pages in memory: instructions, scattered pages",
        &["arena", "changed", "commit", "delta"],
    );
    let mut lines: Vec<_> = ours
        .iter()
        .filter_map(|one| {
            let (pages, dirty) = (number(one, "arena_pages")?, number(one, "dirty_pages")?);
            let (commit, delta) = (
                number(one, "commit_instructions")?,
                number(one, "delta_instructions")?,
            );
            Some((pages as u64, dirty as u64, commit - delta, delta))
        })
        .collect();
    lines.sort_by_key(|&(pages, dirty, ..)| (dirty, pages));
    lines.dedup_by_key(|&mut (pages, dirty, ..)| (dirty, pages));
    for (pages, dirty, commit, delta) in lines {
        row(
            out,
            &[
                format!("{} MiB", pages / 256),
                commas(dirty as f64),
                commas(commit),
                commas(delta),
            ],
        );
    }
}

fn snapshots(out: &mut String, tracking: &[Value]) {
    let ours: Vec<_> = tracking
        .iter()
        .filter(|one| text(one, "workload") == "snapshot" && text(one, "mechanism") == "module")
        .collect();
    if ours.is_empty() {
        return;
    }
    head(
        out,
        "Commit with a snapshot: instructions, 256 MiB",
        &[
            "pages",
            "changed",
            "plain commit",
            "with snapshot",
            "faults per page written later",
        ],
    );
    for one in ours {
        let key = |key| number(one, key).unwrap_or(f64::NAN);
        row(
            out,
            &[
                text(one, "pattern").to_string(),
                commas(key("dirty_pages")),
                commas(key("plain_commit_instructions")),
                commas(key("commit_instructions")),
                format!("{:.2}", key("later_write_faults") / key("dirty_pages")),
            ],
        );
    }
}

fn pauses(out: &mut String, pause: &[Value]) {
    if pause.is_empty() {
        return;
    }
    head(
        out,
        "An incremental checkpoint of a program of 256 MiB: milliseconds of the test VM",
        &["by", "changed pages", "pause", "total", "MiB written"],
    );
    for one in pause {
        let milliseconds =
            |key| number(one, key).map_or(String::new(), |ns| format!("{:.2}", ns / 1e6));
        row(
            out,
            &[
                text(one, "mechanism").to_string(),
                number(one, "changed_pages").map_or(String::new(), commas),
                milliseconds("pause_nanoseconds"),
                milliseconds("total_nanoseconds"),
                number(one, "written_bytes")
                    .map_or(String::new(), |bytes| format!("{:.1}", bytes / 1048576.0)),
            ],
        );
    }
}

fn durables(out: &mut String, durable: &[Value]) {
    if durable.is_empty() {
        return;
    }
    head(
        out,
        "Small durable commits on one disk: microseconds, median, and 10th to 90th of a hundred",
        &["what", "changed", "median", "10th", "90th"],
    );
    for one in durable {
        let microseconds = |key| number(one, key).map_or(String::new(), |ns| commas(ns / 1e3));
        let tracker = match text(one, "tracker") {
            "" => String::new(),
            tracker => format!(" (tracker {tracker})"),
        };
        row(
            out,
            &[
                format!("{}{tracker}", text(one, "mechanism")),
                number(one, "changed_bytes")
                    .map_or(String::new(), |bytes| format!("{} KiB", bytes / 1024.0)),
                microseconds("median_nanoseconds"),
                microseconds("p10_nanoseconds"),
                microseconds("p90_nanoseconds"),
            ],
        );
    }
}

fn stores(store: &[Value]) -> String {
    let mut out = String::new();
    let Some(first) = store.first() else {
        return out;
    };
    let mib = number(first, "data_bytes").unwrap_or(f64::NAN) / 1048576.0;
    head(
        &mut out,
        &format!(
            "A full save and a restore of {mib:.0} MiB: seconds, medians, and the speed of what is bare"
        ),
        &[
            "what",
            "codec",
            "MiB stored",
            "ckpt",
            "compressor",
            "disk",
            "both at once",
            "MiB/s",
            "of the slower",
            "of both at once",
            "of one after the other",
            "MiB beyond the state",
        ],
    );
    for one in store {
        let seconds = |key| {
            number(one, key).map_or(String::new(), |nanoseconds| {
                format!("{:.2}", nanoseconds / 1e9)
            })
        };
        let percent =
            |key| number(one, key).map_or(String::new(), |ratio| format!("{:.0} %", ratio * 100.0));
        let mib = |key| number(one, key).map_or(String::new(), |bytes| commas(bytes / 1048576.0));
        row(
            &mut out,
            &[
                text(one, "what").to_string(),
                text(one, "compression").to_string(),
                mib("stored_bytes"),
                seconds("median_nanoseconds"),
                seconds("compressor_median_nanoseconds"),
                seconds("disk_median_nanoseconds"),
                seconds("at_once_median_nanoseconds"),
                number(one, "mib_per_second").map_or(String::new(), commas),
                percent("median_of_slower"),
                percent("median_of_at_once"),
                percent("median_of_sum"),
                mib("peak_beyond_state_bytes"),
            ],
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn thousands_have_commas() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1234567.0, "1,234,567"),
        ] {
            assert_eq!(commas(number), text);
        }
    }

    #[test]
    fn a_cell_shows_each_mechanism_in_its_column_and_the_ratio() {
        let one = |mechanism: &str, total: u64| {
            json!({
                "mechanism": mechanism, "workload": "random", "pattern": "random",
                "arena_pages": 65_536, "dirty_pages": 655, "total_instructions": total,
            })
        };
        let text = tables(
            &[one("pagemap_scan", 2_000_000), one("module", 500_000)],
            &[],
            &[],
        );
        assert!(
            text.contains("| random | 655 | 500 | 2,000 |  |  |  | 0.250 |"),
            "{text}"
        );
    }

    #[test]
    fn a_document_gets_what_was_measured_and_keeps_the_rest() {
        let document = "a\n<!-- one:begin -->\nold\n<!-- one:end -->\nb\n";
        let part = |name, tables: &str| Part {
            name,
            tables: tables.to_string(),
        };
        let filled = part("one", "new\n").put(document).unwrap();
        assert_eq!(filled, document.replace("old", "new"));
        assert_eq!(part("one", "").put(document).unwrap(), document);
        assert_eq!(part("two", "").put(document).unwrap(), document);
        assert!(part("two", "new\n").put(document).is_err());
    }
}
