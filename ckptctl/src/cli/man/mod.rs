// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl man`: the manual pages, made from the help and from what is written by hand in the
//! folder `man` of the crate.

mod markup;
mod page;
mod roff;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::CommandFactory;

use super::Cli;
use super::Verb;
use super::output;

/// Write the manual pages into a directory, or print that of the tool
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// A directory that is there: a page for the tool, one for each verb and one for the library are
    /// written to it
    dir: Option<PathBuf>,
}

/// What is said of the tool as a whole.
const OVERVIEW: &str = include_str!("../../../man/ckptctl.md");
/// What is said of the library.
const LIBRARY: &str = include_str!("../../../man/libckpt.md");

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(dir) = args.dir else {
        output::print(&page::of_tool(&command(), OVERVIEW))?;
        return Ok(ExitCode::SUCCESS);
    };
    for (name, page) in pages() {
        fs::write(dir.join(name), page).map_err(|error| {
            let dir = dir.display();
            anyhow!("cannot write manual pages into {dir}: {error}; give a directory that is there")
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line, with nothing in it that has no page.
fn command() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// All pages, by the names of their files.
fn pages() -> Vec<(String, String)> {
    let tool = command();
    let mut pages = vec![
        ("ckptctl.1".to_owned(), page::of_tool(&tool, OVERVIEW)),
        ("libckpt.3".to_owned(), page::of_library(LIBRARY)),
    ];
    pages.extend(tool.get_subcommands().map(|verb| {
        let name = verb.get_name();
        let page = page::of_verb(verb, Verb::manual(name));
        (format!("ckptctl-{name}.1"), page)
    }));
    pages
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::markup::Block;
    use super::*;

    /// What is in each source, by the verb's name; the tool's under its own.
    fn sources() -> Vec<(String, Vec<Block>)> {
        let tool = command();
        let verbs = tool.get_subcommands().map(|verb| {
            let name = verb.get_name().to_owned();
            let blocks = markup::parse(Verb::manual(&name));
            (name, blocks)
        });
        let mut sources: Vec<_> = verbs.collect();
        sources.push(("ckptctl".into(), markup::parse(OVERVIEW)));
        sources.push(("libckpt".into(), markup::parse(LIBRARY)));
        sources
    }

    /// The command lines of the tool in a text for a shell.
    fn command_lines(text: &str) -> Vec<Vec<String>> {
        let joined = text.replace("\\\n", " ");
        let commands = joined.lines().flat_map(|line| line.split(['|', ';', '&']));
        let found = commands.filter_map(|command| {
            let command = command.split(['#', '<', '>']).next()?;
            let words = command.split_whitespace();
            let mut words = words.map(|word| word.trim_matches(['\'', '"']).to_owned());
            // What runs it stands before it: sudo, a host, an assignment.
            let tool = words.find(|word| word == "ckptctl" || word.ends_with("/ckptctl"))?;
            Some(std::iter::once(tool).chain(words).collect())
        });
        found.collect()
    }

    #[test]
    fn every_page_has_what_people_look_for() {
        for (verb, blocks) in sources() {
            let headings: Vec<&str> = blocks.iter().filter_map(Block::as_heading).collect();
            let wanted = match verb.as_str() {
                "libckpt" => &["DESCRIPTION", "EXAMPLES", "ENVIRONMENT", "SEE ALSO"][..],
                _ => &["EXAMPLES", "EXIT STATUS", "SEE ALSO"],
            };
            for wanted in wanted {
                assert!(headings.contains(wanted), "{verb}: {wanted} is not in {headings:?}");
            }
            assert_eq!(headings.last(), Some(&"SEE ALSO"), "{verb}");
        }
    }

    #[test]
    fn every_example_is_a_command_line_of_the_tool() {
        for (verb, blocks) in sources() {
            let mut of_this_verb = 0;
            for text in blocks.iter().filter_map(Block::as_code) {
                for line in command_lines(text) {
                    let parsed = Cli::command().try_get_matches_from(&line);
                    match parsed {
                        Ok(matches) => of_this_verb += usize::from(matches.subcommand_name() == Some(&verb)),
                        Err(error) => panic!("{verb}: {line:?}: {error}"),
                    }
                }
            }
            let is_verb = !["ckptctl", "libckpt"].contains(&verb.as_str());
            assert!(of_this_verb > 0 || !is_verb, "{verb} has no example");
        }
    }

    #[test]
    fn every_example_fits_a_terminal_of_80_columns() {
        const INDENT: usize = 11;
        for (verb, blocks) in sources() {
            for line in blocks.iter().filter_map(Block::as_code).flat_map(str::lines) {
                assert!(INDENT + line.chars().count() <= 80, "{verb}: {line}");
            }
        }
    }

    #[test]
    fn every_page_that_is_referred_to_is_there() {
        let pages: BTreeSet<String> = pages().into_iter().map(|(name, _)| name).collect();
        for (verb, blocks) in sources() {
            let texts = blocks.iter().filter_map(Block::as_text);
            for reference in texts.flat_map(references) {
                assert!(pages.contains(&reference), "{verb}: there is no {reference}");
            }
        }
    }

    /// The names of our pages in a text: `ckptctl-run`(1) is ckptctl-run.1.
    fn references(text: &str) -> Vec<String> {
        let parts: Vec<&str> = text.split('`').collect();
        let pairs = parts.windows(2).filter_map(|pair| {
            let section = pair[1].strip_prefix('(')?.split(')').next()?;
            pair[0].contains("ckpt").then(|| format!("{}.{section}", pair[0]))
        });
        pairs.collect()
    }

    #[test]
    fn a_command_line_is_found_among_others() {
        let text = "ckptctl export DIR | ssh other ckptctl import --to DIR\n\
                    sudo X=1 ckptctl log DIR --json >file # ckptctl nonsense\n\
                    cp a b";
        let found = command_lines(text);
        let expected = ["ckptctl export DIR", "ckptctl import --to DIR", "ckptctl log DIR --json"];
        assert_eq!(found.iter().map(|words| words.join(" ")).collect::<Vec<_>>(), expected);
    }
}
