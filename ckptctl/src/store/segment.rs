// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The segments of a chain, and the bases that stand for many: their names, their headers,
//! how a segment comes to be.

use std::ffi::OsStr;
use std::path::Path;

use zerocopy::IntoBytes;

use super::error::StoreError;
use super::format::BLOCK;
use super::format::BaseHeader;
use super::format::FEATURES_KNOWN;
use super::format::SEGMENT_HEADER_COPY;
use super::format::SegmentFields;
use super::format::SegmentHeader;
use super::format::VERSION;
use crate::sys::file;
use crate::sys::file::File;
use crate::sys::lease_page;

const PREFIX: &str = "segment-";
const BASE_PREFIX: &str = "base-";
const SUFFIX: &str = ".ckpt";
pub(super) const UNFINISHED: &str = ".tmp";
const DIGITS: usize = 10;

/// Name of the file with the highest term that is known.
pub const TERM_NAME: &str = "TERM";
/// Name of that file while it is made.
pub const TERM_UNFINISHED: &str = "TERM.tmp";
/// Name of the page by which a program knows that its host is the primary, while it is made.
const LEASE_UNFINISHED: &str = "LEASE.new";
/// Name of the socket at which a spare is told to take over.
pub const SPARE_NAME: &str = "SPARE";

/// Name of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")
}

/// Name of the base that stands for the segments up to `number`.
pub(super) fn base_name(number: u64) -> String {
    format!("{BASE_PREFIX}{number:0DIGITS$}{SUFFIX}")
}

/// What a name in a chain's directory stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Segment of this number.
    Segment(u64),
    /// A segment whose creation was interrupted.
    Unfinished,
    /// The base that stands for the segments up to this number.
    Base(u64),
    /// A base that is being made, or whose making was interrupted.
    UnfinishedBase,
    /// What stands beside a chain: locks, the page through which a program is asked for commits,
    /// the term, the socket of a spare.
    Beside,
    /// Not part of the chain.
    Stranger,
}

impl Name {
    pub(super) fn parse(name: &OsStr) -> Name {
        let Some(name) = name.to_str() else {
            return Name::Stranger;
        };
        let beside = [
            super::lock::LOCK_NAME,
            super::lock::COMPACT_NAME,
            crate::control::FILE_NAME,
            TERM_NAME,
            TERM_UNFINISHED,
            SPARE_NAME,
            lease_page::FILE_NAME,
            LEASE_UNFINISHED,
        ];
        if beside.contains(&name) {
            return Name::Beside;
        }
        let (name, unfinished) = match name.strip_suffix(UNFINISHED) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (prefix, base) = match name.starts_with(BASE_PREFIX) {
            true => (BASE_PREFIX, true),
            false => (PREFIX, false),
        };
        let number = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(SUFFIX))
            .filter(|digits| digits.len() == DIGITS)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        match (number, unfinished, base) {
            (Some(_), true, true) => Name::UnfinishedBase,
            (Some(_), true, false) => Name::Unfinished,
            (Some(number @ 1..), false, true) => Name::Base(number),
            (Some(number @ 1..), false, false) => Name::Segment(number),
            _ => Name::Stranger,
        }
    }
}

/// The first block of a segment, or of a base.
pub(super) fn first_block(header: &SegmentHeader, base: Option<&BaseHeader>) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    for at in [0, SEGMENT_HEADER_COPY] {
        let bytes = header.as_bytes();
        block[at..][..bytes.len()].copy_from_slice(bytes);
        if let Some(base) = base {
            block[at + bytes.len()..][..size_of::<BaseHeader>()].copy_from_slice(base.as_bytes());
        }
    }
    block
}

/// What is in the first block of a segment or a base.
pub(super) struct FirstBlock {
    /// The header or its copy, if one of them is sound.
    pub header: Option<SegmentHeader>,
    /// Of a base, what it stands for. A base has a header only when it has this.
    pub base: Option<BaseHeader>,
    /// Offset of the first byte that is not as it was written, if any.
    pub damaged_at: Option<u64>,
}

impl FirstBlock {
    const LOST: FirstBlock = FirstBlock {
        header: None,
        base: None,
        damaged_at: Some(0),
    };

