// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl restore`: a program, from an epoch of a chain that was checked first.

use std::process::ExitCode;

use anyhow::anyhow;
use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use ckptctl::sys::thread;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use super::chain_arg;
use super::keeper::KeeperArgs;
use super::program::Program;
use super::program::ProgramArgs;
use super::restarts::RestartArgs;
use super::supervisor;

/// Check an epoch of a chain, then start a program that goes on from it
///
/// The newest epoch, unless one is named. Everything that the epoch consists of is read and
/// checked first; when any of it is damaged, the damage is named and nothing is started. To see
/// what there is to restore, use `ckptctl log DIR`.
///
/// The program goes on with new epochs above all that the chain has. Nothing is lost by going
/// back: the epochs after the restored one stay in the chain and can be restored as well.
///
/// The program finds the directory in CKPT_STORE and the epoch in CKPT_RESTORE_EPOCH; otherwise it
/// is started as by `ckptctl run`, whose help says more about exit codes, restarts and signals.
/// After a restart, the program goes on from its last durable commit, not from EPOCH once more.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The chain's directory; the newest epoch unless one is named
    #[arg(value_name = "DIR[@EPOCH]", value_parser = chain_arg::spec_parser())]
    chain: ChainSpec,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    keeper: KeeperArgs,
    #[command(flatten)]
    program: ProgramArgs,
}

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  ckptctl log /var/lib/sim
  ckptctl restore /var/lib/sim@41 -- ./sim --threads 4

Exit codes:
  Those of `ckptctl run`. Nothing was started with 1 when there is no such chain or epoch, and with
  4 when the epoch is damaged";

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let chain = Chain::open(&args.chain.dir)?;
    let epoch = match args.chain.epoch {
        Some(epoch) => epoch,
        None => {
            let newest = chain.newest()?.ok_or_else(|| {
                let dir = args.chain.dir.display();
                anyhow!("nothing was committed to {dir} yet: start the program by `ckptctl run`")
            })?;
            newest.epoch
        }
    };
    check(&chain, epoch)?;
    chain_arg::warn(&chain);
    let program = Program::prepare(args.program, Some(args.chain.dir), Some(epoch))?;
    supervisor::run(program, &args.restart, &args.keeper)
}

/// Reads all that an epoch consists of.
fn check(chain: &Chain, epoch: u64) -> anyhow::Result<()> {
    chain.get(epoch)?;
    let loader = chain.load(epoch)?;
    // Hidden by itself when stderr is no terminal.
    let bar = ProgressBar::new(loader.pages() << loader.page_shift()).with_style(
        ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {eta} left")?,
    );
    let read = loader.restore(thread::processors(), |_, bytes| bar.inc(bytes.len() as u64));
    bar.finish_and_clear();
    Ok(read?)
}
