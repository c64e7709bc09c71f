// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl doctor` and `ckptctl ps` on the machine that the tests run on, with or without the
//! module.

use std::path::Path;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn ckptctl(arguments: &[&str], tracker: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command
        .args(arguments)
        .env("CKPT_TRACKER", tracker)
        .env_remove("CKPT_STORE");
    command.output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn has_module() -> bool {
    Path::new("/dev/ckpt").exists()
}

#[test]
fn a_machine_that_can_run_programs_is_told_by_which_tracker() {
    let output = ckptctl(&["doctor", "--json"], "compare");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(diagnosis["tracker"], "compare");
    let checks = diagnosis["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .all(|check| check["found"].as_str().is_some_and(|it| !it.is_empty()))
    );
}

#[test]
fn people_see_the_same_checks_as_programs() {
    let json = ckptctl(&["doctor", "--json"], "auto");
    let text = String::from_utf8(ckptctl(&["doctor"], "auto").stdout).unwrap();
    let diagnosis: Value = serde_json::from_slice(&json.stdout).unwrap();
    for check in diagnosis["checks"].as_array().unwrap() {
        let line = text
            .lines()
            .find(|line| line.contains(check["found"].as_str().unwrap()));
        let line = line.unwrap_or_else(|| panic!("{check} is not in {text}"));
        assert!(line.starts_with(check["state"].as_str().unwrap()), "{line}");
    }
}

#[test]
fn a_machine_that_cannot_run_programs_is_not_supported() {
    let output = ckptctl(&["doctor"], "magic");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("CKPT_TRACKER=magic"), "{text}");
}

#[test]
fn without_the_module_what_needs_it_is_refused_with_advice() {
    let ps = ckptctl(&["ps"], "");
    let run = ckptctl(&["run", "--tracker", "module", "--", "echo", "started"], "");
    let inherited = ckptctl(&["run", "--", "echo", "started"], "module");
    if has_module() {
        assert_eq!(ps.status.code(), Some(0), "{}", words(&ps));
        assert_eq!(run.stdout, b"started\n", "{}", words(&run));
        return;
    }
    for output in [ps, run, inherited] {
        assert_eq!(output.status.code(), Some(3));
        assert!(
            words(&output).contains("no /dev/ckpt: load the module"),
            "{}",
            words(&output)
        );
        assert_eq!(output.stdout, b"");
    }
}
