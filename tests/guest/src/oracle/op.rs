// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operations.

use std::fmt;

use super::backend::GatherCall;
use crate::device::PAGE;
use crate::rng::Rng;

/// How bytes get into an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    /// One store instruction of 1, 2, 4 or 8 bytes, at any alignment.
    Store,
    /// One atomic exchange of 8 bytes, aligned.
    Exchange,
    /// A loop of stores.
    Copy,
    /// The string instruction `rep stosb`; all bytes are the same.
    Fill,
    /// read(2) from a pipe.
    ReadPipe,
    /// pread(2) from a file; the bytes are some of the source.
    ReadFile,
    /// The same with O_DIRECT; whole pages.
    ReadDirect,
    /// process_vm_writev by the helper process.
    VmWrite,
    /// A loop of stores by the helper process, through its own mapping.
    HelperCopy,
    /// process_vm_writev into the helper process.
    HelperVmWrite,
    /// PTRACE_POKEDATA into the helper process; 8 bytes, aligned.
    HelperPoke,
    /// write(2) to /proc/PID/mem of the helper process.
    HelperProcMem,
}

impl Means {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Store,
        Self::Exchange,
        Self::Copy,
        Self::Fill,
        Self::ReadPipe,
        Self::ReadFile,
        Self::ReadDirect,
        Self::VmWrite,
        Self::HelperCopy,
        Self::HelperVmWrite,
        Self::HelperPoke,
        Self::HelperProcMem,
    ];

    /// Whether it goes through a mapping of the helper process.
    pub fn needs_helper_mapping(self) -> bool {
        matches!(
            self,
            Self::HelperCopy | Self::HelperVmWrite | Self::HelperPoke | Self::HelperProcMem
        )
    }
}

/// Through which mapping an arena is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One of this process's mappings.
    Slot(usize),
    /// The helper's mapping of a window.
    Helper(usize),
}

/// Advice for madvise().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// MADV_DONTNEED
    DontNeed,
    /// MADV_POPULATE_READ
    PopulateRead,
    /// MADV_POPULATE_WRITE: faults for writing, but writes nothing.
    PopulateWrite,
}

/// Bytes on their way into an arena.
#[derive(Clone, Debug)]
pub struct Write {
    /// How.
    pub means: Means,
    /// Through which mapping.
    pub place: Place,
    /// Byte offset in that mapping.
    pub offset: usize,
    /// The bytes.
    pub data: Vec<u8>,
    /// For means that read the source: where in it the bytes are.
    pub source: usize,
}

/// Many stores of eight bytes: a loop over pages, some words in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Through which mapping of this process.
    pub slot: usize,
    /// First page of that mapping.
    pub page: usize,
    /// The pages lie so far apart.
    pub stride: usize,
    /// Number of pages.
    pub count: usize,
    /// Stores in each.
    pub words: usize,
    /// Gives places and values.
    pub seed: u64,
}

impl Sweep {
    /// The pages of the mapping, ascending.
    pub fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        (self.page..).step_by(self.stride).take(self.count)
    }

    /// Byte offset in the mapping and value of each store.
    pub fn stores(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (seed, words) = (self.seed, self.words);
        self.pages().flat_map(move |page| {
            let mut rng = Rng::new(seed ^ ((page as u64) << 32));
            std::iter::repeat_with(move || {
                let value = rng.next();
                (page * PAGE + (value >> 32) as usize % (PAGE / 8) * 8, value)
            })
            .take(words)
        })
    }
}

/// What is done to the page-table entries of a mapping by somebody who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// userfaultfd begins to watch the mapping.
    Register,
    /// It write-protects pages; a writer passes by itself.
    Protect,
    /// It gives up write protection.
    Unprotect,
    /// Accessed bits are cleared.
    ClearReferenced,
    /// Soft-dirty bits are cleared.
    ClearSoftDirty,
    /// Memory is compacted.
    Compact,
}

/// How a snapshot is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Its only descriptor is closed.
    Close,
    /// One of two descriptors is closed, and then the other.
    CloseBoth,
    /// The process that has the only descriptor is killed.
    Kill,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// Many stores.
    Sweep(Sweep),
    /// Pages of a mapping are unmapped and mapped again.
    Replace {
        slot: usize,
        page: usize,
        pages: usize,
    },
    /// A mapping gives up all but its first pages.
    Shrink { slot: usize, pages: usize },
    /// What begins at a page of a mapping becomes a mapping of its own, elsewhere.
    Split { slot: usize, page: usize, to: usize },
    /// Somebody watches.
    Watch {
        slot: usize,
        page: usize,
        pages: usize,
        watch: Watch,
    },
    /// The epoch is closed with a snapshot.
    CommitWithSnapshot {
        shot: usize,
        since: u64,
        reserve: u64,
    },
    /// A snapshot hands over pages.
    Gather { shot: usize, call: GatherCall },
    /// Pages are taken out of a snapshot.
    Thaw { shot: usize, pgoff: u64, pages: u64 },
    /// A snapshot's facts are asked for and compared.
    SnapshotInfo { shot: usize },
    /// A snapshot is given up.
    CloseSnapshot { shot: usize, how: Closing },
    /// Bytes are written.
    Write(Write),
    /// Bytes are read through a mapping and compared.
    Load {
        slot: usize,
        offset: usize,
        len: usize,
    },
    /// Bytes are read through the descriptor and compared.
    Pread {
        window: usize,
        offset: usize,
        len: usize,
    },
    /// A part of a window is mapped.
    Map {
        slot: usize,
        dense: usize,
        pages: usize,
    },
    /// A mapping is removed.
    Unmap { slot: usize },
    /// A mapping is moved by mremap().
    Move { slot: usize },
    /// Pages of a mapping become writable or read-only.
    Protect {
        slot: usize,
        page: usize,
        pages: usize,
        writable: bool,
    },
    /// madvise() on pages of a mapping.
    Advise {
        slot: usize,
        page: usize,
        pages: usize,
        advice: Advice,
    },
    /// The kernel is asked to write to a read-only page and must refuse.
    Refused { slot: usize, page: usize },
    /// A child is forked, which ends at once.
    Fork,
    /// The helper maps a window anew.
    HelperRemap { window: usize },
    /// The helper gives MADV_DONTNEED for a window.
    HelperDontNeed { window: usize },
    /// Facts are asked for and compared.
    Info,
    /// The epoch is closed.
    Commit,
    /// A cursor begins to take its delta.
    DeltaBegin { cursor: usize, capacity: usize },
    /// A cursor that has begun takes more.
    DeltaMore { cursor: usize, capacity: usize },
    /// A cursor starts over, from nothing.
    Reset { cursor: usize },
}

impl Op {
    /// As how many operations it counts.
    pub fn weight(&self) -> usize {
        match self {
            Self::Sweep(sweep) => sweep.count * sweep.words,
            _ => 1,
        }
    }
}

// What a person needs to follow a run: not the bytes, but how many and where.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(write) => write!(
                f,
                "Write {:?} {:?} offset {:#x} len {}",
                write.means,
                write.place,
                write.offset,
                write.data.len()
            ),
            other => write!(f, "{other:?}"),
        }
    }
}
