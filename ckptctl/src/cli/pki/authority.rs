// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The authority of an installation: the key that signs its nodes' certificates.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::replication::credentials::AUTHORITY;
use ckptctl::replication::credentials::SERVICE_URI;
use ckptctl::replication::private_files;
use ckptctl::replication::private_files::Others;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PublicKeyData;
use rcgen::SanType;

use super::certificate::Certificate;

/// The file with the authority's key.
pub const AUTHORITY_KEY: &str = "ca-key.pem";

/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// The longest common name that X.509 has room for.
const COMMON_NAME_MAX: usize = 64;

/// A certificate and its key, in PEM.
pub struct Made {
    pub certificate: String,
    pub key: String,
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// When its own certificate ends.
    pub not_after: SystemTime,
    /// Its certificates as they are in the file: two while one takes the place of the other.
    pub pem: String,
}

/// What a node's certificate is to say.
pub struct Wish {
    pub node: String,
    pub services: Vec<String>,
    pub hosts: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub not_after: SystemTime,
}

impl Authority {
    /// Makes a new one. Its name gets something that no other has: authorities of one name could
    /// not be told apart by who looks for the right one.
    pub fn make(name: &str, valid: Duration) -> anyhow::Result<Made> {
        let mut unique = [0; 4];
        getrandom::fill(&mut unique)?;
        let name = format!("{name} {}", super::super::figures::hex(&unique));
        let key = KeyPair::generate()?;
        let mut params = params(&name, SystemTime::now() + valid);
        // It signs nodes, and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Made {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Opens that in a directory, for its owner only.
    pub fn open(dir: &Path) -> anyhow::Result<Authority> {
        let (certificate, key) = (dir.join(AUTHORITY), dir.join(AUTHORITY_KEY));
        if !certificate.exists() {
            bail!(
                "no {AUTHORITY} in {}: name the directory that `ckptctl pki init` has made",
                dir.display()
            );
        }
        private_files::check_dir(dir)?;
        let pem = private_files::read(&certificate, Others::MayRead)?;
        let first = Certificate::all_in(&certificate, &pem)?.swap_remove(0);
        if let Some(flaw) = first.flaw(SystemTime::now()) {
            bail!(
                "the authority in {} {}; make a new one by `ckptctl pki init`",
                dir.display(),
                flaw.state()
            );
        }
        let text = |bytes, path: &Path| {
            String::from_utf8(bytes)
                .map_err(|_| anyhow!("{} is no text: put the right file there", path.display()))
        };
        let pem = text(pem, &certificate)?;
        let signing = text(private_files::read(&key, Others::Excluded)?, &key)?;
        let signing = KeyPair::from_pem(&signing).map_err(|error| {
            anyhow!(
                "{} holds no key that can sign ({error}): restore it from a copy",
                key.display()
            )
        })?;
        if signing.subject_public_key_info() != first.public_key {
            bail!(
                "{} is not the key of {}: restore both from one copy",
                key.display(),
                certificate.display()
            );
        }
        Ok(Authority {
            issuer: Issuer::from_ca_cert_pem(&pem, signing)?,
            not_after: first.not_after,
            pem,
        })
    }

    /// Makes a node's key, and signs what the node is.
    pub fn sign(&self, wish: &Wish) -> anyhow::Result<Made> {
        let key = KeyPair::generate()?;
        let mut params = params(&wish.node, wish.not_after);
        let names = &mut params.subject_alt_names;
        // The first is the node's name.
        for host in std::iter::once(&wish.node).chain(&wish.hosts) {
            names.push(SanType::DnsName(host.as_str().try_into()?));
        }
        for address in &wish.addresses {
            names.push(SanType::IpAddress(*address));
        }
        for service in &wish.services {
            let uri = format!("{SERVICE_URI}{service}");
            names.push(SanType::URI(uri.try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Every node both connects and is connected to.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(Made {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if name.len() <= COMMON_NAME_MAX {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = (SystemTime::now() - SKEW).into();
    params.not_after = not_after.into();
    params
}
