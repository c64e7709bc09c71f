// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The manual pages and completions that `make install` makes with the tool.

use std::collections::BTreeMap;
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

/// The verbs of the help, and those that it does not name.
fn verbs() -> Vec<String> {
    let help = String::from_utf8(ckptctl(&["--help"]).stdout).unwrap();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = lines.take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    let named = verbs.filter(|verb| *verb != "help");
    named
        .chain(["completions", "man"])
        .map(str::to_owned)
        .collect()
}

/// All pages, by the names of their files.
fn pages() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let output = ckptctl(&["man", dir.path().to_str().unwrap()]);
    assert!(output.status.success());
    let files = fs::read_dir(dir.path()).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    files.collect()
}

fn sections(page: &str) -> Vec<&str> {
    let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
    headings.map(|heading| heading.trim_matches('"')).collect()
}

#[test]
fn there_is_a_page_for_the_tool_the_library_and_each_verb() {
    let verbs = verbs();
    assert!(verbs.len() > 6, "{verbs:?}");
    let expected = verbs.iter().map(|verb| format!("ckptctl-{verb}.1"));
    let mut expected: BTreeSet<String> = expected.collect();
    expected.extend(["ckptctl.1".into(), "libckpt.3".into()]);
    assert_eq!(pages().into_keys().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_page_has_its_sections_in_the_usual_order() {
    const ORDER: [&str; 12] = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "VERBS",
        "OPTIONS",
        "WORDS",
        "EXAMPLES",
        "NOTES",
        "ENVIRONMENT",
        "FILES",
        "EXIT STATUS",
        "SEE ALSO",
    ];
    for (name, page) in pages().iter().filter(|(name, _)| name.ends_with(".1")) {
        let sections = sections(page);
        let places = sections.iter().map(|section| {
            let place = ORDER.iter().position(|known| known == section);
            place.unwrap_or_else(|| panic!("{name}: {section} is not a usual section"))
        });
        assert!(places.is_sorted_by(|a, b| a < b), "{name}: {sections:?}");
        for wanted in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
            assert!(sections.contains(&wanted), "{name} has no {wanted}");
        }
    }
}

#[test]
fn every_option_of_a_verb_is_in_its_page() {
    let pages = pages();
    for verb in verbs() {
        let help = String::from_utf8(ckptctl(&[&verb, "--help"]).stdout).unwrap();
        // An example's program has options of its own.
        let (options, _) = help.split_once("\nExamples:").unwrap_or((&help, ""));
        let words = options
            .lines()
            .filter(|line| line.trim_start().starts_with('-'));
        let words = words.flat_map(|line| line.split([' ', ',', '[', '=']));
        let options: BTreeSet<&str> = words.filter(|word| word.starts_with("--")).collect();
        assert!(options.contains("--help"), "{verb}: {options:?}");
        let page = &pages[&format!("ckptctl-{verb}.1")];
        let (_, explained) = page.split_once(".SH \"OPTIONS\"").unwrap();
        for option in options.into_iter().filter(|option| option.len() > 2) {
            let as_term = format!("\\fB{}", option.replace('-', "\\-"));
            let is_term = |line: &str| line.starts_with("\\fB") && line.contains(&as_term);
            assert!(explained.lines().any(is_term), "{verb}: {option}");
        }
    }
}

#[test]
fn the_long_help_is_in_the_page() {
    let run = &pages()["ckptctl-run.1"];
    let words: Vec<&str> = run.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("SIGHUP, SIGINT, SIGQUIT and SIGTERM")
    );
}

#[test]
fn the_tools_page_is_printed_without_a_directory() {
    let output = ckptctl(&["man"]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(".TH CKPTCTL 1")
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
