// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output format: KTAP version 1 on stdout.

use std::io::Write;

use crate::failure::Failure;
use crate::failure::Outcome;

/// Writes the version line and the plan.
pub fn begin(tests: usize) {
    line("KTAP version 1");
    line(&format!("1..{tests}"));
}

/// Writes diagnostic lines. Any process of a test may do so.
pub fn diagnose(text: &str) {
    for part in text.lines() {
        line(&format!("# {part}"));
    }
}

/// Writes the result line of one test; what went wrong comes before it.
pub fn result(number: usize, name: &str, outcome: &Outcome) {
    match outcome {
        Ok(()) => line(&format!("ok {number} {name}")),
        Err(Failure::Skipped(reason)) => {
            let reason = reason.replace('\n', " ");
            line(&format!("ok {number} {name} # SKIP {reason}"));
        }
        Err(Failure::Failed(message)) => {
            diagnose(message);
            line(&format!("not ok {number} {name}"));
        }
    }
}

/// Writes the closing counts, for people.
pub fn totals(passed: usize, failed: usize, skipped: usize) {
    diagnose(&format!(
        "Totals: pass:{passed} fail:{failed} xfail:0 xpass:0 skip:{skipped} error:0"
    ));
}

// One write per line, so that lines of several processes never mix.
fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody is left to tell when stdout is gone; the missing line is a failure for the reader.
    let _ = stdout
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| stdout.flush());
}

/// Formats its arguments into diagnostic lines.
#[macro_export]
macro_rules! diag {
    ($($message:tt)+) => { $crate::ktap::diagnose(&format!($($message)+)) };
}
