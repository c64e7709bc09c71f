// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manual pages of commands: what their definition says, and around it what is written by hand.

use std::collections::BTreeSet;

use clap::Arg;
use clap::ArgAction;
use clap::Command;

use super::markup;
use super::markup::Block;
use super::roff;
use super::roff::Roff;

/// The page of the tool.
pub fn of_tool(tool: &Command, source: &str) -> String {
    let mut page = begin("ckptctl", 1, tool);
    let (description, rest) = described(source);
    page.section("DESCRIPTION");
    page.blocks(&description);
    page.section("VERBS");
    page.text("Each has a page of its own, and a help: `ckptctl VERB --help`.");
    for verb in tool.get_subcommands() {
        let term = format!("`ckptctl-{}`(1)", verb.get_name());
        page.item(&term, &sentence(&about(verb)));
    }
    page.section("OPTIONS");
    options(&mut page, tool);
    page.blocks(&rest);
    page.finish()
}

/// The page of a verb.
pub fn of_verb(verb: &Command, source: &str) -> String {
    let mut page = begin(&format!("ckptctl-{}", verb.get_name()), 1, verb);
    let (description, rest) = described(source);
    page.section("DESCRIPTION");
    let long = verb.get_long_about().map(ToString::to_string);
    // Its first paragraph is the name's line again.
    let help = long.as_deref().and_then(|long| long.split_once("\n\n"));
    let mut blocks = description;
    blocks.extend(markup::parse(help.map_or("", |(_, more)| more)));
    // A section without text is none.
    if blocks.is_empty() {
        blocks.push(Block::Paragraph(sentence(&about(verb))));
    }
    page.blocks(&blocks);
    let parts: Vec<&Command> = verb
        .get_subcommands()
        .filter(|part| part.get_name() != "help")
        .collect();
    if !parts.is_empty() {
        page.section("VERBS");
    }
    for part in parts {
        part_of_verb(&mut page, verb, part);
    }
    page.section("OPTIONS");
    options(&mut page, verb);
    page.blocks(&rest);
    page.finish()
}

/// A verb of a verb.
fn part_of_verb(page: &mut Roff, verb: &Command, part: &Command) {
    let values: Vec<String> = shown(part)
        .filter(|arg| arg.is_positional())
        .map(value_name)
        .collect();
    let name = format!("ckptctl {} {}", verb.get_name(), part.get_name());
    let usage = format!("`{name}` [OPTION ...] {}", values.join(" "));
    page.item(usage.trim_end(), &sentence(&about(part)));
    let long = part.get_long_about().map(ToString::to_string);
    let more = long.as_deref().and_then(|long| long.split_once("\n\n"));
    for paragraph in more.map_or("", |(_, more)| more).split("\n\n") {
        if !paragraph.is_empty() {
            page.line(".IP");
            page.text(paragraph);
        }
    }
    page.line(".RS");
    options(page, part);
    page.line(".RE");
}

/// The page of the library.
pub fn of_library(source: &str) -> String {
    let mut page = Roff::new("libckpt", 3, env!("CARGO_PKG_VERSION"), BTreeSet::new());
    page.blocks(&markup::parse(source));
    page.finish()
}

/// Name and synopsis.
fn begin(title: &str, section: u8, command: &Command) -> Roff {
    let common = ["DIR", "EPOCH", "VERB"].map(str::to_owned);
    let placeholders = command.get_arguments().flat_map(value_words);
    let placeholders = placeholders.chain(common).collect();
    let mut page = Roff::new(title, section, env!("CARGO_PKG_VERSION"), placeholders);
    page.section("NAME");
    let name = title.replace('-', roff::DASH);
    page.text(&format!("{name} {} {}", roff::DASH, lower_first(&about(command))));
    page.section("SYNOPSIS");
    let name = command.get_bin_name().unwrap_or(command.get_name());
    page.line(&format!(".SY \"{}\"", name.replace('-', "\\-")));
    for arg in shown(command).filter(|arg| !is_help(arg)) {
        let usage = usage(&page, arg);
        page.line(&usage);
    }
    if command.has_subcommands() {
        page.line("\\fIVERB\\fR");
        page.line("[\\fIARGUMENT\\fR \\&...]");
    }
    page.line(".YS");
    page
}

