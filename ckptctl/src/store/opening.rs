// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a writer does to a directory before it writes: it makes what is not there, and removes
//! what interrupted work left.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::error::StoreError;
use super::format::BLOCK;
use super::format::SegmentFields;
use super::lock::CompactLock;
use super::scan::Scan;
use super::segment;
use super::segment::Name;
use super::segment_file::FileKind;
use super::segment_file::Held;
use super::segment_file::SegmentFile;
use super::writer::now_ns;
use crate::sys::file;

/// Makes the directory, or makes sure that it is one for a chain; its name is on the disk then.
pub(super) fn prepare_dir(dir: &Path) -> Result<(), StoreError> {
    let made = file::make_dir(dir).map_err(StoreError::io("create", dir))?;
    if !made {
        refuse_strangers(dir)?;
    }
    // Whoever made it may not have come to that, and without its name all that is in it is lost.
    let parent = dir.join("..");
    match file::sync_dir(&parent) {
        Err(error) if !made && cannot_be_synced(&error) => Ok(()),
        synced => synced.map_err(StoreError::io("sync", &parent)),
    }
}

/// Whether that says that we can do nothing about a directory's names: it may not be read, its
/// file system knows of no syncing, as that of an automounter, or is read-only.
fn cannot_be_synced(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Makes sure that there is a chain in a directory, or nothing that is not of one.
fn refuse_strangers(dir: &Path) -> Result<(), StoreError> {
    let names = file::list_dir(dir).map_err(StoreError::io("read", dir))?;
    let mut stranger = None;
    for name in names {
        match Name::parse(&name) {
            Name::Segment(_) | Name::Base(_) => return Ok(()),
            Name::Stranger => stranger = Some(name),
            Name::Unfinished | Name::UnfinishedBase | Name::Beside => {}
        }
    }
    match stranger {
        Some(name) => Err(StoreError::NotEmpty {
            dir: dir.to_owned(),
            name: name.into(),
        }),
        None => Ok(()),
    }
}

/// Removes what a compaction left that was killed. The directory was synced, so the base that
/// stands for what is removed has its name for good.
pub(super) fn remove_leftovers(
    dir: &Path,
    scan: &mut Scan,
    removed: &mut Vec<PathBuf>,
) -> Result<(), StoreError> {
    for path in std::mem::take(&mut scan.superseded) {
        remove(&path)?;
        removed.push(path);
    }
    if scan.unfinished_bases.is_empty() {
        return Ok(());
    }
    let _lock = match CompactLock::take(dir) {
        // Somebody is making it.
        Err(StoreError::Compacting { .. }) => return Ok(()),
        lock => lock?,
    };
    for path in std::mem::take(&mut scan.unfinished_bases) {
        remove(&path)?;
        removed.push(path);
    }
    Ok(())
}

/// Removes a file, unless somebody else did.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match file::unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::io("remove", path)),
    }
}

/// Makes the first segment. Its name is not on the disk yet.
pub(super) fn begin(dir: &Path, scan: &mut Scan, features: u64) -> Result<(), StoreError> {
    getrandom::fill(&mut scan.chain_id)
        .map_err(|error| StoreError::io("get random bytes for", dir)(error.into()))?;
    let fields = SegmentFields {
        features_incompat: features,
        chain_id: scan.chain_id,
        segment: 1,
        created_ns: now_ns(),
        prev_len: 0,
        prev_hash: [0; 32],
    };
    let file = segment::create(dir, &fields)?;
    let path = file.path().to_owned();
    scan.segments.push(SegmentFile {
        number: 1,
        path,
        len: BLOCK,
        features,
        kind: FileKind::Segment,
        held: Held::default(),
    });
    scan.end = Some(BLOCK);
    Ok(())
}
