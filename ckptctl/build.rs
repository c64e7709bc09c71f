// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells the library which compiler lays out the structures that it keeps in arenas.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-V").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!(
        "cargo:rustc-env=CKPT_COMPILER={}",
        version.unwrap_or_default()
    );
}
