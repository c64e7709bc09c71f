// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The highest term that is known where a chain is: who comes with a lower one is fenced.

use std::io;
use std::path::Path;

use crate::store::TERM_NAME;
use crate::store::TERM_UNFINISHED;
use crate::sys::file;
use crate::sys::file::File;

/// Longest content that can be a term.
const MAX_BYTES: u64 = 32;

/// The highest term known at a chain; 0 when there never was one.
///
/// # Errors
///
/// What reading ran into; `InvalidData` when the file holds something else.
pub fn known_term(dir: &Path) -> io::Result<u64> {
    let file = match File::open(&dir.join(TERM_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    let mut text = vec![0; file.len_bytes()?.min(MAX_BYTES) as usize];
    file.read_exact_at(&mut text, 0)?;
    let term = std::str::from_utf8(&text).ok();
    term.and_then(|text| text.strip_suffix('\n')?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not hold a term"))
}

/// Notes a term, durably, unless a higher one is known. The directory is there.
///
/// # Errors
///
/// As [`known_term`], and what writing ran into. What was known still is.
pub fn note_term(dir: &Path, term: u64) -> io::Result<()> {
    if known_term(dir)? >= term {
        return Ok(());
    }
    let beside = dir.join(TERM_UNFINISHED);
    let file = File::create(&beside)?;
    file.truncate(0)?;
    file.write_all_at(format!("{term}\n").as_bytes(), 0)?;
    file.sync_data()?;
    file::rename(&beside, &dir.join(TERM_NAME))?;
    file::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(known_term(dir.path()).unwrap(), 0);
        for (noted, known) in [(3, 3), (2, 3), (4, 4)] {
            note_term(dir.path(), noted).unwrap();
            assert_eq!(known_term(dir.path()).unwrap(), known);
        }
    }

    #[test]
    fn what_is_no_term_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "7", "seven\n", "-1\n", "99999999999999999999999\n"] {
            std::fs::write(dir.path().join(TERM_NAME), content).unwrap();
            let error = note_term(dir.path(), 9).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{content:?}");
        }
    }
}
