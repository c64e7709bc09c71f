// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a certificate says, for people.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::anyhow;
use ckptctl::replication::Peer;
use ckptctl::replication::credentials::Flaw;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::prelude::X509Name;

use super::super::figures;

/// A certificate.
pub struct Certificate {
    /// The node's name, or that of an authority.
    pub name: String,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// The node that it is, with the services that it may speak for; `None` when it names none.
    pub peer: Option<Peer>,
    /// The names by which it is reached, besides the node's own.
    pub hosts: Vec<String>,
    /// The addresses by which it is reached.
    pub addresses: Vec<IpAddr>,
    /// Who has signed it.
    pub issuer: String,
    /// Valid from then…
    pub not_before: SystemTime,
    /// … to then.
    pub not_after: SystemTime,
    /// SHA-256 of all of it, in hexadecimal digits.
    pub sha256: String,
    /// Its public key, as it is written in it.
    pub public_key: Vec<u8>,
}

impl Certificate {
    /// The certificates of a file; at least one.
    pub fn all_in(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<Certificate>> {
        let shown = path.display();
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.with_context(|| format!("{shown} is no file of certificates in PEM"));
        let found = found?;
        if found.is_empty() {
            return Err(anyhow!(
                "{shown} holds no certificate in PEM: name a file that `ckptctl pki` has made"
            ));
        }
        let read = found.iter().map(Certificate::of);
        let read: Option<Vec<_>> = read.collect();
        read.ok_or_else(|| anyhow!("{shown} holds something that is no certificate: replace it"))
    }

    fn of(der: &CertificateDer<'_>) -> Option<Certificate> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let peer = Peer::named_in(der);
        let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
        let names = parsed.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let node = peer.as_ref().map(|peer| peer.node.clone());
        hosts.retain(|host| Some(host) != node.as_ref());
        Some(Certificate {
            is_authority: parsed.is_ca(),
            name: match node {
                Some(node) if !parsed.is_ca() => node,
                _ => common_name(parsed.subject()),
            },
            peer,
            hosts,
            addresses,
            issuer: common_name(parsed.issuer()),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            sha256: figures::hex(ring::digest::digest(&ring::digest::SHA256, der).as_ref()),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// What is wrong with it by itself, whoever has signed it.
    pub fn flaw(&self, now: SystemTime) -> Option<Flaw> {
        if self.not_after < now {
            return Some(Flaw::Expired {
                at: Some(self.not_after),
            });
        }
        if self.not_before > now {
            return Some(Flaw::NotYet {
                from: Some(self.not_before),
            });
        }
        (!self.is_authority && self.peer.is_none()).then_some(Flaw::Nameless)
    }

    /// All names and addresses by which it is reached, besides the node's own.
    pub fn reached_by(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        self.hosts.iter().cloned().chain(addresses).collect()
    }

    /// The services that it may speak for.
    pub fn services(&self) -> &[String] {
        self.peer.as_ref().map_or(&[], |peer| &peer.services)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// The common name, or all of the name where there is none.
fn common_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next();
    let common = common.and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn time(since_1970_s: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(since_1970_s.try_into().unwrap_or(0))
}
