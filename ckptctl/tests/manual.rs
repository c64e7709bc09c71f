// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The manual pages and completions that `make install` makes with the tool.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::process::Output;

fn ckptctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ckptctl"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The verbs of the help.
fn verbs() -> Vec<String> {
    verbs_of(&[])
}

/// The verbs of a verb's help, if it has any.
fn verbs_of(verb: &[&str]) -> Vec<String> {
    let help = ckptctl(&[verb, &["--help"]].concat());
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = lines.take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    verbs
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn there_is_a_page_for_the_tool_and_for_each_verb() {
    let dir = tempfile::tempdir().unwrap();
    let output = ckptctl(&["man", dir.path().to_str().unwrap()]);
    assert!(output.status.success());
    let written = fs::read_dir(dir.path()).unwrap();
    let written: BTreeSet<String> = written
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected = BTreeSet::new();
    for verb in verbs() {
        expected.insert(format!("ckptctl-{verb}.1"));
        for part in verbs_of(&[&verb]) {
            expected.insert(format!("ckptctl-{verb}-{part}.1"));
        }
    }
    assert!(expected.len() > 6, "{expected:?}");
    expected.insert("ckptctl.1".into());
    assert_eq!(written, expected);
    let run = fs::read_to_string(dir.path().join("ckptctl-run.1")).unwrap();
    assert!(
        run.contains("SIGHUP, SIGINT, SIGQUIT and SIGTERM"),
        "the long help is in it"
    );
}

#[test]
fn the_tools_page_is_printed_without_a_directory() {
    let output = ckptctl(&["man"]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(".TH ckptctl 1")
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let output = ckptctl(&["man", "/no/such/directory"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/no/such/directory")
    );
}

#[test]
fn completions_know_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ckptctl(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell}: {verb}");
        }
    }
}
