// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl doctor`: what this machine has, what would be used, and what to do about the rest.

use std::process::ExitCode;

use super::checks;
use super::checks::Check;
use super::exit::Exit;
use super::machine::Machine;
use super::output;

/// Check kernel, module, permissions and limits, and say what to do about what is missing
///
/// One line for each check: ok; advice, when it works and could be better; missing; or unknown. The
/// line below says what to do. The last check is the tracker that programs would get.
///
/// Ends with 0 when programs can run, with or without the module, and with 3 when they cannot.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let diagnosis = checks::diagnose(&Machine::look());
    if args.json {
        output::print_json(&diagnosis)?;
    } else {
        output::print(&text(&diagnosis.checks))?;
    }
    Ok(match diagnosis.tracker {
        Some(_) => ExitCode::SUCCESS,
        None => Exit::Unsupported.into(),
    })
}

fn text(checks: &[Check]) -> String {
    let width = |of: fn(&Check) -> &str| {
        checks
            .iter()
            .map(|check| of(check).len())
            .max()
            .unwrap_or(0)
    };
    let states = width(|check| check.state.name());
    let names = width(|check| check.name);
    let mut text = String::new();
    for check in checks {
        let (state, name, found) = (check.state.name(), check.name, &check.found);
        text += &format!("{state:states$}  {name:names$}  {found}\n");
        if let Some(advice) = &check.advice {
            text += &format!("{:states$}  {:names$}  -> {advice}\n", "", "");
        }
    }
    text
}
