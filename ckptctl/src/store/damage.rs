// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be wrong with a chain: damage, and the trace of an append that was
//! never durable. `docs/format.md` section 5 tells the two apart.

use std::fmt;
use std::path::PathBuf;

/// A place where a chain is not what it was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it the damaged part begins, in bytes.
    pub offset: u64,
    /// What is wrong there, as the rest of a sentence.
    pub what: String,
    /// The epochs that cannot be restored for it, ascending. Epochs that can no
    /// longer be told from anything are not among them.
    pub lost: Vec<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: {}; ",
            self.file.display(),
            self.offset,
            self.what
        )?;
        match self.lost.as_slice() {
            [] => f.write_str("costs no known epoch"),
            [epoch] => write!(f, "epoch {epoch} cannot be restored"),
            epochs => write!(f, "epochs {} cannot be restored", EpochRanges(epochs)),
        }
    }
}

/// The trace of an append that was interrupted, or is going on right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub file: PathBuf,
    /// Where its last durable record ends.
    pub offset: u64,
    /// Bytes behind that.
    pub bytes: u64,
    /// The epoch that was being written, when that much can be told.
    pub epoch: Option<u64>,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: {} bytes of ",
            self.file.display(),
            self.offset,
            self.bytes
        )?;
        match self.epoch {
            Some(epoch) => write!(f, "epoch {epoch}, which did not become durable"),
            None => f.write_str("a record that did not become durable"),
        }
    }
}

/// Ascending epochs, written as `1-4, 7`.
#[derive(Clone, Copy, Debug)]
pub struct EpochRanges<'a>(pub &'a [u64]);

impl fmt::Display for EpochRanges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match run {
                [first, .., last] => write!(f, "{first}-{last}")?,
                [only] => write!(f, "{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}
