// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this process uses: memory, and time of processors.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeVal;

/// Begins to note the most; what it is now, in bytes.
pub fn begin() -> Result<u64> {
    // What was freed before and kept would hide what is taken now.
    #[cfg(target_env = "gnu")]
    // SAFETY: It may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    fs::write("/proc/self/clear_refs", "5").context("beginning to note the most memory")?;
    of_status("VmRSS:")
}

/// The most since then, in bytes.
pub fn peak() -> Result<u64> {
    of_status("VmHWM:")
}

/// Takes so much memory and gives it back, so that the system has it at hand: a virtual machine may
/// have left it to its host, and then whoever comes first waits long for it.
pub fn have_at_hand(bytes: usize) {
    let mut memory: Vec<u8> = Vec::with_capacity(bytes);
    for page in memory.spare_capacity_mut().iter_mut().step_by(4096) {
        page.write(1);
    }
    std::hint::black_box(&memory);
}

/// What all threads, and the system for them, have taken of all processors so far.
pub fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let duration = |time: TimeVal| {
        Duration::new(time.tv_sec() as u64, 0) + Duration::from_micros(time.tv_usec() as u64)
    };
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
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
        // Far more than other tests can give back meanwhile.
        drop(std::hint::black_box(vec![1u8; 256 << 20]));
        assert!(peak().unwrap() >= before + (32 << 20));
    }
}
