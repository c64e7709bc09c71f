// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cost against changed pages, as a picture.

use std::path::Path;

use anyhow::Result;

/// Draws.
pub fn run(_folder: &Path, _picture: &Path) -> Result<()> {
    anyhow::bail!("not built yet")
}
