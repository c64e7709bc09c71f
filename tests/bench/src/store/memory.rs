// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory that this process has, and had at most.

use std::fs;

use anyhow::Context as _;
use anyhow::Result;

/// Begins to note the most; what it is now, in bytes.
pub fn begin() -> Result<u64> {
    fs::write("/proc/self/clear_refs", "5").context("beginning to note the most memory")?;
    of_status("VmRSS:")
}

/// The most since then, in bytes.
pub fn peak() -> Result<u64> {
    of_status("VmHWM:")
}

fn of_status(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_suffix("kB"));
    let kib: u64 = value.with_context(|| format!("no {key}"))?.trim().parse()?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_used_for_a_moment_is_noted() {
        let before = begin().unwrap();
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(peak().unwrap() >= before + (60 << 20));
    }
}
