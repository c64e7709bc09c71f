// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why there is no link. Every message says what to do.

use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::Error as TlsError;
use rustls::PeerIncompatible;

use super::flaw::Flaw;

/// Why there is no link with a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// An address cannot be one.
    #[error("{address} is no address: write HOST:PORT, as in spare.example.com:7100 or [::1]:7100")]
    Address {
        /// What was given.
        address: String,
    },

    /// Without TLS, and not on this host.
    #[error(
        "{address} is not on this host, and without certificates only the host's own loopback \
         addresses are allowed: make certificates by `ckptctl pki` and use them on both sides"
    )]
    NotLoopback {
        /// The peer.
        address: String,
    },

    /// A name has no address.
    #[error(
        "cannot find the address of {address}: {source}; look at the name, or write an IP address"
    )]
    Unresolved {
        /// The peer.
        address: String,
        /// What the system said.
        source: io::Error,
    },

    /// Nothing is there.
    #[error("cannot reach {address}: {source}; {}", unreachable(source))]
    Unreachable {
        /// The peer.
        address: String,
        /// What the system said.
        source: io::Error,
    },

    /// It took too long.
    #[error(
        "{address} has not answered within {} s: see whether its host is up, whether a firewall \
         drops what is sent to that port, and whether it is overloaded",
        timeout.as_secs_f64()
    )]
    TimedOut {
        /// The peer.
        address: String,
        /// How long it had.
        timeout: Duration,
    },

    /// The peer's certificate will not do.
    #[error("{address}: its certificate {flaw}")]
    Certificate {
        /// The peer.
        address: String,
        /// What is wrong with it.
        flaw: Flaw,
    },

    /// The peer has shown no certificate.
    #[error(
        "{address} has shown no certificate: give it one by `ckptctl pki issue`, of the authority \
         that this node trusts"
    )]
    NoCertificate {
        /// The peer.
        address: String,
    },

    /// The peer refused this node.
    #[error("{address} refuses this node: {refusal}")]
    Refused {
        /// The peer.
        address: String,
        /// Why.
        refusal: Refusal,
    },

    /// The peer speaks older versions of TLS only.
    #[error(
        "{address} does not speak TLS 1.3, and nothing older is spoken here: see whether it is a ckpt of this kind"
    )]
    NoCommonVersion {
        /// The peer.
        address: String,
    },

    /// The peer speaks TLS, but not of ours.
    #[error(
        "{address} does not speak ckpt/1: see whether the port is the right one, and whether both sides have the same version of ckpt"
    )]
    NoCommonProtocol {
        /// The peer.
        address: String,
    },

    /// The peer does not speak TLS.
    #[error(
        "{address} does not speak TLS: see whether the port is the right one; if the peer was started without certificates, give it some"
    )]
    NotTls {
        /// The peer.
        address: String,
    },

    /// The peer speaks TLS, and this side does not.
    #[error(
        "{address} speaks TLS, and this side has no certificates: give it some, as the peer has"
    )]
    WantsTls {
        /// The peer.
        address: String,
    },

    /// The connection ended before the link was there.
    #[error("{address} broke off before the link was there: {source}; see what it says itself")]
    BrokenOff {
        /// The peer.
        address: String,
        /// How.
        source: io::Error,
    },

    /// Something in TLS that ought not to happen.
    #[error("no link with {address}: {source}; see whether it is a ckpt, and of which version")]
    Tls {
        /// The peer.
        address: String,
        /// What it was.
        source: TlsError,
    },
}

/// Why a peer refused this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its authority has not signed this node's certificate.
    #[error(
        "this node's certificate is of another installation's authority than its own; both sides \
         need certificates of the one whose ca.pem they have"
    )]
    Authority,
    /// This node's certificate has expired there.
    #[error(
        "this node's certificate has expired, or is not valid yet; renew it by `ckptctl pki issue \
         … --replace`, and compare the clocks"
    )]
    Expired,
    /// It wants a certificate.
    #[error("it requires a certificate; make one by `ckptctl pki issue`")]
    CertificateRequired,
    /// It does not like the certificate for another reason.
    #[error(
        "it does not accept this node's certificate, most likely because the certificate is not for \
         the name by which it reached this node; see what it says itself, and `ckptctl pki show`"
    )]
    Certificate,
}

fn unreachable(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: start the peer, or look at the port"
        }
        _ => "see whether its host is up and there is a way to it",
    }
}

impl LinkError {
    /// What an error of TLS means for somebody who looks after both sides.
    pub(super) fn of_tls(address: &str, error: TlsError) -> LinkError {
        use AlertDescription as Alert;
        let address = address.to_owned();
        let refused = |refusal| LinkError::Refused {
            address: address.clone(),
            refusal,
        };
        match error {
            TlsError::InvalidCertificate(error) => LinkError::Certificate {
                flaw: Flaw::of(&error),
                address,
            },
            TlsError::NoCertificatesPresented => LinkError::NoCertificate { address },
            TlsError::NoApplicationProtocol
            | TlsError::AlertReceived(Alert::NoApplicationProtocol) => {
                LinkError::NoCommonProtocol { address }
            }
            TlsError::AlertReceived(Alert::ProtocolVersion) => {
                LinkError::NoCommonVersion { address }
            }
            TlsError::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => LinkError::NoCommonVersion { address },
            TlsError::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => {
                refused(Refusal::Authority)
            }
            TlsError::AlertReceived(Alert::CertificateExpired) => refused(Refusal::Expired),
            TlsError::AlertReceived(Alert::CertificateRequired) => {
                refused(Refusal::CertificateRequired)
            }
            TlsError::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::AccessDenied,
            ) => refused(Refusal::Certificate),
            TlsError::InvalidMessage(_) => LinkError::NotTls { address },
            source => LinkError::Tls { address, source },
        }
    }

    /// What an error of a connection means that is being made into a link.
    pub(super) fn of_io(address: &str, timeout: Duration, source: io::Error) -> LinkError {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::TimedOut => LinkError::TimedOut { address, timeout },
            _ => LinkError::BrokenOff { address, source },
        }
    }
}
