// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pki issue`: a node's certificate.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::replication::Credentials;
use ckptctl::replication::credentials::AUTHORITY;
use ckptctl::replication::credentials::CERTIFICATE;
use ckptctl::replication::credentials::KEY;
use ckptctl::replication::credentials::is_node_name;
use ckptctl::replication::credentials::is_service_name;

use super::super::output;
use super::authority::Authority;
use super::authority::Wish;
use super::certificate::Certificate;
use super::listing;
use super::staging::PUBLIC;
use super::staging::SECRET;
use super::staging::Staging;

/// Make a node's certificate and key, in a directory to copy to the node
///
/// The directory, DIR/NODE or --out, gets ca.pem, cert.pem and key.pem. Copy it to the node as a
/// whole, so that it belongs to the user that runs ckpt there, and then remove it here, if you like.
///
/// A node is reached by NODE, if that is a name that others can look up, and by every --address;
/// who connects to it by another is told that the certificate is not for that.
///
/// With --replace a new certificate and a new key take the place of those that are in the directory;
/// services and addresses that are not given are those of the old certificate. Processes that run go
/// on with what they have; those that are started afterwards use what is there then.
#[derive(clap::Args)]
pub struct Args {
    /// The authority's directory
    dir: PathBuf,
    /// The node's name, a DNS name
    #[arg(value_parser = node)]
    node: String,
    /// A service that it may speak for; several times for several
    #[arg(long = "service", value_name = "SERVICE", value_parser = service, required_unless_present = "replace")]
    services: Vec<String>,
    /// A name or IP address by which it is reached; several times for several
    #[arg(long = "address", value_name = "HOST|IP", value_parser = address)]
    addresses: Vec<Address>,
    /// How many days it is good for, but no longer than the authority
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The directory to make instead of DIR/NODE
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Renew what is there
    #[arg(long)]
    replace: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
enum Address {
    Host(String),
    Ip(IpAddr),
}

fn node(text: &str) -> Result<String, String> {
    match is_node_name(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("it is a DNS name, as east or east.example.com".into()),
    }
}

fn service(text: &str) -> Result<String, String> {
    match is_service_name(text) {
        true => Ok(text.into()),
        false => Err("it is made of letters, digits, `.`, `_` and `-`".into()),
    }
}

fn address(text: &str) -> Result<Address, String> {
    if let Ok(address) = text.parse() {
        return Ok(Address::Ip(address));
    }
    match is_node_name(text) {
        true => Ok(Address::Host(text.to_ascii_lowercase())),
        false => Err("it is an IP address or a DNS name, without a port".into()),
    }
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let authority = Authority::open(&args.dir)?;
    let target = args.out.clone();
    let target = target.unwrap_or_else(|| args.dir.join(&args.node));
    let old = match args.replace {
        true => old(&target, &args.node)?,
        false => None,
    };
    let wish = wish(&args, &authority, old.as_ref())?;
    let made = authority.sign(&wish)?;
    let mut staging = Staging::beside(&target)?;
    staging.write(KEY, &made.key, SECRET)?;
    staging.write(CERTIFICATE, &made.certificate, PUBLIC)?;
    staging.write(AUTHORITY, &authority.pem, PUBLIC)?;
    // As the node will.
    Credentials::load(staging.path())?;
    match old {
        Some(_) => staging.replace()?,
        None => staging.publish(
            "renew what is in it with --replace, or name a directory that is not there with --out",
        )?,
    }
    listing::print(&listing::of(&target)?, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The certificate that is to be replaced, if there is one.
fn old(target: &Path, node: &str) -> anyhow::Result<Option<Certificate>> {
    let path = target.join(CERTIFICATE);
    let pem = match fs::read(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    };
    let old = Certificate::all_in(&path, &pem)?.swap_remove(0);
    match old.name == node {
        true => Ok(Some(old)),
        false => Err(anyhow!(
            "{} is that of {}, not of {node}: name another directory with --out",
            path.display(),
            old.name
        )),
    }
}

fn wish(args: &Args, authority: &Authority, old: Option<&Certificate>) -> anyhow::Result<Wish> {
    let mut services = args.services.clone();
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for address in &args.addresses {
        match address {
            Address::Host(host) => hosts.push(host.clone()),
            Address::Ip(address) => addresses.push(*address),
        }
    }
    if let Some(old) = old {
        if services.is_empty() {
            services = old.services().to_vec();
        }
        if args.addresses.is_empty() {
            hosts.clone_from(&old.hosts);
            addresses.clone_from(&old.addresses);
        }
    }
    if services.is_empty() {
        bail!("there is no certificate to take the services from: name them with --service");
    }
    hosts.retain(|host| *host != args.node);
    let asked = SystemTime::now() + Duration::from_secs(u64::from(args.days) * 24 * 3600);
    if asked > authority.not_after {
        output::say("the certificate ends with its authority, which is earlier than was asked for");
    }
    Ok(Wish {
        node: args.node.clone(),
        services,
        hosts,
        addresses,
        not_after: asked.min(authority.not_after),
    })
}
