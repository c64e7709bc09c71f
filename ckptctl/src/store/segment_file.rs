// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a chain that hold records, as a reader found them.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::StoreError;
use super::format::BaseHeader;
use crate::sys::file::File;

/// A segment, or a base, which has the number of the last segment it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SegmentFile {
    pub number: u64,
    pub path: PathBuf,
    pub len: u64,
    /// `features_incompat` of its header, 0 when that is lost.
    pub features: u64,
    pub kind: FileKind,
    pub held: Held,
}

/// What kind of file holds records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FileKind {
    Segment,
    /// What it says about itself, if that can be read.
    Base(Option<BaseHeader>),
}

/// A file that is kept open, because compaction may remove its name. Not part of what was
/// found.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Option<Arc<File>>);

impl Held {
    pub fn hold(&mut self, file: File) {
        self.0 = Some(Arc::new(file));
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Held) -> bool {
        true
    }
}

/// Files of a chain that are kept open; far fewer than a process may have. Those that
/// compaction removes come first.
pub(super) const HELD_MAX: usize = 256;

impl SegmentFile {
    pub(super) fn open(&self) -> Result<Arc<File>, StoreError> {
        match &self.held.0 {
            Some(file) => Ok(Arc::clone(file)),
            None => {
                let file = File::open(&self.path).map_err(StoreError::io("open", &self.path))?;
                Ok(Arc::new(file))
            }
        }
    }

    pub(super) fn is_base(&self) -> bool {
        matches!(self.kind, FileKind::Base(_))
    }

    /// What a base says about itself, if it is one and that can be read.
    pub(super) fn base(&self) -> Option<&BaseHeader> {
        match &self.kind {
            FileKind::Base(base) => base.as_ref(),
            FileKind::Segment => None,
        }
    }
}
