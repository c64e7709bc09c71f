// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demonstration: real commands, one after the other, and what they print.

use std::env;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::process::Output;
use std::process::Stdio;

use anyhow::Context;
use anyhow::bail;
use ckptctl::track;

use super::super::output;

/// Who tells the story.
struct Teller {
    tool: PathBuf,
    chain: PathBuf,
    tracker: Option<&'static str>,
    bold: bool,
}

/// Tells the story, with the chain in `keep` or in a directory that is removed.
pub fn tell(keep: Option<&Path>) -> anyhow::Result<ExitCode> {
    let temporary = match keep {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("ckpt-demo-")
                .tempdir()
                .context("cannot make a temporary directory: set TMPDIR")?,
        ),
    };
    let chain = match (&temporary, keep) {
        (Some(temporary), _) => temporary.path().join("bank"),
        (None, keep) => keep.map(Path::to_owned).unwrap_or_default(),
    };
    let used = std::fs::read_dir(&chain).is_ok_and(|mut names| names.next().is_some());
    if used {
        bail!("{} is not empty: give --keep a new directory", chain.display());
    }
    let teller = Teller {
        tool: env::current_exe().context("cannot find the tool itself")?,
        chain,
        tracker: tracker(),
        bold: std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
    };
    teller.tell()?;
    if keep.is_some() {
        teller.say(&format!("The chain is in {}.", teller.chain.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Which tracker to ask for, so that nobody is told what would be better.
fn tracker() -> Option<&'static str> {
    if env::var_os("CKPT_TRACKER").is_some() || Path::new("/dev/ckpt").exists() {
        return None;
    }
    Some(match track::try_pagemap() {
        Ok(()) => "pagemap",
        Err(_) => "compare",
    })
}

impl Teller {
    fn tell(&self) -> anyhow::Result<()> {
        let store = &*self.chain.display().to_string();
        self.title("1. A program that saves itself")?;
        self.say(
            "A bank of 2,000 accounts, a page each, all in memory. It commits after 25 transfers. Only the\n\
             pages that changed are saved. Then it is killed, in the middle of a transfer.",
        )?;
        let died = self.bank(&["--transfers", "110", "--killed"])?;
        if died.status.signal() != Some(9) {
            bail!("the bank was to be killed, and ended with {}", died.status);
        }

        self.title("2. Started again")?;
        self.say("It goes on from its last commit. What was half done then never was; no coin is missing.")?;
        self.succeeds(&self.bank(&["--transfers", "150"])?)?;

        self.title("3. A mistake, taken back")?;
        self.say(
            "A bug makes coins out of nothing, and that is even committed. The bank notices, and goes back in\n\
             place, without a new start.",
        )?;
        self.succeeds(&self.bank(&["--transfers", "200", "--bug"])?)?;

        self.title("4. What is on the disk")?;
        self.shown(&["log", store])?;
        self.say("And what the bug did:")?;
        self.shown(&["diff", &format!("{store}@10"), &format!("{store}@11")])?;
        self.say("Everything on the disk is under a checksum:")?;
        self.shown(&["verify", store])
    }

    fn print(&self, text: &str) -> anyhow::Result<()> {
        output::print(text)
    }

    fn title(&self, words: &str) -> anyhow::Result<()> {
        self.print(&match self.bold {
            true => format!("\x1b[1m{words}\x1b[0m\n"),
            false => format!("{words}\n"),
        })
    }

    fn say(&self, words: &str) -> anyhow::Result<()> {
        self.print(&format!("{words}\n"))
    }

    /// Runs the tool and prints what a person would have typed, and what came of it.
    fn command(&self, args: &[&str]) -> anyhow::Result<Output> {
        let words: Vec<_> = args.iter().map(|word| word.replace(&*self.tool.to_string_lossy(), "ckptctl")).collect();
        self.print(&format!("\n  $ ckptctl {}\n", words.join(" ")))?;
        let mut command = Command::new(&self.tool);
        command.args(args).stdin(Stdio::null());
        if let Some(tracker) = self.tracker {
            command.env("CKPT_TRACKER", tracker);
        }
        let output = command.output().context("cannot start the tool itself")?;
        let text = [&output.stdout[..], &output.stderr].concat();
        for line in String::from_utf8_lossy(&text).lines() {
            self.print(&format!("    {line}\n"))?;
        }
        self.print("\n")?;
        Ok(output)
    }

    fn bank(&self, args: &[&str]) -> anyhow::Result<Output> {
        let (tool, store) = (self.tool.to_string_lossy(), self.chain.to_string_lossy());
        let run = ["run", "--store", &store, "--", &tool, "demo", "--bank"];
        self.command(&[&run, args].concat())
    }

    fn succeeds(&self, output: &Output) -> anyhow::Result<()> {
        if !output.status.success() {
            bail!("that was to succeed, and ended with {}", output.status);
        }
        Ok(())
    }

    fn shown(&self, args: &[&str]) -> anyhow::Result<()> {
        self.succeeds(&self.command(args)?)
    }
}