    /// Reads a first block; `Err` says what this version does not know.
    pub(super) fn parse(block: &[u8]) -> Result<FirstBlock, String> {
        let part = |at: usize| block.get(at..).unwrap_or_default();
        let parse = |at: usize| SegmentHeader::parse(part(at));
        let Some(header) = parse(0).or_else(|| parse(SEGMENT_HEADER_COPY)) else {
            return Ok(FirstBlock::LOST);
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
        let behind = size_of::<SegmentHeader>();
        let parse = |at: usize| BaseHeader::parse(part(at + behind));
        let base = Some(header)
            .filter(SegmentHeader::is_base)
            .and_then(|_| parse(0).or_else(|| parse(SEGMENT_HEADER_COPY)));
        let sound = header.is_well_formed()
            && header.is_base() == base.is_some()
            && base.is_none_or(|base| {
                let begins = header.prev_len.get() == 0 && header.prev_hash == [0; 32];
                base.is_well_formed() && begins
            });
        if !sound {
            return Ok(FirstBlock::LOST);
        }
        let written = first_block(&header, base.as_ref());
        let damaged_at = if block == written {
            None
        } else {
            let differs = written.iter().zip(block).position(|(a, b)| a != b);
            Some(differs.unwrap_or(block.len()))
        };
        Ok(FirstBlock {
            header: Some(header),
            base,
            damaged_at: damaged_at.map(|at| at as u64),
        })
    }
}

/// Makes a segment that is there as a whole or not at all, also after a crash. Its name is not on
/// the disk before the directory was synced, so nothing may be appended before that.
///
/// Once it has its name it stays: somebody may have seen it, and a name that is taken away can
/// come back when the power fails, behind a segment that has grown meanwhile.
pub(super) fn create(dir: &Path, fields: &SegmentFields) -> Result<File, StoreError> {
    let path = dir.join(name(fields.segment));
    let unfinished = dir.join(name(fields.segment) + UNFINISHED);
    let made = write_new(&unfinished, &path, &SegmentHeader::new(fields));
    if made.is_err() {
        // What cannot be removed does no harm: the next writer removes it.
        let _ = file::unlink(&unfinished);
    }
    Ok(made?.renamed(path))
}

fn write_new(unfinished: &Path, path: &Path, header: &SegmentHeader) -> Result<File, StoreError> {
    let file = File::create(unfinished).map_err(StoreError::io("create", unfinished))?;
    file.truncate(0)
        .map_err(StoreError::io("truncate", unfinished))?;
    file.write_all_at(&first_block(header, None), 0)
        .map_err(StoreError::io("write", unfinished))?;
    file.sync_data()
        .map_err(StoreError::io("sync", unfinished))?;
    file::rename(unfinished, path).map_err(StoreError::io("rename", unfinished))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::BaseFields;
    use crate::store::format::FEATURE_BASE;

    #[test]
    fn names_sort_like_numbers() {
        assert!(name(9) < name(10) && name(10) < name(9_999_999_999));
        assert_eq!(Name::parse(OsStr::new(&name(12))), Name::Segment(12));
    }

    #[test]
    fn what_replication_puts_beside_a_chain_is_no_stranger() {
        for beside in ["TERM", "TERM.tmp", "SPARE", "LEASE", "LEASE.new"] {
            assert_eq!(Name::parse(OsStr::new(beside)), Name::Beside, "{beside}");
        }
    }

    #[test]
    fn only_exact_names_are_segments() {
        for stranger in [
            "segment-1.ckpt",
            "segment-00000000001.ckpt",
            "segment-+000000001.ckpt",
            "segment-0000000000.ckpt",
            "base-0000000000.ckpt",
            "base-1.ckpt.tmp",
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
        assert_eq!(
            Name::parse(OsStr::new("base-0000000001.ckpt.tmp")),
            Name::UnfinishedBase
        );
        assert_eq!(
            Name::parse(OsStr::new(&base_name(12))),
            Name::Base(12),
            "a base is no segment"
        );
    }

    #[test]
    fn a_wrong_byte_anywhere_in_the_first_block_is_seen_and_the_header_survives() {
        let base = BaseHeader::new(&BaseFields {
            last_segment: 3,
            last_len: 9,
            last_hash: [1; 32],
            newest: 7,
            own_len: 8192,
            records_hash: [2; 32],
        });
        for base in [None, Some(base)] {
            let header = SegmentHeader::new(&SegmentFields {
                features_incompat: if base.is_some() { FEATURE_BASE } else { 0 },
                chain_id: [7; 16],
                segment: 3,
                created_ns: 5,
                prev_len: if base.is_some() { 0 } else { 8192 },
                prev_hash: [if base.is_some() { 0 } else { 9 }; 32],
            });
            let sound = first_block(&header, base.as_ref());
            assert!(FirstBlock::parse(&sound).is_ok_and(|block| block.damaged_at.is_none()));
            for at in 0..sound.len() {
                let mut block = sound.clone();
                block[at] ^= 0x10;
                let block = FirstBlock::parse(&block).unwrap();
                assert_eq!(block.damaged_at, Some(at as u64));
                assert_eq!((block.header, block.base), (Some(header), base));
            }
        }
    }
}
