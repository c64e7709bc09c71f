// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times on the command line.

use std::time::Duration;

/// Longer than anybody waits; clocks can be asked when it is over.
const LONGEST_YEARS: u64 = 100;
const LONGEST: Duration = Duration::from_secs(LONGEST_YEARS * 366 * 24 * 3600);

/// Takes a time as people write it: 500ms, 5s, 1h 30min.
pub fn parse(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err(format!(
            "{text:?} is longer than {LONGEST_YEARS} years, which nobody waits for"
        )),
        Err(_) => Err(format!("{text:?} is no duration: write 500ms, 5s or 2min")),
    }
}

/// A time above zero.
pub fn span(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("it is above zero, as in 1h".into()),
        span => Ok(span),
    }
}

/// Shortest and longest wait before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Backoff {
    const DEFAULT_MAX: Duration = Duration::from_secs(30);

    /// Takes `MIN`, `MIN..` or `MIN..MAX`.
    pub fn parse(text: &str) -> Result<Backoff, String> {
        let (min, max) = match text.split_once("..") {
            None => (text, ""),
            Some((min, max)) => (min, max),
        };
        let min = parse(min)?;
        let max = match max {
            "" => min.max(Self::DEFAULT_MAX),
            max => parse(max)?,
        };
        if max < min {
            return Err("the longest wait is below the shortest".into());
        }
        Ok(Backoff { min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_is_one_duration_or_two() {
        let backoff = |min, max| Backoff {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        };
        assert_eq!(Backoff::parse("100ms"), Ok(backoff(100, 30_000)));
        assert_eq!(Backoff::parse("100ms.."), Ok(backoff(100, 30_000)));
        assert_eq!(Backoff::parse("0s..2s"), Ok(backoff(0, 2_000)));
        assert_eq!(Backoff::parse("1min"), Ok(backoff(60_000, 60_000)));
        assert!(Backoff::parse("2s..1s").is_err());
        assert!(Backoff::parse("..1s").is_err());
        assert!(Backoff::parse("soon").is_err());
    }
}
