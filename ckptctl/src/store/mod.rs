// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The chain: a directory of durable commits from which any kept epoch can be
//! restored. `docs/format.md` specifies what is on disk.
//!
//! Data flows one way: [`Writer`] turns pages into records and appends them to
//! segments; [`Chain`] finds the records, and [`Loader`] brings the pages of an
//! epoch back.

mod append;
#[cfg(feature = "cli")]
mod archive;
mod chain;
mod changes;
mod codec;
mod compaction;
mod compression;
mod damage;
mod difference;
mod error;
mod following;
mod format;
mod history;
mod index;
mod known;
mod loader;
mod lock;
mod look;
mod meta;
mod opening;
mod packing;
mod page_map;
mod page_sink;
mod receiving;
mod record;
mod restoring;
mod run_cache;
mod run_reader;
mod scan;
mod seals;
mod segment;
mod segment_file;
mod shipping;
mod spec;
mod verify;
mod writer;
mod writing;

#[cfg(feature = "cli")]
pub use archive::Imported;
#[cfg(feature = "cli")]
pub use archive::import;
pub use chain::Chain;
pub use changes::Image;
pub use compaction::Compaction;
pub use compaction::Keep;
pub use compaction::compact;
pub use compaction::preview;
pub use compression::Compression;
pub use damage::Damage;
pub use damage::EpochRanges;
pub use damage::TornTail;
pub use difference::PageDifference;
pub use difference::Written;
pub use error::StoreError;
pub use format::Kind;
pub use history::FullCost;
pub use loader::Loader;
pub use loader::PageRun;
pub use meta::CommitMeta;
pub use meta::Identity;
pub use meta::RegionEntry;
pub use page_sink::PageSink;
pub use receiving::Announced;
pub use receiving::Received;
pub use receiving::Receiving;
pub use record::CommitInfo;
pub use segment::SPARE_NAME;
pub use segment::TERM_NAME;
pub use segment::TERM_UNFINISHED;
pub use shipping::CommitId;
pub use shipping::RECORD_END_BYTES;
pub use shipping::Shipment;
pub use spec::ChainSpec;
pub use spec::SpecError;
pub use verify::Report;
pub use writer::Options;
pub use writer::Recovery;
pub use writer::Settled;
pub use writer::Writer;

#[cfg(test)]
pub(crate) mod tests;
