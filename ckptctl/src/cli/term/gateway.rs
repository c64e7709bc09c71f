// SPDX-License-Identifier: Apache-2.0 OR MIT
//! etcd, through its JSON gateway: the same calls as by gRPC, as POST requests.
//!
//! A client for gRPC would bring four times as many crates and a runtime of its own, and needs a
//! compiler for protocol buffers to build. What is needed here are four calls, three of which are one
//! question and one answer, and the gateway is part of every etcd since 3.4.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use ureq::tls::Certificate;
use ureq::tls::ClientCert;
use ureq::tls::PemItem;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use ureq::tls::parse_pem;

use super::Config;
use super::TermError;
use super::Tls;
use super::wire;
use super::wire::Do;
use super::wire::If;

/// More than any answer has.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The members of a cluster. Requests go to the one that answered last, and to the next when it does not.
#[derive(Debug)]
pub(super) struct Gateway {
    agent: ureq::Agent,
    endpoints: Vec<String>,
    current: AtomicUsize,
}

/// What a transaction found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether all conditions were met, so that it was carried out.
    pub done: bool,
    /// etcd's revision behind it.
    pub revision: i64,
    /// What was read, in the order of the reading.
    pub read: Vec<Option<wire::Pair>>,
}

impl Gateway {
    /// One that waits so long for each answer.
    pub fn new(config: &Config, answer: Duration) -> Result<Gateway, TermError> {
        let mut builder = ureq::Agent::config_builder()
            .timeout_global(Some(answer))
            // Neither a proxy of the environment nor a redirect: the members are named.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false);
        if let Some(tls) = &config.tls {
            builder = builder.tls_config(tls_config(tls)?);
        }
        Ok(Gateway {
            agent: builder.build().new_agent(),
            endpoints: config.endpoints.clone(),
            current: AtomicUsize::new(0),
        })
    }

    /// Ends what is under way in other threads. Nothing can be asked any more.
    pub fn interrupt(&self) {
        self.agent.clone().shutdown();
    }

    /// Makes a lease of so many seconds, or more. Its time runs from when etcd has it, so from
    /// some instant behind the call's beginning.
    pub fn grant(&self, ttl: Duration) -> Result<i64, TermError> {
        let ttl = ttl.as_secs();
        let body = json!({ "TTL": ttl.to_string() });
        let granted: wire::Granted = self.ask("lease/grant", &body)?;
        if granted.ttl < ttl as i64 {
            let why = format!("it grants {} s of lease for {ttl} s", granted.ttl);
            return Err(TermError::NoAnswer(why));
        }
        Ok(granted.id)
    }