/// The description in a source, and the sections behind it.
fn described(source: &str) -> (Vec<Block>, Vec<Block>) {
    let blocks = markup::parse(source);
    let description = Block::Heading("DESCRIPTION".into());
    let Some(blocks) = blocks.strip_prefix(&[description]) else {
        return (Vec::new(), blocks);
    };
    let is_heading = |block: &Block| matches!(block, Block::Heading(_));
    let end = blocks.iter().position(is_heading).unwrap_or(blocks.len());
    let (description, rest) = blocks.split_at(end);
    (description.to_vec(), rest.to_vec())
}

/// What it does, in a line.
fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// As names are explained in manuals.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// The help's lines have no full stop.
fn sentence(text: &str) -> String {
    match text.ends_with(['.', ':', '?']) || text.is_empty() {
        true => text.into(),
        false => format!("{text}."),
    }
}

/// Options first, then what stands behind them, in the help's order.
fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    let of = |positional: bool| {
        let args = command.get_arguments();
        args.filter(move |arg| !arg.is_hide_set() && arg.is_positional() == positional)
    };
    of(false).chain(of(true))
}

fn is_help(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The words in the names of an argument's values: DIR and EPOCH of `DIR[@EPOCH]`.
fn value_words(arg: &Arg) -> Vec<String> {
    let names = value_name(arg);
    let words = names.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn value_name(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some(names) if takes_value(arg) => names.join(" "),
        _ if arg.is_positional() => arg.get_id().as_str().to_uppercase(),
        _ => String::new(),
    }
}

/// An option with its value: `--wait[=LEVEL]`.
fn with_value(name: &str, arg: &Arg) -> String {
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    match (value_name(arg).as_str(), optional) {
        ("", _) => format!("`{name}`"),
        (value, true) => format!("`{name}`[`={value}`]"),
        (value, false) => format!("`{name} {value}`"),
    }
}

/// An argument in the synopsis.
fn usage(page: &Roff, arg: &Arg) -> String {
    let long = arg.get_long().map(|long| format!("--{long}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    let Some(name) = long.or(short) else {
        let value = page.styled(&value_name(arg));
        return match (arg.is_last_set(), arg.is_required_set()) {
            (true, _) => format!("\\fB\\-\\-\\fR {value} [\\fIARGUMENT\\fR \\&...]"),
            (_, true) => value,
            (_, false) => format!("[{value}]"),
        };
    };
    let option = page.styled(&with_value(&name, arg)).replace(' ', "\\ ");
    match arg.is_required_set() {
        true => option,
        false => format!("[{option}]"),
    }
}

/// What each argument means.
fn options(page: &mut Roff, command: &Command) {
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        shown(command).partition(|arg| arg.is_positional());
    for arg in positional.into_iter().chain(options) {
        let short = arg.get_short().map(|short| format!("-{short}"));
        let long = arg.get_long().map(|long| format!("--{long}"));
        let term = match (short, long) {
            (None, None) if arg.is_last_set() => format!("`--` {} [ARGUMENT ...]", value_name(arg)),
            (None, None) => value_name(arg),
            (Some(short), Some(long)) => format!("`{short}`, {}", with_value(&long, arg)),
            (Some(one), None) | (None, Some(one)) => with_value(&one, arg),
        };
        let help = arg.get_long_help().or(arg.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let (first, more) = help.split_once("\n\n").unwrap_or((&help, ""));
        page.item(&term, &explained(first, arg));
        for paragraph in more.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            page.line(".IP");
            page.text(&sentence(paragraph));
        }
        possible_values(page, arg);
    }
}

/// The help of an argument as sentences, with what holds when it is not given.
fn explained(help: &str, arg: &Arg) -> String {
    // Where it is not a value that is known beforehand, the help says it.
    let (help, default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help, default.trim_end_matches(']').to_owned()),
        None => {
            let values = arg.get_default_values().iter();
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            (help, values.join(" "))
        }
    };
    match (takes_value(arg), default.as_str()) {
        (false, _) | (_, "") => sentence(help),
        (true, default) => format!("{} Default: {default}.", sentence(help)),
    }
}

fn possible_values(page: &mut Roff, arg: &Arg) {
    let values: Vec<_> = match takes_value(arg) {
        true => arg.get_possible_values(),
        false => Vec::new(),
    };
    let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if values.is_empty() {
        return;
    }
    page.line(".RS");
    for value in values {
        let help = value.get_help().map(ToString::to_string);
        let term = format!("`{}`", value.get_name());
        page.item(&term, &sentence(&help.unwrap_or_default()));
    }
    page.line(".RE");
}
