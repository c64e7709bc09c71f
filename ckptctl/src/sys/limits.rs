// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits of this process, which its children inherit.

use std::io;

use nix::sys::resource;
use nix::sys::resource::RLIM_INFINITY;
use nix::sys::resource::Resource;

/// A limit that matters to arenas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Memory that cannot be swapped.
    Memlock,
    /// Address space.
    AddressSpace,
    /// The stack; the kernel lays out the address space around it.
    Stack,
}

/// The limit that holds, in bytes; `None` when there is none.
pub fn soft(limit: Limit) -> io::Result<Option<u64>> {
    let resource = match limit {
        Limit::Memlock => Resource::RLIMIT_MEMLOCK,
        Limit::AddressSpace => Resource::RLIMIT_AS,
        Limit::Stack => Resource::RLIMIT_STACK,
    };
    let (soft, _) = resource::getrlimit(resource)?;
    Ok((soft != RLIM_INFINITY).then_some(soft))
}
