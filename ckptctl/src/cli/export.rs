// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl export`: a chain as one file.

use std::fs;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use ckptctl::store::EpochRanges;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use super::chain_arg;
use super::exit::Exit;
use super::figures;
use super::output;

/// Write a chain, or one epoch of it, as one file: for a backup, or to send it elsewhere
///
/// DIR is the whole chain, with its history; DIR@EPOCH is a chain of that epoch alone, which is put together in
/// a temporary directory ($TMPDIR) first. Programs that write to the chain go on meanwhile; what
/// they commit after the start is not in the export. Everything is verified before anything is
/// written.
///
/// The file is a tar archive of the chain's files. Its last file, B3SUMS, has their hashes, so that `ckptctl
/// import` finds out whether it is whole; `b3sum --check B3SUMS` does so by other means.
#[derive(clap::Args)]
pub struct Args {
    /// The chain's directory, and the epoch, if it shall be only one
    #[arg(value_name = "DIR[@EPOCH]", value_parser = chain_arg::spec_parser())]
    chain: ChainSpec,
    /// Write to FILE, which is there as a whole or not at all; without it, to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.output.is_none() && io::stdout().is_terminal() {
        bail!("an export is nothing to read: send stdout to a file or a pipe, or give -o FILE");
    }
    let chain = Chain::open(&args.chain.dir)?;
    match args.chain.epoch {
        None => export(&chain, args.output.as_deref()),
        Some(epoch) => {
            let parts = tempfile::Builder::new().prefix("ckpt-export").tempdir();
            let parts = parts
                .map_err(|error| anyhow!("cannot make a temporary directory: {error}; set TMPDIR"))?;
            let dir = parts.path().join("chain");
            chain.copy_epoch(epoch, &dir, |_| {})?;
            export(&Chain::open(&dir)?, args.output.as_deref())
        }
    }
}

fn export(chain: &Chain, output: Option<&Path>) -> anyhow::Result<ExitCode> {
    let report = chain.verify(|_, _| {})?;
    if !report.damage.is_empty() {
        for damage in &report.damage {
            output::say(&format!("damage: {damage}"));
        }
        output::say(&format!(
            "nothing was exported: `ckptctl export {}@EPOCH` takes one epoch, of these: {}",
            chain.dir().display(),
            match report.restorable.as_slice() {
                [] => "none is sound".into(),
                sound => EpochRanges(sound).to_string(),
            }
        ));
        return Ok(Exit::Damaged.into());
    }
    // Hidden by itself when stderr is no terminal.
    let bar = ProgressBar::new(chain.bytes()).with_style(ProgressStyle::with_template(
        "{bytes} of {total_bytes} {wide_bar} {eta} left",
    )?);
    let on_bytes = |bytes| bar.inc(bytes);
    match output {
        None => chain.export(&mut io::stdout().lock(), on_bytes)?,
        Some(path) => {
            let failed = |error: io::Error| anyhow!("cannot write {}: {error}", path.display());
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            // Whose error is easier to read.
            fs::metadata(folder).map_err(failed)?;
            // It has mode 0600, as it holds a program's memory.
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
            chain.export(&mut file, on_bytes)?;
            file.flush().map_err(failed)?;
            file.as_file().sync_all().map_err(failed)?;
            file.persist(path).map_err(|error| failed(error.error))?;
            let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(failed)?;
        }
    }
    bar.finish_and_clear();
    let epochs = figures::counted(report.restorable.len() as u64, "epoch");
    output::say(&format!("exported {epochs}, {}", figures::bytes(chain.bytes())));
    Ok(ExitCode::SUCCESS)
}
