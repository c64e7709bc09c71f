// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers of the kernel's memory management, and where the `unsafe` is.
//!
//! The kernel's own Rust crate has no abstraction for files outside of `/dev`, for
//! address spaces, folios and fault handlers. These are the small ones that an arena
//! needs; each says what it guarantees.

pub(crate) mod areas;
pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod compat;
pub(crate) mod control;
pub(crate) mod copies;
pub(crate) mod direct;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod folio;
pub(crate) mod heap;
pub(crate) mod mapping;
pub(crate) mod owner;
pub(crate) mod program;
mod shim;
mod table;
pub(crate) mod wait;
