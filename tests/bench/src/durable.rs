// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Latency of small durable commits against plain writes of as many bytes.

use anyhow::Result;
use clap::Args;

/// What to measure.
#[derive(Args)]
pub struct Options {}

/// Measures.
pub fn run(_options: &Options) -> Result<()> {
    anyhow::bail!("not built yet")
}
