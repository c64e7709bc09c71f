// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The fixed layouts of the chain on disk: segment header, record header, index
//! entry, footer. `docs/format.md` is their specification, also of every field.

use zerocopy::FromBytes;
use zerocopy::FromZeros;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// Unit of alignment of records, whatever the page size.
pub const BLOCK: u64 = 4096;
/// Version of the format that this code writes and reads.
pub const VERSION: u32 = 1;
/// Bit of `features_incompat`: runs are compressed with zstd.
pub const FEATURE_ZSTD: u64 = 1 << 0;
/// Bit of `features_incompat`: pages that are the same are stored once.
pub const FEATURE_SHARED: u64 = 1 << 1;
/// Bit of `features_incompat`: the file is a base, see [`BaseHeader`].
pub const FEATURE_BASE: u64 = 1 << 2;
/// Bit of `features_incompat`: there are records of rollbacks.
pub const FEATURE_ROLLBACK: u64 = 1 << 3;
/// The incompatible features that this code knows.
pub const FEATURES_KNOWN: u64 = FEATURE_ZSTD | FEATURE_SHARED | FEATURE_BASE | FEATURE_ROLLBACK;
/// Most pages in a run with data, and in one that refers to other pages.
pub const RUN_MAX_PAGES: u32 = 64;
/// Most bytes in a meta section.
pub const META_MAX_BYTES: u64 = 1 << 20;
/// What records that come from another chain may use.
pub const FEATURES_OF_RECORDS: u64 = FEATURE_ZSTD | FEATURE_SHARED | FEATURE_ROLLBACK;
/// Largest arena that a record can describe, in pages.
pub const ARENA_MAX_PAGES: u64 = 1 << 40;
/// Largest epoch.
pub const EPOCH_MAX: u64 = i64::MAX as u64;
/// Page sizes that a record can describe, as log2.
pub const PAGE_SHIFTS: std::ops::RangeInclusive<u32> = 12..=16;
/// Where the second copy of the segment header stands.
pub const SEGMENT_HEADER_COPY: usize = 2048;

/// Flag of a record: it was made by compaction.
const FLAG_COMPACTED: u32 = 1 << 0;

/// Bytes of a record header and of a footer.
pub const HEADER_BYTES: u64 = size_of::<RecordHeader>() as u64;
/// See [`HEADER_BYTES`].
pub const FOOTER_BYTES: u64 = size_of::<Footer>() as u64;

const SEGMENT_MAGIC: [u8; 8] = *b"CKPTSEG\n";
const BASE_MAGIC: [u8; 8] = *b"CKPTBASE";
const RECORD_MAGIC: [u8; 8] = *b"CKPTREC\n";
const FOOTER_MAGIC: [u8; 8] = *b"CKPTEND\n";

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A commit of the program.
    Commit,
    /// The program was started from the parent epoch.
    Restore,
    /// The program went back to the parent epoch while it ran.
    Rollback,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Kind::Commit => 1,
            Kind::Restore => 2,
            Kind::Rollback => 3,
        }
    }

    fn from_code(code: u32) -> Option<Kind> {
        match code {
            1 => Some(Kind::Commit),
            2 => Some(Kind::Restore),
            3 => Some(Kind::Rollback),
            _ => None,
        }
    }

    /// The word for people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Commit => "COMMIT",
            Kind::Restore => "RESTORE",
            Kind::Rollback => "ROLLBACK",
        }
    }
}

/// A layout that ends with the crc32c of all bytes before.
trait Sealed: IntoBytes + Immutable {
    fn expected_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32c::crc32c(&bytes[..bytes.len() - 4])
    }
}

/// The first block of a segment begins with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SegmentHeader {
    magic: [u8; 8],
    pub version: U32,
    header_len: U32,
    pub features_incompat: U64,
    pub features_ro_compat: U64,
    pub features_compat: U64,
    pub chain_id: [u8; 16],
    pub segment: U64,
    pub created_ns: U64,
    pub prev_len: U64,
    pub prev_hash: [u8; 32],
    reserved: [u8; 12],
    crc: U32,
}

