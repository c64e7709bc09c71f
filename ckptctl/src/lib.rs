// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that remembers what changed.

pub mod store;
pub mod sys;
