// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much memory the machine has left.

use crate::failure::Failure;

/// MemAvailable, in bytes.
pub fn available_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| Failure::new("no MemAvailable in /proc/meminfo"))
}