impl Sealed for SegmentHeader {}

/// What a segment header has to say besides the constants.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    pub features_incompat: u64,
    pub chain_id: [u8; 16],
    pub segment: u64,
    pub created_ns: u64,
    pub prev_len: u64,
    pub prev_hash: [u8; 32],
}

impl SegmentHeader {
    /// A sealed header of this version.
    pub fn new(fields: &SegmentFields) -> SegmentHeader {
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            version: VERSION.into(),
            header_len: (BLOCK as u32).into(),
            features_incompat: fields.features_incompat.into(),
            features_ro_compat: 0.into(),
            features_compat: 0.into(),
            chain_id: fields.chain_id,
            segment: fields.segment.into(),
            created_ns: fields.created_ns.into(),
            prev_len: fields.prev_len.into(),
            prev_hash: fields.prev_hash,
            reserved: [0; 12],
            crc: 0.into(),
        };
        header.crc = header.expected_crc().into();
        header
    }

    /// The header at the start of `bytes` if its magic and checksum are right;
    /// of whatever version.
    pub fn parse(bytes: &[u8]) -> Option<SegmentHeader> {
        let (header, _) = SegmentHeader::read_from_prefix(bytes).ok()?;
        (header.magic == SEGMENT_MAGIC && header.crc.get() == header.expected_crc())
            .then_some(header)
    }

    /// True when the fields that version 1 leaves no choice about are as it says.
    pub fn is_well_formed(&self) -> bool {
        u64::from(self.header_len.get()) == BLOCK && self.reserved == [0; 12]
    }

    /// True when it begins a base.
    pub fn is_base(&self) -> bool {
        self.features_incompat.get() & FEATURE_BASE != 0
    }
}

/// What a base says besides its segment header, right behind that: the segments it
/// stands for, and how it ends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BaseHeader {
    magic: [u8; 8],
    pub first_segment: U64,
    pub last_segment: U64,
    pub last_len: U64,
    pub last_hash: [u8; 32],
    pub newest: U64,
    pub own_len: U64,
    pub records_hash: [u8; 32],
    reserved: [u8; 12],
    crc: U32,
}

impl Sealed for BaseHeader {}

/// What the header of a base has to say besides the constants.
#[derive(Clone, Copy, Debug)]
pub struct BaseFields {
    pub last_segment: u64,
    pub last_len: u64,
    pub last_hash: [u8; 32],
    pub newest: u64,
    pub own_len: u64,
    pub records_hash: [u8; 32],
}

impl BaseHeader {
    /// A sealed header.
    pub fn new(fields: &BaseFields) -> BaseHeader {
        let mut header = BaseHeader {
            magic: BASE_MAGIC,
            first_segment: 1.into(),
            last_segment: fields.last_segment.into(),
            last_len: fields.last_len.into(),
            last_hash: fields.last_hash,
            newest: fields.newest.into(),
            own_len: fields.own_len.into(),
            records_hash: fields.records_hash,
            reserved: [0; 12],
            crc: 0.into(),
        };
        header.crc = header.expected_crc().into();
        header
    }

    /// The header at the start of `bytes` if its magic and checksum are right.
    pub fn parse(bytes: &[u8]) -> Option<BaseHeader> {
        let (header, _) = BaseHeader::read_from_prefix(bytes).ok()?;
        (header.magic == BASE_MAGIC && header.crc.get() == header.expected_crc()).then_some(header)
    }

    /// True when the fields that leave no choice are as they must be.
    pub fn is_well_formed(&self) -> bool {
        self.first_segment.get() == 1
            && self.last_segment.get() >= 1
            && self.reserved == [0; 12]
            && self.newest.get() <= EPOCH_MAX
    }
}

