// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Users and groups, and what this process may do.

use std::io;

use nix::unistd;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

/// The name of a user, or the number when there is none.
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// The name of a group, or the number when there is none.
pub fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// The user that this process acts as.
pub fn effective_uid() -> u32 {
    unistd::geteuid().as_raw()
}

/// Whether this process has a capability in its effective set, by its number.
pub fn has_capability(number: u32) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let set = set.ok_or_else(|| io::Error::other("no CapEff in /proc/self/status"))?;
    Ok((set >> number) & 1 == 1)
}
