// SPDX-License-Identifier: GPL-2.0-only
//! The logic of the ckpt module that needs no kernel.
//!
//! The same files are compiled into the module, as `mod tracking` of
//! `ckpt_main.rs`, and by cargo as a crate, so that they can be tested on the
//! host. A file here therefore names its neighbours by `super::`.
//!
//! Data flows one way: a fault *notes* a page ([`index`]), a commit *harvests*
//! the notes chunk by chunk ([`tracker`] decides what to re-arm) and stamps the
//! pages with the new epoch, and a delta is read off the stamps.

#![cfg_attr(not(test), no_std)]

pub mod bits;
pub mod chunk;
pub mod index;
pub mod ranges;
pub mod slot;
pub mod tracker;
