// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks at a chain until what is seen holds still.

use std::io;
use std::path::Path;

use super::error::StoreError;
use super::scan::Scan;

/// How often a chain is looked at that changes under our eyes.
const LOOKS: usize = 8;

/// What is in a chain's directory. A writer may append, and a compactor replace files by a base,
/// at the same time.
pub(super) fn look(dir: &Path) -> Result<Scan, StoreError> {
    let mut last_look: Option<Scan> = None;
    for look in 0..LOOKS {
        let scan = match Scan::of(dir) {
            // Between two of our calls, a writer cut the file, or a compactor removed it: then
            // the directory tells what is in its place.
            Err(StoreError::Io { source, path, .. })
                if look + 1 < LOOKS
                    && (source.kind() == io::ErrorKind::UnexpectedEof
                        || source.kind() == io::ErrorKind::NotFound && path != dir) =>
            {
                continue;
            }
            scan => scan?,
        };
        // What is wrong may be half of what a writer is writing, or a directory read while its
        // files were replaced.
        let settled = scan.damage.is_empty() || last_look.as_ref() == Some(&scan);
        last_look = Some(scan);
        if settled {
            break;
        }
    }
    // The last look is an error or a result.
    Ok(last_look.unwrap_or_default())
}
