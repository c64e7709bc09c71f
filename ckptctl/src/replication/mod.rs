// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain on another host: how a primary and its spares reach and trust each other.

pub mod credentials;
mod flaw;
mod handshake;
pub mod link;
mod link_error;
mod peer;
pub mod private_files;
mod socket;
mod wire;

pub use credentials::Credentials;
pub use credentials::CredentialsError;
pub use link::Link;
pub use link::Security;
pub use link_error::LinkError;
pub use peer::Peer;
pub use wire::Closer;
pub use wire::Receiving;
pub use wire::Sending;
