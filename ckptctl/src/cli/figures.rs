// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Figures for people: bytes, counts, times, ratios, ids.

use std::fmt::Write;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use bytesize::ByteSize;

/// `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 page`, `2 pages`, `1,000 pages`.
pub fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A wall-clock time in UTC, `2026-11-23T08:41:57Z`.
pub fn time(since_1970_ns: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(since_1970_ns);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A duration with three figures or so and its unit, `12.3 ms`, `3.5 h`.
pub fn duration(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..SECOND => (1e6, "ms"),
        SECOND..MINUTE => (SECOND as f64, "s"),
        MINUTE..HOUR => (MINUTE as f64, "min"),
        HOUR..DAY => (HOUR as f64, "h"),
        _ => (DAY as f64, "d"),
    };
    format!("{:.1} {name}", ns as f64 / unit)
}

/// `part` of `whole`, `12.3 %`; a dash when there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(counted(1, "page"), "1 page");
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500), "1.5 us");
        assert_eq!(duration(2_250_000), "2.2 ms");
        assert_eq!(duration(59_900_000_000), "59.9 s");
        assert_eq!(duration(90_000_000_000), "1.5 min");
        assert_eq!(duration(36_000_000_000_000), "10.0 h");
        assert_eq!(duration(216_000_000_000_000), "2.5 d");
    }
}
