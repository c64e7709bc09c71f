// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why somebody is not the primary. Every message says what to do.

use std::io;

use super::State;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum TermError {
    /// Something in the configuration cannot be.
    #[error("{0}")]
    Invalid(String),

    /// No member of the cluster gave an answer.
    #[error("etcd gave no answer ({0}): see to it that most of its members run and can be reached")]
    NoAnswer(String),

    /// The service has no state yet.
    #[error(
        "there is no service {0} in etcd: start its first primary, which founds it, or correct the name"
    )]
    NoService(String),

    /// The service cannot be founded a second time.
    #[error(
        "the service {service} is there already, in term {} with {} as its primary: campaign for its next term, or take another name",
        state.term, state.primary
    )]
    Founded {
        /// The service.
        service: String,
        /// What it is.
        state: State,
    },

    /// A term is over.
    #[error("term {term} of {service} is over: {why}. Release nothing more, and join as a spare")]
    Fenced {
        /// The service.
        service: String,
        /// The term that was held.
        term: u64,
        /// Why it is over.
        why: String,
    },

    /// What is in etcd is not from here.
    #[error("{key} in etcd is not what ckpt has written ({why}): use another name, or remove it")]
    Foreign {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },

    /// The system refused something.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}
