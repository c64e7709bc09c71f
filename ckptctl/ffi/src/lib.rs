// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `libckpt`: the C face of ckptctl. `include/ckpt.h` documents it.
//!
//! What crosses the boundary, and how:
//!
//! - A `ckpt_t *` is a number, not an address: [`handle`] knows which ones are open,
//!   by a [`registry`] that is read without a lock.
//! - Every function runs inside [`call`], which turns errors into numbers, keeps their text for
//!   [`error`], and lets no panic out.
//! - What the program points to is read and written by [`argument`] alone.

mod argument;
mod call;
mod commit;
mod error;
mod handle;
mod header;
mod heap;
mod hook;
mod open;
mod outputs;
mod region;
mod registry;
mod safe_point;
mod signature;
mod state;

#[cfg(test)]
mod tests;
