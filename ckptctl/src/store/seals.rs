// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Holds files against what is known of how they end: from the next segment, or, of a base,
//! from itself.

use super::format::BLOCK;
use super::format::BaseHeader;
use super::record::Record;
use super::scan::Scan;
use super::segment_file::FileKind;
use super::segment_file::SegmentFile;

impl Scan {
    /// Holds a finished segment against what the next one says about it; false when
    /// they differ.
    pub(super) fn check_seal(&mut self, i: usize, prev_len: u64, prev_hash: &[u8; 32]) -> bool {
        let SegmentFile {
            path, len, kind, ..
        } = self.segments[i].clone();
        if let FileKind::Base(base) = kind {
            let Some(base) = base else { return false };
            let follows = base.last_len == prev_len && base.last_hash == *prev_hash;
            if !follows {
                let what = "it stands for other segments than those that the next one follows";
                self.add_damage(&path, 0, what.into(), vec![]);
            }
            follows
        } else if len != prev_len {
            let what = format!("it has {len} bytes, and had {prev_len} when it was finished");
            self.add_damage(&path, len.min(prev_len), what, vec![]);
            false
        } else if self.last_hash != *prev_hash {
            let what = "it does not end with the record with which it was finished".into();
            self.add_damage(&path, len, what, vec![]);
            false
        } else {
            true
        }
    }

    /// Holds a base against what it says about itself; `sound`: nothing in it is wrong as
    /// far as is known.
    pub(super) fn check_base(
        &mut self,
        i: usize,
        base: &BaseHeader,
        first_record: usize,
        sound: bool,
    ) {
        let SegmentFile { path, len, .. } = self.segments[i].clone();
        let own_len = base.own_len.get();
        self.newest = self.newest.max(base.newest.get());
        self.last_hash = base.last_hash;
        if len != own_len {
            let what = format!("it has {len} bytes, and had {own_len} when it was made");
            self.add_damage(&path, len.min(own_len), what, vec![]);
            self.end = None;
        } else if sound && records_hash(&self.records[first_record..]) != base.records_hash {
            let what = "its records are not those with which it was made".into();
            self.add_damage(&path, BLOCK, what, vec![]);
            self.end = None;
        }
    }
}

/// What a base says about all its records.
pub(super) fn records_hash(records: &[Record]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for record in records {
        hasher.update(&record.own_hash);
    }
    *hasher.finalize().as_bytes()
}
