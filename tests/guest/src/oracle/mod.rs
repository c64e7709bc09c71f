// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The shadow oracle: random operations on an arena, compared with a model.
//!
//! The model keeps every byte that the arena should hold, and a copy for every
//! epoch that a cursor stands on. What it then asks of the tracker, in the order
//! of how bad a failure is:
//!
//! 1. A page that differs between a cursor's epoch and the last commit is in the
//!    cursor's delta. *A page reported clean that differs is the one
//!    unforgivable bug.*
//! 2. The arena holds what the model holds.
//! 3. A snapshot holds every page written after its cursor, and shows each byte as
//!    it was at its commit, whatever is written meanwhile.
//! 4. A replica that only ever takes the pages of its deltas equals the model.
//! 5. A page that was written, with whatever content, is in the delta; one that
//!    no operation touched for writing is not.
//! 6. Ranges, counts, epochs and facts are what the header says.
//!
//! `run` is deterministic: a seed and a geometry give the same operations.
//! `threads` lets several threads write while another commits, and asks only
//! for what holds in every interleaving. Neither knows the kernel; both are
//! tried on the host against trackers with planted bugs.

pub mod backend;
pub mod cursor;
pub mod generate;
mod generate_snapshots;
pub mod geometry;
pub mod helper;
pub mod kernel;
pub mod model;
pub mod op;
mod phase;
pub mod run;
pub mod shot;
mod snapshots;
pub mod starved;
pub mod threads;
pub mod views;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod mock_snapshots;
#[cfg(test)]
mod planted;
