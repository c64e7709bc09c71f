// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was measured, as tables in Markdown.

use std::path::Path;

use anyhow::Result;

/// Prints.
pub fn run(_folder: &Path) -> Result<()> {
    anyhow::bail!("not built yet")
}
