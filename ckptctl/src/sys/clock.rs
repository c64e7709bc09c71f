// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The clock that the module tells times by, and that a lease runs by: it is the same for all
//! processes of a machine, nobody sets it, and it goes on while the machine is suspended.

use std::io;

use nix::time::ClockId;
use nix::time::clock_gettime;

/// CLOCK_BOOTTIME now, in nanoseconds.
pub fn since_boot_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
