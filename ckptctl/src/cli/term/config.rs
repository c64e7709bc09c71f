// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which etcd, which service, which node, and how long a lease is.

use std::path::PathBuf;
use std::time::Duration;

use super::TermError;

/// The shortest lease: etcd itself makes none that is shorter.
pub const TTL_MIN: Duration = Duration::from_secs(2);

/// The longest lease: for so long nobody is the primary when one dies.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// Longest name of a service or node, in bytes.
const NAME_MAX: usize = 200;

/// Which etcd, which service, which node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members of one etcd cluster: `http://host:2379`, or `https://…` with `tls`. They are
    /// asked one after the other until one answers.
    pub endpoints: Vec<String>,
    /// The service whose primary it is about.
    pub service: String,
    /// This host.
    pub node: String,
    /// How long a lease is, in whole seconds from [`TTL_MIN`] to [`TTL_MAX`]. All nodes of a service may have
    /// different ones.
    pub ttl: Duration,
    /// Needed for `https`.
    pub tls: Option<Tls>,
}

/// Whom to trust and who we are, in PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities that etcd's certificate may be of. Those that the system trusts do not count.
    pub ca: PathBuf,
    /// Our certificate, with what leads to its authority, and its key. `None` where etcd does not ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), TermError> {
        check_name("service", &self.service)?;
        check_name("node", &self.node)?;
        if self.ttl.subsec_nanos() != 0 || !(TTL_MIN..=TTL_MAX).contains(&self.ttl) {
            return Err(TermError::Invalid(format!(
                "a lease of {:?} cannot be: give whole seconds, {} to {}",
                self.ttl,
                TTL_MIN.as_secs(),
                TTL_MAX.as_secs()
            )));
        }
        if self.endpoints.is_empty() {
            let what = "no etcd is named: give its addresses, like http://host:2379";
            return Err(TermError::Invalid(what.into()));
        }
        for endpoint in &self.endpoints {
            self.check_endpoint(endpoint)?;
        }
        Ok(())
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<(), TermError> {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let is_host = !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']);
        match scheme {
            "https" if is_host && self.tls.is_none() => Err(TermError::Invalid(format!(
                "{endpoint} needs the certificate of the authority to trust"
            ))),
            "http" | "https" if is_host => Ok(()),
            _ => Err(TermError::Invalid(format!(
                "{endpoint} is no address of etcd: give one like http://host:2379"
            ))),
        }
    }

    /// How long before etcd could let somebody else in the holder's validity ends: a fifth of the
    /// lease. It covers clocks that run at different speeds (chrony bends one by 8.3 % at most: with two of them
    /// bent against each other a twentieth is left), and the time that an output takes from looking at
    /// the clock to where it cannot be held back any more.
    pub fn margin(&self) -> Duration {
        self.ttl / 5
    }

    /// How often a lease is renewed.
    pub(super) fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// How long a member of etcd may take to answer a renewal. Between its beginning and the end of
    /// the validity there is time for one that does not, and for both answers of the next.
    pub(super) fn answer(&self) -> Duration {
        self.ttl / 9
    }

    /// How long a watch is kept before the state is read anew, maybe from another member: one that has lost
    /// the others sees nothing happen.
    pub(super) fn watch(&self) -> Duration {
        (self.ttl * 2).min(Duration::from_secs(60))
    }

    /// How long to wait before asking anew what could not be answered.
    pub(super) fn pause(&self) -> Duration {
        self.ttl / 20
    }
}

/// Refuses what cannot be part of a key, or of a list on a command line.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), TermError> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b',';
    if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_fit) {
        return Ok(());
    }
    Err(TermError::Invalid(format!(
        "{name:?} cannot be the name of a {what}: take 1 to {NAME_MAX} printable ASCII characters without slash, comma and space"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            service: "shop".into(),
            node: "left".into(),
            ttl: Duration::from_secs(10),
            tls: None,
        }
    }

    #[test]
    fn what_is_right_is_accepted() {
        config().check().unwrap();
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in [
            "",
            "a/b",
            "a b",
            "a,b",
            "ä",
            "a\n",
            &"x".repeat(NAME_MAX + 1),
        ] {
            let service = Config {
                service: name.into(),
                ..config()
            };
            let node = Config {
                node: name.into(),
                ..config()
            };
            assert!(
                service.check().is_err() && node.check().is_err(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn leases_that_cannot_be_are_refused() {
        for ms in [0, 1000, 2500, 3_600_001, 3_601_000] {
            let config = Config {
                ttl: Duration::from_millis(ms),
                ..config()
            };
            assert!(config.check().is_err(), "{ms} ms");
        }
    }

    #[test]
    fn addresses_that_cannot_be_are_refused() {
        for address in ["", "host:2379", "http://", "ftp://host", "http://host/v3"] {
            let config = Config {
                endpoints: vec![address.into()],
                ..config()
            };
            assert!(config.check().is_err(), "{address:?}");
        }
    }

    #[test]
    fn https_without_an_authority_to_trust_is_refused() {
        let config = Config {
            endpoints: vec!["https://host:2379".into()],
            ..config()
        };
        assert!(config.check().is_err());
    }
}
