// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The segments of a chain: their names, their headers, how one comes to be.

use std::ffi::OsStr;
use std::path::Path;

use zerocopy::IntoBytes;

use super::error::StoreError;
use super::format::BLOCK;
use super::format::FEATURES_KNOWN;
use super::format::SEGMENT_HEADER_COPY;
use super::format::SegmentFields;
use super::format::SegmentHeader;
use super::format::VERSION;
use crate::sys::file;
use crate::sys::file::File;

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".ckpt";
const UNFINISHED: &str = ".tmp";
const DIGITS: usize = 10;

/// Name of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")
}

/// What a name in a chain's directory stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Segment of this number.
    Segment(u64),
    /// A segment whose creation was interrupted.
    Unfinished,
    /// The writer's lock, or the page through which a program is asked for commits.
    Beside,
    /// Not part of the chain.
    Stranger,
}

impl Name {
    pub(super) fn parse(name: &OsStr) -> Name {
        let Some(name) = name.to_str() else {
            return Name::Stranger;
        };
        if [super::lock::LOCK_NAME, crate::control::FILE_NAME].contains(&name) {
            return Name::Beside;
        }
        let (name, unfinished) = match name.strip_suffix(UNFINISHED) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let digits = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix(SUFFIX));
        match digits {
            Some(digits)
                if digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                if unfinished {
                    return Name::Unfinished;
                }
                match digits.parse() {
                    Ok(number) if number > 0 => Name::Segment(number),
                    _ => Name::Stranger,
                }
            }
            _ => Name::Stranger,
        }
    }
}

/// The first block of a segment.
pub(super) fn first_block(header: &SegmentHeader) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let bytes = header.as_bytes();
    block[..bytes.len()].copy_from_slice(bytes);
    block[SEGMENT_HEADER_COPY..][..bytes.len()].copy_from_slice(bytes);
    block
}

/// What is in the first block of a segment.
pub(super) struct FirstBlock {
    /// The header or its copy, if one of them is sound.
    pub header: Option<SegmentHeader>,
    /// Offset of the first byte that is not as it was written, if any.
    pub damaged_at: Option<u64>,
}

impl FirstBlock {
    /// Reads a first block; `Err` says what this version does not know.
    pub(super) fn parse(block: &[u8]) -> Result<FirstBlock, String> {
        let parse = |at: usize| block.get(at..).and_then(SegmentHeader::parse);
        let Some(header) = parse(0).or_else(|| parse(SEGMENT_HEADER_COPY)) else {
            return Ok(FirstBlock {
                header: None,
                damaged_at: Some(0),
            });
        };
        if header.version.get() != VERSION {
            return Err(format!(
                "is of version {} of the format",
                header.version.get()
            ));
        }
        let unknown = header.features_incompat.get() & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(format!("uses features {unknown:#x}"));
        }
        let written = first_block(&header);
        let damaged_at = if block == written {
            None
        } else {
            let differs = written.iter().zip(block).position(|(a, b)| a != b);
            Some(differs.unwrap_or(block.len()))
        };
        if !header.is_well_formed() {
            return Ok(FirstBlock {
                header: None,
                damaged_at: Some(0),
            });
        }
        Ok(FirstBlock {
            header: Some(header),
            damaged_at: damaged_at.map(|at| at as u64),
        })
    }
}

/// Makes a segment that is there as a whole or not at all, also after a crash.
pub(super) fn create(dir: &Path, fields: &SegmentFields) -> Result<File, StoreError> {
    let path = dir.join(name(fields.segment));
    let unfinished = dir.join(name(fields.segment) + UNFINISHED);
    let made = write_new(dir, &unfinished, &path, &SegmentHeader::new(fields));
    if made.is_err() {
        // What cannot be removed does no harm: an unfinished segment is removed
        // by the next writer, an empty last one is sound and gets replaced.
        let _ = file::unlink(&unfinished);
        let _ = file::unlink(&path);
    }
    made
}

fn write_new(
    dir: &Path,
    unfinished: &Path,
    path: &Path,
    header: &SegmentHeader,
) -> Result<File, StoreError> {
    let file = File::create(unfinished).map_err(StoreError::io("create", unfinished))?;
    file.truncate(0)
        .map_err(StoreError::io("truncate", unfinished))?;
    file.write_all_at(&first_block(header), 0)
        .map_err(StoreError::io("write", unfinished))?;
    file.sync_data()
        .map_err(StoreError::io("sync", unfinished))?;
    file::rename(unfinished, path).map_err(StoreError::io("rename", unfinished))?;
    file::sync_dir(dir).map_err(StoreError::io("sync", dir))?;
    File::create(path).map_err(StoreError::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_numbers() {
        assert!(name(9) < name(10) && name(10) < name(9_999_999_999));
        assert_eq!(Name::parse(OsStr::new(&name(12))), Name::Segment(12));
    }

    #[test]
    fn only_exact_names_are_segments() {
        for stranger in [
            "segment-1.ckpt",
            "segment-00000000001.ckpt",
            "segment-+000000001.ckpt",
            "segment-0000000000.ckpt",
            "x",
        ] {
            assert_eq!(
                Name::parse(OsStr::new(stranger)),
                Name::Stranger,
                "{stranger}"
            );
        }
        assert_eq!(
            Name::parse(OsStr::new("segment-0000000001.ckpt.tmp")),
            Name::Unfinished
        );
    }

    #[test]
    fn a_wrong_byte_anywhere_in_the_first_block_is_seen_and_the_header_survives() {
        let header = SegmentHeader::new(&SegmentFields {
            features_incompat: 0,
            chain_id: [7; 16],
            segment: 3,
            created_ns: 5,
            prev_len: 8192,
            prev_hash: [9; 32],
        });
        let sound = first_block(&header);
        assert!(FirstBlock::parse(&sound).is_ok_and(|block| block.damaged_at.is_none()));
        for at in 0..sound.len() {
            let mut block = sound.clone();
            block[at] ^= 0x10;
            let block = FirstBlock::parse(&block).unwrap();
            assert_eq!(block.damaged_at, Some(at as u64));
            assert_eq!(block.header, Some(header));
        }
    }
}
