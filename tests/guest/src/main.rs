// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of the kernel module, run in the test VM.
fn main() {}
