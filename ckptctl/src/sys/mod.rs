// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every system call of this crate.
//!
//! The calls of the chain are in [`file`], the others in [`device`], [`memory`] and
//! [`process`]. Both kinds go through a gate, at which a test can make any call fail.

pub mod abi;
pub mod device;
pub mod file;
mod gate;
pub mod memory;
pub mod process;

#[cfg(test)]
pub(crate) use gate::fake;
