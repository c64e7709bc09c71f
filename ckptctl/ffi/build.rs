// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the shared library its versioned name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libckpt.so.1");
}