    /// One transaction: when all conditions are met, `then`, else `otherwise`.
    pub fn transaction(
        &self,
        conditions: &[If<'_>],
        then: &[Do<'_>],
        otherwise: &[Do<'_>],
    ) -> Result<Outcome, TermError> {
        let body = wire::transaction(conditions, then, otherwise);
        let answer: wire::Answer = self.ask("kv/txn", &body)?;
        Ok(Outcome {
            done: answer.succeeded,
            revision: answer.header.revision,
            read: answer.read()?,
        })
    }

    /// Reads keys, all at the same revision, as most members have it.
    pub fn read<const N: usize>(
        &self,
        keys: [&str; N],
    ) -> Result<(i64, [Option<wire::Pair>; N]), TermError> {
        let reads = keys.map(Do::Get);
        let outcome = self.transaction(&[], &reads, &[])?;
        let count = outcome.read.len();
        match outcome.read.try_into() {
            Ok(read) => Ok((outcome.revision, read)),
            Err(_) => Err(TermError::NoAnswer(format!("{count} answers to {N} reads"))),
        }
    }

    /// Returns when a key was removed behind a revision, or when so much time is over.
    pub fn wait_until_removed(
        &self,
        key: &str,
        revision: i64,
        within: Duration,
    ) -> Result<(), TermError> {
        let endpoint = self.endpoint();
        let failed = |why: String| {
            self.turn_from(endpoint);
            TermError::NoAnswer(format!("{}: {why}", self.endpoints[endpoint]))
        };
        let body = wire::watch_removal(key, revision + 1).to_string();
        let answer = self.agent.config().timeouts().global;
        let request = self
            .agent
            .post(self.url(endpoint, "watch"))
            // A member that has no leader any more says so, instead of seeing nothing happen.
            .header("Grpc-Metadata-hasleader", "true")
            .config()
            .timeout_global(None)
            .timeout_resolve(answer)
            .timeout_connect(answer)
            .timeout_recv_response(answer)
            .timeout_recv_body(Some(within))
            .build();
        let response = request
            .send(body.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let mut lines = BufReader::new(response.into_body().into_reader());
        let mut line = String::new();
        loop {
            line.clear();
            match lines.read_line(&mut line) {
                Ok(0) => return Err(failed("the watch ended".into())),
                Ok(_) => {}
                Err(error) => match ureq::Error::from(error) {
                    ureq::Error::Timeout(ureq::Timeout::RecvBody) => return Ok(()),
                    error => return Err(failed(error.to_string())),
                },
            }
            match wire::Seen::of(&line) {
                wire::Seen::Nothing => {}
                wire::Seen::Removed | wire::Seen::LookAgain => return Ok(()),
                wire::Seen::Failed(why) => return Err(failed(why)),
            }
        }
    }

    /// Asks one member after the other until one answers. What was asked may have happened even
    /// when none did.
    fn ask<T: DeserializeOwned>(&self, what: &str, body: &Value) -> Result<T, TermError> {
        let body = body.to_string();
        let mut failures = Vec::new();
        for _ in &self.endpoints {
            let endpoint = self.endpoint();
            match self.ask_one(&self.url(endpoint, what), &body) {
                Ok(answer) => return Ok(answer),
                Err(why) => {
                    failures.push(format!("{}: {why}", self.endpoints[endpoint]));
                    self.turn_from(endpoint);
                }
            }
        }
        Err(TermError::NoAnswer(failures.join("; ")))
    }

    fn ask_one<T: DeserializeOwned>(&self, url: &str, body: &str) -> Result<T, String> {
        let mut response = self
            .agent
            .post(url)
            .send(body.as_bytes())
            .map_err(|error| error.to_string())?;
        let bytes = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(wire::refusal(response.status().as_u16(), &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("no answer of etcd's: {error}"))
    }

    fn endpoint(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.endpoints.len()
    }

    /// The next one, unless another thread has gone on already.
    fn turn_from(&self, endpoint: usize) {
        let next = (endpoint + 1) % self.endpoints.len();
        let (current, order) = (&self.current, Ordering::Relaxed);
        let _ = current.compare_exchange(endpoint, next, order, order);
    }

    fn url(&self, endpoint: usize, what: &str) -> String {
        format!("{}/v3/{what}", self.endpoints[endpoint])
    }
}

fn tls_config(tls: &Tls) -> Result<TlsConfig, TermError> {
    // Fails when there is a default already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authorities = certificates(&tls.ca)?;
    let identity = match &tls.identity {
        None => None,
        Some((chain, key)) => {
            let chain = certificates(chain)?;
            let key = items(key)?.into_iter().find_map(|item| match item {
                PemItem::PrivateKey(key) => Some(key),
                _ => None,
            });
            let key = key.ok_or_else(|| TermError::Invalid("the key's file has none".into()))?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
    };
    let builder = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&authorities))
        .client_cert(identity);
    Ok(builder.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TermError> {
    let certificates: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => Err(TermError::Invalid(format!(
            "{} has no certificate: give a PEM file",
            path.display()
        ))),
        false => Ok(certificates),
    }
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, TermError> {
    let pem = fs::read(path).map_err(|source| TermError::System {
        doing: format!("read {}", path.display()),
        source,
    })?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    items.map_err(|error| TermError::Invalid(format!("{}: {error}", path.display())))
}
