// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Naming a chain on the command line, and saying what was found odd about it.

use std::process::ExitCode;

use anyhow::Context;
use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use clap::builder::OsStringValueParser;
use clap::builder::TypedValueParser;

use super::exit::Exit;

/// `DIR@EPOCH`, for `#[arg(value_parser = spec_parser())]`.
pub fn spec_parser() -> impl TypedValueParser<Value = ChainSpec> {
    OsStringValueParser::new().try_map(|text| ChainSpec::parse(&text))
}

/// The epoch that a `DIR[@EPOCH]` names.
pub fn epoch_of(chain: &Chain, spec: &ChainSpec) -> anyhow::Result<u64> {
    match spec.epoch {
        Some(epoch) => Ok(epoch),
        None => {
            let dir = spec.dir.display();
            let newest = chain.newest()?;
            let newest = newest.with_context(|| format!("nothing was committed to {dir} yet"))?;
            Ok(newest.epoch)
        }
    }
}

/// Says on stderr what is wrong with a chain as far as it shows without reading
/// page data; the exit code for a verb that could print its data all the same.
pub fn warn(chain: &Chain) -> ExitCode {
    if let Some(torn) = chain.torn() {
        eprintln!(
            "ckptctl: {torn}; if no writer is at it right now, an append was interrupted, and the \
             next writer cuts it off"
        );
    }
    for damage in chain.damage() {
        eprintln!("ckptctl: damage: {damage}");
    }
    if chain.damage().is_empty() {
        ExitCode::SUCCESS
    } else {
        Exit::Damaged.into()
    }
}
