// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that remembers what changed.
//!
//! A program keeps its state in an arena and commits when that state makes sense; the pages
//! that changed up to then are saved to a chain while the program goes on. When the program starts again it goes on from a
//! commit: the same bytes at the same addresses.
//!
//! [`Context`] is the way in for programs, [`store`] for tools that read chains.

pub mod arena;
mod context;
pub mod control;
mod error;
mod hooks;
mod identity;
pub mod options;
pub mod outputs;
mod page_ranges;
pub mod pull;
#[cfg(feature = "replication")]
pub mod replication;
mod safe_point;
pub mod saving;
pub mod store;
pub mod sys;
pub mod track;
pub mod warm;

pub use arena::Adopted;
pub use arena::RegionSpec;
pub use context::CommitReport;
pub use context::Context;
pub use context::RollbackReport;
pub use error::Error;
pub use hooks::Hook;
pub use hooks::When;
pub use options::Options;
pub use options::Restore;
pub use options::WaitFor;
pub use outputs::Outputs;
pub use safe_point::Inside;
pub use safe_point::SafePoint;
pub use saving::Compacting;
pub use saving::Saving;
pub use saving::Stats;
