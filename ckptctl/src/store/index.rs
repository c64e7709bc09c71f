// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page index of a record: its runs, encoded, and checked when decoded.

use zerocopy::FromBytes;
use zerocopy::IntoBytes;

use super::codec::Codec;
use super::format::IndexEntry;
use super::format::RUN_MAX_PAGES;
use super::format::RecordHeader;

/// A run of pages in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub pgoff: u64,
    pub pages: u32,
    pub codec: Codec,
    /// From the record's start.
    pub data_off: u64,
    pub stored_len: u32,
    pub crc: u32,
}

impl Run {
    /// The page after its last.
    pub fn end(&self) -> u64 {
        self.pgoff + u64::from(self.pages)
    }

    /// What it is called in a report.
    pub fn name(&self) -> String {
        match self.pages {
            1 => format!("the bytes of page {}", self.pgoff),
            _ => format!("the bytes of pages {} to {}", self.pgoff, self.end() - 1),
        }
    }
}

/// The index section of a record.
pub(super) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut section = Vec::with_capacity(size_of_val(runs));
    for run in runs {
        let entry = IndexEntry {
            pgoff: run.pgoff.into(),
            pages: run.pages.into(),
            codec: run.codec.code().into(),
            data_off: run.data_off.into(),
            stored_len: run.stored_len.into(),
            crc: run.crc.into(),
        };
        section.extend_from_slice(entry.as_bytes());
    }
    section
}

/// Takes an index apart and holds it against its record's header; says what is
/// wrong with it.
pub(super) fn decode(section: &[u8], header: &RecordHeader) -> Result<Vec<Run>, &'static str> {
    let entries =
        <[IndexEntry]>::ref_from_bytes(section).map_err(|_| "the length of its index is odd")?;
    let page_bytes = 1u64 << header.page_shift.get();
    let mut runs = Vec::with_capacity(entries.len());
    let mut next_pgoff = 0;
    let mut next_data = header.layout().data_off();
    let (mut data_pages, mut zero_pages) = (0, 0);
    for entry in entries {
        let run = Run {
            pgoff: entry.pgoff.get(),
            pages: entry.pages.get(),
            codec: Codec::from_code(entry.codec.get()).ok_or("its index has an unknown codec")?,
            data_off: entry.data_off.get(),
            stored_len: entry.stored_len.get(),
            crc: entry.crc.get(),
        };
        let pages = u64::from(run.pages);
        let end = run.pgoff.checked_add(pages);
        if run.pgoff < next_pgoff || end.is_none_or(|end| end > header.arena_len_pages.get()) {
            return Err("the runs in its index overlap or reach beyond the arena");
        }
        next_pgoff = run.end();
        let raw = pages * page_bytes;
        let stored = u64::from(run.stored_len);
        let holds = match run.codec {
            Codec::Zero => {
                zero_pages += pages;
                pages > 0 && run.data_off == 0 && stored == 0 && run.crc == 0
            }
            Codec::None | Codec::Lz4 => {
                let placed = run.data_off == next_data;
                data_pages += pages;
                next_data += stored;
                (1..=RUN_MAX_PAGES).contains(&run.pages)
                    && placed
                    && if run.codec == Codec::None {
                        stored == raw
                    } else {
                        stored < raw
                    }
            }
        };
        if !holds {
            return Err("a run in its index contradicts itself");
        }
        runs.push(run);
    }
    if next_data != header.layout().data_off() + header.data_len.get()
        || data_pages != header.data_pages.get()
        || zero_pages != header.zero_pages.get()
    {
        return Err("its index and its header contradict each other");
    }
    Ok(runs)
}
