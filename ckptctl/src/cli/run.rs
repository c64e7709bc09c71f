// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl run`: a program with a stable layout, started again when it fails.

use std::path::PathBuf;
use std::process::ExitCode;

use super::keeper::Keeper;
use super::keeper::KeeperArgs;
use super::program::Program;
use super::primary::Primary;
use super::primary::ReplicationArgs;
use super::program::ProgramArgs;
use super::restarts::RestartArgs;
use super::supervisor;

/// Start a program with a stable layout, and again from its last commit when it fails
///
/// The program's code, libraries and stack are at the same addresses at each start, so that
/// pointers to them in a restored state are good: address randomisation is off for the program and
/// for all that it starts.
///
/// The program finds DIR as an absolute path in CKPT_STORE. When the chain in it has commits, the
/// library restores the newest by itself; `ckptctl restore DIR@EPOCH` starts from an older one.
/// CKPT_COMMIT=sync in its environment makes each of its commits wait until it is durable; otherwise
/// they are saved while it goes on.
///
/// Without --restart, ckptctl becomes the program and is gone.
///
/// With --restart on-failure it stays and looks after the program. When that fails, it is started
/// again and goes on from its last durable commit; what was still on its way to the disk is lost.
/// Each failure is told in a line on stderr. A program that commits something new in each run may
/// fail as often as it likes; after --max-restarts restarts in a row without a new commit it is
/// given up. When the directory is not known to ckptctl, all restarts count as such. A damaged
/// chain ends it at once.
///
/// With --warm the arena of a program that died is kept for its next start, which puts right the
/// pages that changed since its last durable commit; from the death to going on takes a time that
/// follows those, not the size of the state, and is told. Without the module, or when the chain has moved
/// on without the arena, the state is read from the chain, and the line says why. With --watchdog a
/// program that hangs gets SIGABRT, and SIGKILL when that does not end it. With --back-after a program
/// that fails again and again from the same commit goes back to the one before.
///
/// With --replicate-to every commit is sent to spares as well, while the program runs; a spare that
/// is away gets what it missed when it comes back, and a program does not wait for it unless
/// --wait-for replicated says so: then what it says is held until all spares have the commit that it
/// depends on. With --etcd one of the spares takes over by itself when this host is gone.
///
/// SIGHUP, SIGINT, SIGQUIT and SIGTERM are handed on to the program, which is then not started
/// again however it ends, not even later: to have a daemon read its configuration again, send its
/// SIGHUP to the program. SIGUSR1, SIGUSR2 and SIGWINCH are handed on, and that is all. Should
/// ckptctl itself be killed, the program gets SIGTERM.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Directory of the chain, made when it is not there [default: CKPT_STORE, else the program's
    /// own choice]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    keeper: KeeperArgs,
    #[command(flatten)]
    replication: ReplicationArgs,
    #[command(flatten)]
    program: ProgramArgs,
}

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  ckptctl run --store /var/lib/sim -- ./sim --threads 4
  ckptctl run --store /var/lib/sim --restart on-failure -- ./sim --threads 4
  ckptctl run --store /var/lib/sim --restart on-failure --warm --watchdog 5s -- ./sim --threads 4
  ckptctl run --store /var/lib/sim --replicate-to east:7100 --pki /etc/ckpt/west --service sim \\
      --wait-for replicated -- ./sim
  ckptctl run --restart on-failure --max-restarts 3 --backoff 1s..1min -- ./sim

Exit codes:
  The program's own; 128 and the number of the signal when one killed it. Before it runs: 1 failed,
  2 usage, 3 no module for --tracker module or addresses cannot be fixed, 4 chain damaged, 126 CMD
  cannot be executed, 127 no such CMD";

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let program = Program::prepare(args.program, args.store, None)?;
    if !args.replication.is_wanted() {
        return supervisor::run(program, &args.restart, &args.keeper);
    }
    let signals = supervisor::signals()?;
    match Primary::begin(program, &args.replication, &signals)? {
        None => Ok(ExitCode::SUCCESS),
        Some(primary) => primary.run(&args.restart, Keeper::new(&args.keeper), &signals),
    }
}
