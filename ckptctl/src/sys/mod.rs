// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every system call of this crate.

pub mod file;
