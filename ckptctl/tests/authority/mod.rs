// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Authorities and the certificates that they sign, good ones and others.

#![allow(
    dead_code,
    reason = "every test binary has its own copy of this and uses a part of it"
)]

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;

const DAY_S: u64 = 24 * 3600;

/// What signs the certificates of an installation.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

/// What a certificate is to say.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub names: &'a [&'a str],
    pub services: &'a [&'a str],
    pub addresses: &'a [&'a str],
    /// Valid from so many days ago…
    pub since_days: i64,
    /// … until in so many days.
    pub until_days: i64,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Wish {
            names: &["east"],
            services: &["kv"],
            addresses: &["127.0.0.1"],
            since_days: 1,
            until_days: 30,
        }
    }
}

/// A certificate and its key.
pub struct Signed {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
    key_der: Vec<u8>,
}

impl Signed {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_der.clone()).unwrap()
    }
}

fn in_days(days: i64) -> SystemTime {
    let span = Duration::from_secs(days.unsigned_abs() * DAY_S);
    let now = SystemTime::now();
    if days < 0 { now - span } else { now + span }
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn sign(&self, wish: &Wish<'_>) -> Signed {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = wish.names.iter().map(|name| (*name).into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        for address in wish.addresses {
            let address: IpAddr = address.parse().unwrap();
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        for service in wish.services {
            let uri = format!("ckpt:service:{service}").try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = in_days(-wish.since_days).into();
        params.not_after = in_days(wish.until_days).into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }

    /// Makes a directory of credentials.
    pub fn issue(&self, dir: &Path, wish: &Wish<'_>) -> Signed {
        let signed = self.sign(wish);
        put(dir, &self.pem, &signed);
        signed
    }
}

/// Writes a directory of credentials that nobody but the user can read.
pub fn put(dir: &Path, authorities: &str, signed: &Signed) {
    fs::create_dir_all(dir).unwrap();
    for (name, content) in [
        ("ca.pem", authorities),
        ("cert.pem", &signed.certificate_pem),
        ("key.pem", &signed.key_pem),
    ] {
        fs::write(dir.join(name), content).unwrap();
        set_mode(&dir.join(name), 0o600);
    }
    set_mode(dir, 0o700);
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
