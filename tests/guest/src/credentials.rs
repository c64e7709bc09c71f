// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Being somebody else. For forked children only: there is no way back.

use nix::errno::Errno;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::setgroups;
use nix::unistd::setresgid;
use nix::unistd::setresuid;

/// A uid that nobody else uses.
pub const SOMEBODY: u32 = 4242;
/// Another uid that nobody else uses.
pub const SOMEBODY_ELSE: u32 = 4343;

/// Bit of CAP_IPC_LOCK in the kernel's capability sets.
pub const CAP_IPC_LOCK: u32 = 14;
/// Bit of CAP_CHECKPOINT_RESTORE in the kernel's capability sets.
pub const CAP_CHECKPOINT_RESTORE: u32 = 40;

/// Becomes a user without capabilities.
pub fn become_user(uid: u32) -> Result<(), Errno> {
    let gid = Gid::from_raw(uid);
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid)
}

/// Becomes a user who has one capability.
pub fn become_user_with(uid: u32, capability: u32) -> Result<(), Errno> {
    // SAFETY: changes a flag of this thread.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    become_user(uid)?;
    set_capabilities(1 << capability)
}

/// Sets the permitted and effective capabilities to exactly these.
pub fn set_capabilities(set: u64) -> Result<(), Errno> {
    // _LINUX_CAPABILITY_VERSION_3 and the two structures of capset(2).
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both arrays are laid out as capset(2) wants them and live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
        .map(drop)
}
