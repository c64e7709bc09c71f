// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which processor a thread runs on.

use nix::errno::Errno;
use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;

const THIS_THREAD: Pid = Pid::from_raw(0);

/// The processors that this thread may use.
pub fn available() -> Result<Vec<usize>, Errno> {
    let set = sched_getaffinity(THIS_THREAD)?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Keeps this thread on one processor.
pub fn pin_to(cpu: usize) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(THIS_THREAD, &set)
}
