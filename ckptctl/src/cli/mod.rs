// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: one file per verb.
//!
//! A verb is a module with a `pub struct Args` (clap) and a
//! `pub fn run(args: Args) -> anyhow::Result<ExitCode>`, and a file in the crate's folder `man` with
//! what its manual page says beyond the help. Data goes to stdout, words go to stderr.

mod acknowledger;
mod arena_map;
mod candidacy;
mod chain_arg;
mod chain_json;
mod checks;
mod exit;
mod figures;
mod keeper;
mod kernel_config;
mod machine;
mod module;
mod output;
mod primary;
mod program;
mod progress;
mod prometheus;
mod reign;
mod replication_args;
mod replicator;
mod restarts;
mod settling;
mod spare_board;
mod spare_socket;
mod sparkline;
mod status_file;
mod supervisor;
mod target;
mod term;
mod times;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

/// Makes the verbs' modules, their enum and the way from one to the other.
macro_rules! verbs {
    ($($variant:ident in $module:ident,)*) => {
        $(mod $module;)*

        #[derive(Subcommand)]
        enum Verb {
            $($variant($module::Args),)*
        }

        impl Verb {
            fn run(self) -> anyhow::Result<ExitCode> {
                match self {
                    $(Verb::$variant(args) => $module::run(args),)*
                }
            }

            /// What the page of a verb says beyond the help.
            fn manual(name: &str) -> &'static str {
                match name {
                    $(stringify!($module) => {
                        include_str!(concat!("../../man/", stringify!($module), ".md"))
                    })*
                    _ => "",
                }
            }
        }
    };
}

// The order is the help's.
verbs! {
    Demo in demo,
    Doctor in doctor,
    Run in run,
    Ps in ps,
    Commit in commit,
    Pull in pull,
    Spare in spare,
    Replicate in replicate,
    Promote in promote,
    Migrate in migrate,
    Log in log,
    Show in show,
    Diff in diff,
    Verify in verify,
    Restore in restore,
    Compact in compact,
    Export in export,
    Import in import,
    Pki in pki,
    Completions in completions,
    Man in man,
}

/// Memory that remembers what changed: run programs, look after their chains.
#[derive(Parser)]
#[command(name = "ckptctl", version, after_help = exit::HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Runs the tool.
pub fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Every message names its cause itself.
            eprintln!("ckptctl: {error}");
            exit::Exit::of(&error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
