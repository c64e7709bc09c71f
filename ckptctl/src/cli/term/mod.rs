// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is the primary of a service: terms, kept in etcd.
//!
//! A *term* is a number that grows with every change of the primary. Under `/ckpt/SERVICE/state` etcd has
//! the last term, whose it is, and which nodes have everything that was ever acknowledged as replicated;
//! `/ckpt/SERVICE/lease` is there while the primary holds its lease. [`Store::found`] makes the first term of
//! a service, [`campaign`] waits for the next one, and [`Held`] is a term that this process has.
//! docs/replication.md, section 10, argues why there are never two.
//!
//! # Safety of terms
//!
//! 1. A term begins by one transaction of etcd's, which happens only when there is no lease key and the
//!    state is that which was read. So terms follow each other, each has one primary, and a new one begins only when the key
//!    of the last is gone.
//! 2. The key goes with the lease that it is bound to, or when its holder resigns. A lease is never prolonged here.
//!    The holder makes a new one each time and binds the key to that, by a transaction that wants the key to be
//!    still its own. etcd counts a lease's time from when it has it, so from an instant behind the one
//!    at which the holder began to ask. A new leader of the cluster counts from its own beginning, which is later.
//! 3. So from the instant before it asked, the holder has the whole time of the lease, and it uses four fifths
//!    ([`Config::margin`]).
//!
//! Prolonging, as etcd offers, would be one message less, and is not as safe: it is answered without
//! asking the other members, so that a leader that was replaced and does not know it yet can promise time that the
//! new one does not give, and can end a lease that was prolonged by the new one (etcd-io/etcd issue 15247).
//! Neither matters to a lease that is used once: its time is the same for all members, or later.

mod campaign;
mod config;
mod error;
mod gateway;
mod held;
mod state;
mod store;
mod wire;

pub use campaign::Outcome;
pub use campaign::campaign;
pub use campaign::campaign_in_sync;
pub use config::Config;
pub use config::Tls;
#[allow(unused_imports, reason = "tests/terms.rs looks at them")]
pub use config::{TTL_MAX, TTL_MIN};
pub use error::TermError;
pub use held::Held;
pub use state::State;
pub use store::Store;