/// A record begins with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RecordHeader {
    magic: [u8; 8],
    header_len: U32,
    kind: U32,
    pub total_len: U64,
    pub epoch: U64,
    pub parent: U64,
    pub chain_id: [u8; 16],
    pub segment: U64,
    pub offset: U64,
    pub generation: [u8; 16],
    pub time_ns: U64,
    pub pause_ns: U64,
    pub arena_base: U64,
    pub arena_len_pages: U64,
    pub page_shift: U32,
    flags: U32,
    pub meta_len: U64,
    pub data_len: U64,
    pub index_off: U64,
    pub index_len: U64,
    pub data_pages: U64,
    pub zero_pages: U64,
    pub meta_crc: U32,
    pub index_crc: U32,
    stands_for: [u8; 32],
    pub shared_pages: U64,
    pub unchanged_pages: U64,
    reserved: [u8; 20],
    crc: U32,
}

impl Sealed for RecordHeader {}

/// Where the sections of a record lie, from its start.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub meta_len: u64,
    pub data_len: u64,
    pub index_len: u64,
}

impl Layout {
    pub fn data_off(&self) -> u64 {
        // A header that was not examined yet may say anything.
        HEADER_BYTES.saturating_add(self.meta_len)
    }

    pub fn index_off(&self) -> Option<u64> {
        self.data_off()
            .checked_add(self.data_len)?
            .checked_next_multiple_of(8)
    }

    pub fn total_len(&self) -> Option<u64> {
        self.index_off()?
            .checked_add(self.index_len)?
            .checked_add(FOOTER_BYTES)?
            .checked_next_multiple_of(BLOCK)
    }
}

impl RecordHeader {
    /// An empty header of a kind, to be filled in and sealed.
    pub fn new(kind: Kind) -> RecordHeader {
        let mut header = RecordHeader::new_zeroed();
        header.magic = RECORD_MAGIC;
        header.header_len = (HEADER_BYTES as u32).into();
        header.kind = kind.code().into();
        header
    }

    /// Marks it as made by compaction, in place of the record with this hash.
    pub fn stand_for(&mut self, hash: [u8; 32]) {
        self.flags = FLAG_COMPACTED.into();
        self.stands_for = hash;
    }

    /// The hash of the record that it stands for, if it was made by compaction.
    pub fn stands_for(&self) -> Option<[u8; 32]> {
        (self.flags.get() & FLAG_COMPACTED != 0).then_some(self.stands_for)
    }

    /// The header of the same record at another place, of another chain perhaps, where it stands
    /// for itself.
    pub fn moved(&self, chain_id: [u8; 16], segment: u64, offset: u64) -> RecordHeader {
        let mut header = *self;
        header.chain_id = chain_id;
        header.segment = segment.into();
        header.offset = offset.into();
        header.flags = 0.into();
        header.stands_for = [0; 32];
        header.seal();
        header
    }

    /// Sets the checksum, last of all.
    pub fn seal(&mut self) {
        self.crc = self.expected_crc().into();
    }

    /// The header at the start of `bytes` if its magic and checksum are right.
    pub fn parse(bytes: &[u8]) -> Option<RecordHeader> {
        let (header, _) = RecordHeader::read_from_prefix(bytes).ok()?;
        (header.magic == RECORD_MAGIC && header.crc.get() == header.expected_crc())
            .then_some(header)
    }

