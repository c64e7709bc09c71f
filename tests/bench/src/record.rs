// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was measured, on its way out of the test VM: one line of JSON for each result, with
//! the file it belongs to in front. `scripts/bench.sh` makes the files of them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;

/// Prints one result, a flat object, for `target/bench/FILE.json`.
pub fn emit(file: &str, result: &Value) {
    println!("@{file} {result}");
}

/// The results in `FOLDER/FILE.json`; none if there is no such file.
pub fn read(folder: &Path, file: &str) -> Result<Vec<Value>> {
    let path = folder.join(file).with_extension("json");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what it should be", path.display()))
}

/// The number under a key of a result.
pub fn number(result: &Value, key: &str) -> Option<f64> {
    result.get(key)?.as_f64()
}

/// The text under a key of a result.
pub fn text<'a>(result: &'a Value, key: &str) -> &'a str {
    result.get(key).and_then(Value::as_str).unwrap_or_default()
}
