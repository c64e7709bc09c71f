// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What it costs to learn which pages changed: a write phase, and the finding behind it, by
//! mechanism, number and pattern of changed pages.

mod fork;
mod memory;
mod module;
mod mprotect;
mod pagemap;
mod pagemap_scan;
mod runs;
mod snapshot;
mod soft_dirty;
mod workload;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

pub use memory::Private;
pub use workload::Numbers;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Mechanisms, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "module,pagemap_scan,soft_dirty,mprotect,fork"
    )]
    mechanisms: Vec<String>,
    /// Workloads, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "grid,fresh,moving,mix,size,snapshot"
    )]
    workloads: Vec<String>,
    /// What to call the module in the results
    #[arg(long, default_value = "module")]
    label: String,
    /// Pages of the arena; more for the workload "size", which compares it with this
    #[arg(long, default_value_t = PAGES)]
    pages: u64,
    /// Seconds to wait first, so that what the machine does when it was just started is done
    #[arg(long, default_value_t = 20)]
    settle: u64,
}

/// Pages of the arena: 256 MiB.
pub const PAGES: u64 = 65_536;

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    std::thread::sleep(Duration::from_secs(options.settle));
    println!(
        "Instructions per epoch, {} pages; one nanosecond of this clock is one",
        options.pages
    );
    println!("instruction in the test VM. Each changed page gets 8 one-byte increments 512 bytes");
    println!("apart, which the write column contains. Not in it: what caches, translation");
    println!("buffers and interrupts between processors cost on a real machine.");
    println!();
    println!("{}", runs::HEAD);
    for workload in &options.workloads {
        match workload.as_str() {
            "snapshot" => snapshot::run(options)?,
            workload => {
                for mechanism in &options.mechanisms {
                    runs::run(workload, mechanism, options)?;
                }
            }
        }
    }
    Ok(())
}
