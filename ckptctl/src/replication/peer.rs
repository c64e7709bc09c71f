// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is at the other end, as its certificate has it.

use std::fmt;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::DnsName;
use webpki::EndEntityCert;

/// What a certificate's URI names begin with that say which services it may speak for.
pub const SERVICE_URI: &str = "ckpt:service:";

/// The longest name of a service, in bytes.
const SERVICE_MAX: usize = 128;

/// A node and the services that it may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node's name: the first DNS name of its certificate.
    pub node: String,
    /// The services, as the certificate lists them.
    pub services: Vec<String>,
}

impl Peer {
    /// Whether it may speak for a service.
    pub fn may(&self, service: &str) -> bool {
        self.services.iter().any(|named| named == service)
    }

    /// What a certificate says, whoever has signed it; `None` when it cannot be read or names no
    /// node.
    pub fn named_in(certificate: &CertificateDer<'_>) -> Option<Peer> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        // A name with a star is that of no node.
        let node = certificate.valid_dns_names().find(|name| is_node(name))?;
        let services = certificate
            .valid_uri_names()
            .filter_map(|uri| uri.strip_prefix(SERVICE_URI))
            .filter(|service| is_service(service))
            .map(str::to_owned)
            .collect();
        Some(Peer {
            node: node.to_owned(),
            services,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node)
    }
}

/// Whether a node can have this name: a DNS name.
pub fn is_node(name: &str) -> bool {
    DnsName::try_from(name).is_ok()
}

/// Whether a service can have this name: letters, digits, `.`, `_` and `-`, so that it is the same
/// in a certificate, in a path and in a key of etcd.
pub fn is_service(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let dots_only = name.bytes().all(|byte| byte == b'.');
    name.len() <= SERVICE_MAX && !dots_only && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_speak_for_the_services_that_it_names_and_for_no_other() {
        let peer = Peer {
            node: "east".into(),
            services: vec!["kv".into(), "queue".into()],
        };
        assert!(peer.may("kv") && peer.may("queue"));
        assert!(!peer.may("k") && !peer.may("kvx") && !peer.may("KV") && !peer.may(""));
    }

    #[test]
    fn a_services_name_fits_into_a_path() {
        assert!(is_service("kv") && is_service("Kv-2.blue_a"));
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ä",
            "*",
            "a:b",
            &"x".repeat(129),
        ] {
            assert!(!is_service(name), "{name}");
        }
    }

    #[test]
    fn a_nodes_name_is_a_dns_name_without_a_star() {
        assert!(is_node("east") && is_node("db-1.example.com"));
        for name in ["", "*.example.com", "a b", "a/b", "ä"] {
            assert!(!is_node(name), "{name}");
        }
    }
}
