// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every system call of this crate.
//!
//! The calls of the chain are in [`file`], the others in [`device`], [`event`], [`maps`],
//! [`memory`], [`pagemap`], [`process`], [`span`], [`thread`] and [`userfault`]. Both kinds go through a gate, at which
//! a test can make any call fail. What only the tool needs, to run other programs, does not.

pub mod abi;
#[cfg(feature = "cli")]
pub mod child;
pub mod clock;
pub mod consumers;
pub mod control;
pub mod device;
pub mod dir_watch;
pub mod event;
pub mod file;
mod gate;
pub mod handover;
pub mod lease_page;
#[cfg(feature = "cli")]
pub mod limits;
pub mod maps;
pub mod memory;
pub mod pagemap;
pub mod process;
#[cfg(feature = "cli")]
pub mod signals;
pub mod span;
#[cfg(feature = "cli")]
pub mod standstill;
pub mod takeover;
pub mod thread;
pub mod userfault;
#[cfg(any(feature = "cli", feature = "replication"))]
pub mod users;

#[cfg(test)]
pub(crate) use gate::fake;
