// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pki`: the certificates by which nodes know each other.

mod authority;
mod certificate;
mod init;
mod issue;
mod listing;
mod show;
mod staging;

use std::process::ExitCode;

use clap::Subcommand;

/// Make the certificates by which a program's host and its spares know each other
///
/// An installation has an authority of its own: a key that signs the certificates of its nodes, and
/// that no node needs. Nobody else is trusted. A node's certificate says what the node is called,
/// by which addresses it is reached, and for which services it may speak.
///
/// A node needs three files in a directory that belongs to the user that runs ckpt there: ca.pem,
/// cert.pem and key.pem. `ckptctl pki issue` makes that directory; copy it to the node as a whole.
/// Who has a node's key.pem is that node; who has the authority's ca-key.pem can be any. Keep the
/// authority's directory on a machine that is no node, or offline.
#[derive(clap::Args)]
#[command(after_long_help = HELP, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Examples.
const HELP: &str = "\
Examples:
  ckptctl pki init pki --name production
  ckptctl pki issue pki east --service kv --address 10.0.0.5
  ckptctl pki issue pki west --service kv --address 10.0.0.6
  ckptctl pki show pki
  ckptctl pki issue pki east --replace";

#[derive(Subcommand)]
enum Verb {
    Init(init::Args),
    Issue(issue::Args),
    Show(show::Args),
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Init(args) => init::run(args),
        Verb::Issue(args) => issue::run(args),
        Verb::Show(args) => show::run(args),
    }
}
