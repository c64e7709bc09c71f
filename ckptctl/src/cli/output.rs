// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Printing data on stdout: aligned for people, or as JSON.

use std::io;
use std::io::Write;

use comfy_table::CellAlignment;
use comfy_table::Table;
use serde::Serialize;

/// Prints text; an error when the reader is gone or the disk is full.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints one JSON value over several lines.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Says a line on stderr, at once, or not when nobody is there to read it: who looks after a
/// program goes on then.
pub fn say(line: &str) {
    let _ = io::stderr().write_all(format!("ckptctl: {line}\n").as_bytes());
}

/// True when nobody reads our output any more, which is no reason to complain.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Words, aligned to the left.
    Words(&'static str),
    /// Figures, aligned to the right.
    Figures(&'static str),
}

/// Rows under a header line, aligned, without any frame, each line ended.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|column| match column {
        Column::Words(name) | Column::Figures(name) => *name,
    }));
    table.add_rows(
        rows.into_iter()
            .map(|row| row.iter().map(|cell| visible(cell)).collect::<Vec<_>>()),
    );
    for (at, column) in columns.iter().enumerate() {
        if let Some(set) = table.column_mut(at) {
            set.set_padding((0, 2));
            if let Column::Figures(_) = column {
                set.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    lines(&table)
}

/// Names and values in two columns, each line ended.
pub fn facts(facts: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    for (name, value) in facts {
        table.add_row([name.to_owned(), visible(&value)]);
    }
    if let Some(names) = table.column_mut(0) {
        names.set_padding((0, 2));
    }
    if let Some(values) = table.column_mut(1) {
        values.set_padding((0, 0));
    }
    lines(&table)
}

/// Text in which what controls a terminal is written out: names and paths in a chain are whatever the
/// program that wrote it made them.
fn visible(text: &str) -> String {
    let mut visible = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => visible.extend(c.escape_default()),
            false => visible.push(c),
        }
    }
    visible
}

fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_written_out() {
        let name = || "t\u{e4}ble\u{1b}[2J\n".to_owned();
        let shown = "t\u{e4}ble\\u{1b}[2J\\n";
        assert_eq!(facts([("name", name())]), format!("name  {shown}\n"));
        let table = table(&[Column::Words("NAME")], [vec![name()]]);
        assert_eq!(table, format!("NAME\n{shown}\n"));
    }
}
