// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain on another host: how a primary and its spares reach and trust each other.

pub mod credentials;
mod flaw;
mod frame;
mod handshake;
pub mod link;
mod link_error;
mod message;
mod peer;
pub mod private_files;
mod sender;
mod socket;
mod spare;
mod spare_arena;
mod spare_link;
mod term_file;
mod throttle;
mod wire;

pub use credentials::Credentials;
pub use credentials::CredentialsError;
pub use link::Link;
pub use link::Security;
pub use link_error::LinkError;
pub use message::Progress;
pub use message::RefusalCode;
pub use peer::Peer;
pub use peer::is_service;
pub use sender::Finished;
pub use sender::Observer;
pub use sender::Sender;
pub use sender::SenderError;
pub use sender::SenderOptions;
pub use sender::Until;
pub use spare::LastWord;
pub use spare::Primary;
pub use spare::Spare;
pub use spare::SpareOptions;
pub use spare::SpareStatus;
pub use spare::TakenOver;
pub use spare_link::Ended;
pub use spare_link::Why;
pub use term_file::known_term;
pub use term_file::note_term;
pub use wire::Closer;
pub use wire::Receiving;
pub use wire::Sending;
