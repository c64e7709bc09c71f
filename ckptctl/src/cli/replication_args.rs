// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options by which a node and its peers know each other, for every verb that replicates.

use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use ckptctl::replication::Credentials;
use ckptctl::replication::Security;
use clap::ValueEnum;
use nix::unistd::gethostname;

/// Who this node is, and how it and its peers make sure of each other.
#[derive(clap::Args, Clone, Debug)]
pub struct IdentityArgs {
    /// The name of the service that is replicated; the same on all its nodes
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = parse_service)]
    pub service: String,
    /// This node's name [default: the host's]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The directory with this node's certificate, see `ckptctl pki`
    #[arg(long, value_name = "DIR", conflicts_with = "plain")]
    pki: Option<PathBuf>,
    /// Without certificates and without secrecy: between processes of this host only
    #[arg(long)]
    plain: bool,
}

fn parse_service(name: &str) -> Result<String, String> {
    match ckptctl::replication::is_service(name) {
        true => Ok(name.to_owned()),
        false => Err("a service's name has letters, digits, '.', '_' and '-'".into()),
    }
}

impl IdentityArgs {
    /// How links are made sure of.
    pub fn security(&self) -> anyhow::Result<Security> {
        match (&self.pki, self.plain) {
            (Some(dir), _) => Ok(Security::Tls(Credentials::load(dir)?)),
            (None, true) => Ok(Security::PlainOnLoopback),
            (None, false) => bail!(
                "who may take part is told by certificates: give --pki DIR (`ckptctl pki init` and \
                 `ckptctl pki issue` make one), or --plain for processes of this host alone"
            ),
        }
    }

    /// This node's name.
    pub fn node(&self) -> anyhow::Result<String> {
        match &self.node {
            Some(node) => Ok(node.clone()),
            None => {
                let name = gethostname().context("cannot tell this host's name: give --node")?;
                Ok(name.to_string_lossy().into_owned())
            }
        }
    }
}

/// What is sent to spares.
#[derive(clap::Args, Clone, Debug)]
pub struct SendArgs {
    /// Cap what is sent to a spare, in bytes a second: 10MB, 512KiB
    #[arg(long, value_name = "BYTES", value_parser = parse_limit)]
    pub limit: Option<u64>,
}

/// What a program waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// Until it is on this host's disk
    Durable,
    /// Until it is on the disk of every spare as well
    Replicated,
}

impl WaitFor {
    /// As the program finds it in its environment.
    pub fn name(self) -> &'static str {
        match self {
            WaitFor::Durable => "durable",
            WaitFor::Replicated => "replicated",
        }
    }
}

fn parse_limit(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(bytes) if bytes.as_u64() >= 1000 => Ok(bytes.as_u64()),
        Ok(_) => Err("nothing would ever arrive: allow 1 kB a second at least".into()),
        Err(_) => Err(format!(
            "{text:?} is no number of bytes: write 10MB or 512KiB"
        )),
    }
}
