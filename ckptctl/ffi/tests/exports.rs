// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the built libraries give to linkers: the header's functions, all of them, nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// The functions that `include/ckpt.h` declares.
fn declared() -> BTreeSet<String> {
    let header = include_str!("../src/header.rs");
    let functions = header.split("pub fn ").skip(1);
    let names: BTreeSet<String> = functions
        .filter_map(|rest| rest.split('(').next())
        .map(str::to_owned)
        .collect();
    assert!(names.contains("ckpt_open"), "{names:?}");
    names
}

/// A library that was built with this test.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let path = deps.join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

fn tool(command: &str, arguments: &[&str], library: &str) -> String {
    let output = Command::new(command)
        .args(arguments)
        .arg(built(library))
        .output()
        .unwrap_or_else(|error| panic!("{command}, of binutils: {error}"));
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Functions that `nm` finds.
fn symbols(arguments: &[&str], library: &str) -> BTreeSet<String> {
    let text = tool("nm", arguments, library);
    let functions = text.lines().filter_map(|line| line.split_once(" T "));
    functions.map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let exported = symbols(&["--dynamic", "--defined-only"], "libckpt.so");
    assert_eq!(exported, declared());
}

#[test]
fn the_static_library_has_what_the_header_declares() {
    let all = symbols(&["--defined-only"], "libckpt.a");
    let ours: BTreeSet<String> = all
        .into_iter()
        .filter(|name| name.starts_with("ckpt_"))
        .collect();
    assert_eq!(ours, declared());
}

#[test]
fn the_shared_library_bears_a_versioned_name() {
    let headers = tool("objdump", &["--private-headers"], "libckpt.so");
    let names: Vec<&str> = headers
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SONAME"))
        .map(str::trim)
        .collect();
    assert_eq!(names, ["libckpt.so.1"]);
}