    /// What is wrong with it although its checksum is right; `None` if nothing.
    pub fn fault(&self) -> Option<&'static str> {
        let layout = self.layout();
        let counts = [self.data_pages, self.zero_pages, self.shared_pages];
        let pages = counts
            .iter()
            .try_fold(0u64, |sum, count| sum.checked_add(count.get()));
        let checks = [
            (self.kind().is_some(), "its kind is unknown"),
            (
                u64::from(self.header_len.get()) == HEADER_BYTES,
                "its header length is not 256",
            ),
            (
                self.flags.get() & !FLAG_COMPACTED == 0,
                "it has unknown flags",
            ),
            (
                self.reserved == [0; 20]
                    && (self.stands_for().is_some() || self.stands_for == [0; 32]),
                "its reserved bytes are not zero",
            ),
            (
                (1..=EPOCH_MAX).contains(&self.epoch.get()),
                "its epoch is out of range",
            ),
            (
                self.parent.get() < self.epoch.get(),
                "its parent is not an earlier epoch",
            ),
            (
                PAGE_SHIFTS.contains(&self.page_shift.get()),
                "its page size is out of range",
            ),
            (
                self.arena_len_pages.get() <= ARENA_MAX_PAGES,
                "its arena is too large",
            ),
            (
                self.meta_len.get() <= META_MAX_BYTES && self.meta_len.get() % 8 == 0,
                "the length of its meta section is out of range",
            ),
            (
                self.index_len.get() % size_of::<IndexEntry>() as u64 == 0,
                "the length of its index is odd",
            ),
            (
                layout.index_off() == Some(self.index_off.get())
                    && layout.total_len() == Some(self.total_len.get()),
                "its lengths contradict each other",
            ),
            (
                pages.is_some_and(|pages| pages <= self.arena_len_pages.get()),
                "it has more pages than its arena",
            ),
            (
                self.unchanged_pages.get() <= self.arena_len_pages.get(),
                "it left out more pages than its arena has",
            ),
        ];
        checks
            .iter()
            .find(|(holds, _)| !holds)
            .map(|(_, fault)| *fault)
    }

    /// The kind, if known.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.kind.get())
    }

    pub fn layout(&self) -> Layout {
        Layout {
            meta_len: self.meta_len.get(),
            data_len: self.data_len.get(),
            index_len: self.index_len.get(),
        }
    }
}

/// One run of pages in a record's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IndexEntry {
    pub pgoff: U64,
    pub pages: U32,
    pub codec: U32,
    pub data_off: U64,
    pub stored_len: U32,
    pub crc: U32,
}

/// A record ends with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Footer {
    magic: [u8; 8],
    pub total_len: U64,
    pub epoch: U64,
    pub segment: U64,
    pub offset: U64,
    pub chain_id: [u8; 16],
    pub parent_hash: [u8; 32],
    pub body_hash: [u8; 32],
    pub hash: [u8; 32],
    reserved: [u8; 100],
    crc: U32,
}

impl Sealed for Footer {}

impl Footer {
    /// The sealed footer of the record that `header` begins.
    pub fn new(header: &RecordHeader, parent_hash: [u8; 32], body_hash: [u8; 32]) -> Footer {
        let mut footer = Footer {
            magic: FOOTER_MAGIC,
            total_len: header.total_len,
            epoch: header.epoch,
            segment: header.segment,
            offset: header.offset,
            chain_id: header.chain_id,
            parent_hash,
            body_hash,
            hash: record_hash(&parent_hash, header, &body_hash),
            reserved: [0; 100],
            crc: 0.into(),
        };
        footer.crc = footer.expected_crc().into();
        footer
    }

    /// The footer at the start of `bytes` if its magic and checksum are right.
    pub fn parse(bytes: &[u8]) -> Option<Footer> {
        let (footer, _) = Footer::read_from_prefix(bytes).ok()?;
        (footer.magic == FOOTER_MAGIC && footer.crc.get() == footer.expected_crc())
            .then_some(footer)
    }

    /// True when it ends the record that `header` begins, and says so in every field.
    pub fn ends(&self, header: &RecordHeader) -> bool {
        *self == Footer::new(header, self.parent_hash, self.body_hash)
    }
}

/// The hash that chains a record to its parent.
fn record_hash(parent_hash: &[u8; 32], header: &RecordHeader, body_hash: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent_hash);
    hasher.update(header.as_bytes());
    hasher.update(body_hash);
    *hasher.finalize().as_bytes()
}
