// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pause and total of an incremental checkpoint of the same program, by several means.

use anyhow::Result;
use clap::Args;

/// What to measure.
#[derive(Args)]
pub struct Options {}

/// Measures.
pub fn run(_options: &Options) -> Result<()> {
    anyhow::bail!("not built yet")
}
