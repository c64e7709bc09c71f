// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page index of a record: its runs, encoded, and checked when decoded.

use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::IntoBytes;

use super::codec::Codec;
use super::format::ARENA_MAX_PAGES;
use super::format::IndexEntry;
use super::format::RUN_MAX_PAGES;
use super::format::RecordHeader;

/// A run of pages in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub pgoff: u64,
    pub pages: u32,
    pub codec: Codec,
    /// Of data from the record's start, of a reference the page it refers to.
    pub data_off: u64,
    pub stored_len: u32,
    pub crc: u32,
}

impl Run {
    /// The page after its last.
    pub fn end(&self) -> u64 {
        self.pgoff + u64::from(self.pages)
    }

    /// The pages that a reference refers to.
    pub fn referred(&self) -> Range<u64> {
        self.data_off..self.data_off + u64::from(self.pages)
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
    let (mut data_pages, mut zero_pages, mut shared_pages) = (0, 0, 0);
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
            Codec::Parent | Codec::Here => {
                shared_pages += pages;
                (1..=RUN_MAX_PAGES).contains(&run.pages)
                    && run.data_off <= ARENA_MAX_PAGES
                    && (run.codec == Codec::Here || header.parent.get() != 0)
                    && stored == 0
                    && run.crc == 0
            }
            Codec::None | Codec::Lz4 | Codec::Zstd => {
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
        || shared_pages != header.shared_pages.get()
    {
        return Err("its index and its header contradict each other");
    }
    if !runs_refer_to_data(&runs) {
        return Err("its index refers to pages that are not stored there");
    }
    Ok(runs)
}

/// Whether every page that a record's own pages are to be like is stored in it.
fn runs_refer_to_data(runs: &[Run]) -> bool {
    let mut here = runs.iter().filter(|run| run.codec == Codec::Here);
    here.all(|reference| {
        let Range { mut start, end } = reference.referred();
        let first = runs.partition_point(|run| run.end() <= start);
        for run in &runs[first..] {
            if start >= end || run.pgoff > start || !run.codec.has_data() {
                break;
            }
            start = run.end();
        }
        start >= end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    const META_BYTES: u64 = 64;

    /// A sound index with runs of all kinds, and the header that goes with it.
    fn sound() -> (Vec<Run>, RecordHeader) {
        let run = |pgoff, pages, codec, data_off, stored_len, crc| Run {
            pgoff,
            pages,
            codec,
            data_off,
            stored_len,
            crc,
        };
        let data = 256 + META_BYTES;
        let runs = vec![
            run(0, 1, Codec::None, data, 4096, 7),
            run(1, 64, Codec::Lz4, data + 4096, 100, 8),
            run(65, 1000, Codec::Zero, 0, 0, 0),
            run(2000, 3, Codec::Lz4, data + 4196, 12287, 9),
        ];
        let mut header = RecordHeader::new(Kind::Commit);
        header.page_shift = 12.into();
        header.arena_len_pages = 2003.into();
        header.meta_len = META_BYTES.into();
        header.data_len = (4096 + 100 + 12287).into();
        header.data_pages = 68.into();
        header.zero_pages = 1000.into();
        (runs, header)
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let (runs, header) = sound();
        assert_eq!(decode(&encode(&runs), &header), Ok(runs));
    }

    #[test]
    fn a_run_that_breaks_a_rule_is_refused() {
        type Spoil = fn(&mut Vec<Run>, &mut RecordHeader);
        let rules: [(&str, Spoil); 14] = [
            ("overlap", |runs, _| runs[1].pgoff = 0),
            ("order", |runs, _| runs.swap(0, 2)),
            ("beyond the arena", |_, header| {
                header.arena_len_pages = 2002.into()
            }),
            ("overflow", |runs, _| runs[3].pgoff = u64::MAX - 1),
            ("no pages", |runs, _| runs[0].pages = 0),
            ("too many pages", |runs, _| runs[1].pages = 65),
            ("raw length", |runs, _| runs[0].stored_len = 4095),
            ("lz4 that grows", |runs, header| {
                runs[3].stored_len = 12288;
                header.data_len = (4096 + 100 + 12288).into();
            }),
            ("gap in the data", |runs, _| runs[3].data_off += 8),
            ("zeros with data", |runs, _| runs[2].stored_len = 1),
            ("zeros with a checksum", |runs, _| runs[2].crc = 1),
            ("data length", |_, header| {
                header.data_len = (4096 + 100 + 12286).into()
            }),
            ("pages with data", |_, header| header.data_pages = 69.into()),
            ("zero pages", |_, header| header.zero_pages = 999.into()),
        ];
        for (name, spoil) in rules {
            let (mut runs, mut header) = sound();
            spoil(&mut runs, &mut header);
            assert!(decode(&encode(&runs), &header).is_err(), "{name}");
        }
        let (runs, header) = sound();
        let mut section = encode(&runs);
        section[12] = 6;
        assert!(decode(&section, &header).is_err(), "codec");
        assert!(decode(&section[..33], &header).is_err(), "length");
    }
}
