// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A node's certificate, its key and the authority that it trusts: a directory with `ca.pem`,
//! `cert.pem` and `key.pem`.
//!
//! An installation has an authority of its own, and nothing else is trusted: whoever holds a
//! certificate of it is in, and speaks for the services that the certificate names. `ckptctl pki`
//! makes all of it; certificates from elsewhere do as well, if the first DNS name is the node's,
//! and URI names `ckpt:service:NAME` say which services it may speak for.
//!
//! A directory is read once, by [`Credentials::load`]. Who holds on to them for long loads them anew for each
//! link, so that a renewed certificate is used as soon as it is there.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::UnixTime;
use rustls_pki_types::pem::PemObject;

pub use super::flaw::Flaw;
use super::peer;
pub use super::peer::Peer;
pub use super::peer::SERVICE_URI;
use super::private_files;
use super::private_files::Others;
pub use super::private_files::PrivacyError;

/// The file with the authority's certificate.
pub const AUTHORITY: &str = "ca.pem";
/// The file with the node's certificate.
pub const CERTIFICATE: &str = "cert.pem";
/// The file with the node's key.
pub const KEY: &str = "key.pem";

/// What the two sides agree to speak (ALPN).
pub(super) const PROTOCOL: &[u8] = b"ckpt/1";

/// Who this node is, and whom it trusts. Clones share it.
#[derive(Clone)]
pub struct Credentials {
    loaded: Arc<Loaded>,
}

struct Loaded {
    dir: PathBuf,
    own: Peer,
    expires: SystemTime,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why a directory has no credentials that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file is not there.
    #[error(
        "no {file} in {dir}: name the directory that `ckptctl pki issue` has made for this node, \
         copied as a whole"
    )]
    Missing {
        /// The file's name.
        file: &'static str,
        /// The directory.
        dir: PathBuf,
    },

    /// A file or the directory is not safe to use.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),

    /// A file does not hold what it ought to.
    #[error("{path} holds no {expected} ({reason}): issue it anew by `ckptctl pki issue`")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it ought to hold.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },

    /// Key and certificate do not belong together.
    #[error(
        "the key in {dir} is not that of {CERTIFICATE}: copy all of the directory that `ckptctl pki issue` has made"
    )]
    Pair {
        /// The directory.
        dir: PathBuf,
    },

    /// The certificate would be refused everywhere.
    #[error("the certificate in {dir} {flaw}")]
    Certificate {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

impl Credentials {
    /// Reads a directory, and holds up that what is in it can be used: now, by this user, and
    /// without anybody else having had a hand in it.
    pub fn load(dir: &Path) -> Result<Credentials, CredentialsError> {
        private_files::check_dir(dir)?;
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authority(dir)?);
        let chain = certificates(dir, CERTIFICATE, Others::MayRead)?;
        let key = key(dir)?;
        let flawed = |flaw| CredentialsError::Certificate {
            dir: dir.to_owned(),
            flaw,
        };
        let others = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| content(dir, AUTHORITY, "authority", &error))?;
        verify(&*others, &chain, UnixTime::now()).map_err(flawed)?;
        let own = Peer::named_in(&chain[0]).ok_or_else(|| flawed(Flaw::Nameless))?;
        let expires = end(&*others, &chain);
        let unusable = |error| match error {
            rustls::Error::InconsistentKeys(_) => CredentialsError::Pair {
                dir: dir.to_owned(),
            },
            error => content(dir, KEY, "key that can be used", &error),
        };
        let client = client(&provider, roots, chain.clone(), key.clone_key()).map_err(unusable)?;
        let server = server(&provider, others, chain, key).map_err(unusable)?;
        Ok(Credentials {
            loaded: Arc::new(Loaded {
                dir: dir.to_owned(),
                own,
                expires,
                client: Arc::new(client),
                server: Arc::new(server),
            }),
        })
    }

    /// Where they were read from.
    pub fn dir(&self) -> &Path {
        &self.loaded.dir
    }

    /// This node, as others see it.
    pub fn own(&self) -> &Peer {
        &self.loaded.own
    }

    /// When the certificate ends.
    pub fn expires(&self) -> SystemTime {
        self.loaded.expires
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.loaded.client.clone()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.loaded.server.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("dir", &self.loaded.dir)
            .field("own", &self.loaded.own)
            .finish_non_exhaustive()
    }
}

/// Whether a node can have this name: a DNS name, without a star.
pub fn is_node_name(name: &str) -> bool {
    peer::is_node(name)
}

/// Whether a service can have this name: letters, digits, `.`, `_` and `-`.
pub fn is_service_name(name: &str) -> bool {
    peer::is_service(name)
}

fn content(
    dir: &Path,
    file: &'static str,
    expected: &'static str,
    reason: &dyn fmt::Display,
) -> CredentialsError {
    CredentialsError::Content {
        path: dir.join(file),
        expected,
        reason: reason.to_string(),
    }
}

fn read(dir: &Path, file: &'static str, others: Others) -> Result<Vec<u8>, CredentialsError> {
    private_files::read(&dir.join(file), others).map_err(|error| match error {
        PrivacyError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            CredentialsError::Missing {
                file,
                dir: dir.to_owned(),
            }
        }
        error => error.into(),
    })
}

/// The certificates in a file: at least one.
fn certificates(
    dir: &Path,
    file: &'static str,
    others: Others,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let pem = read(dir, file, others)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| content(dir, file, "certificate in PEM", &error))?;
    match found.is_empty() {
        true => Err(content(
            dir,
            file,
            "certificate in PEM",
            &"nothing is in it",
        )),
        false => Ok(found),
    }
}

/// What is trusted: the authority, or two while one takes the place of the other.
fn authority(dir: &Path) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(dir, AUTHORITY, Others::MayRead)? {
        roots
            .add(certificate)
            .map_err(|error| content(dir, AUTHORITY, "authority's certificate", &error))?;
    }
    Ok(roots)
}

fn key(dir: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let pem = read(dir, KEY, Others::Excluded)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| content(dir, KEY, "key in PEM", &error))
}

fn verify(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Flaw> {
    match verifier.verify_client_cert(&chain[0], &chain[1..], now) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(error)) => Err(Flaw::of(&error)),
        Err(error) => Err(Flaw::Other(error.to_string())),
    }
}

/// When a certificate ends: what a verification at the end of all days has to say.
fn end(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> SystemTime {
    // Later than any certificate can say.
    let late = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
    match verifier.verify_client_cert(&chain[0], &chain[1..], late) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => UNIX_EPOCH + Duration::from_secs(not_after.as_secs()),
        _ => UNIX_EPOCH + Duration::from_secs(late.as_secs()),
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each link shows its certificate, so that one that has expired ends with the next link.
    config.resumption = Resumption::disabled();
    // Nobody on the way has to know whom it is for.
    config.enable_sni = false;
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
