// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tool prints only on a terminal.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use nix::pty::openpty;

#[test]
fn a_line_of_what_each_commit_takes_is_drawn_on_a_terminal_only() {
    let log = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
        command.args(["log", "tests/fixtures/chain-v1"]);
        command
    };
    let elsewhere = log().output().unwrap();
    assert!(!String::from_utf8(elsewhere.stdout).unwrap().contains('█'));

    let pty = openpty(None, None).unwrap();
    let mut command = log();
    let mut child = command.stdout(pty.slave).spawn().unwrap();
    // Its copy of the terminal would keep it open.
    drop(command);
    assert!(child.wait().unwrap().success());
    let mut shown = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(
        shown.contains("each takes           ██▅▅█ up to 8.0 KiB"),
        "{shown}"
    );
}
