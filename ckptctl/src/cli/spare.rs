// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl spare`: waits with the state of a program on another host, and goes on with it.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::anyhow;
use ckptctl::replication::Link;
use ckptctl::replication::Security;
use ckptctl::replication::Spare;
use ckptctl::replication::SpareOptions;
use ckptctl::replication::SpareStatus;
use ckptctl::replication::TakenOver;
use ckptctl::replication::Why;
use ckptctl::saving::Compacting;
use ckptctl::store;
use ckptctl::store::CommitId;
use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::device::Device;
use ckptctl::sys::event::Event;
use ckptctl::sys::signals::Signals;
use ckptctl::sys::thread;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;

use super::figures;
use super::keeper::Keeper;
use super::keeper::KeeperArgs;
use super::output;
use super::primary::Primary;
use super::primary::ReplicationArgs;
use super::program::Program;
use super::program::ProgramArgs;
use super::restarts::RestartArgs;
use super::candidacy::Candidacy;
use super::spare_socket::Question;
use super::spare_socket::SpareSocket;
use super::status_file::Peer;
use super::status_file::Status;
use super::status_file::StatusFile;
use super::supervisor;

/// Wait with the state of a program on another host, and go on with it when told to
///
/// Takes what a primary sends (`ckptctl run --replicate-to`, `ckptctl replicate`) into the chain in
/// DIR, and with the kernel module into an arena as well, so that taking over reads nothing from
/// the disk. The primary learns what is durable here.
///
/// It takes over when `ckptctl promote DIR` says so, or when the primary hands over (`ckptctl
/// migrate`), or, with --etcd, when the primary's lease has run out and this spare has all that was
/// ever acknowledged as replicated: then CMD is started with the newest state, with CKPT_TAKEOVER in its environment and
/// its hooks CKPT_AFTER_TAKEOVER run, and is looked after as by `ckptctl run`. A primary of an
/// earlier term is refused from then on.
///
/// Epochs go on far above those of the old primary, so none is ever used twice. The old primary
/// can become the spare: start `ckptctl spare` on its directory.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Where to listen for the primary: HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Directory of the chain, made when it is not there
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    replication: ReplicationArgs,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    keeper: KeeperArgs,
    #[command(flatten)]
    program: ProgramArgs,
}

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  ckptctl spare --listen 0.0.0.0:7100 --store /var/lib/sim --pki /etc/ckpt/east --service sim \\
      --restart on-failure -- ./sim --threads 4
  ckptctl promote /var/lib/sim
  ckptctl spare --listen 0.0.0.0:7100 --store /var/lib/sim --pki /etc/ckpt/east --service sim \\
      --etcd http://etcd:2379 --replicate-to west:7100 --wait-for replicated -- ./sim

Exit codes:
  Before it takes over: 0 when it was asked to stop, 1 failed, 2 usage, 4 chain damaged. Then those
  of `ckptctl run`";

/// How long a link may take to be made.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How often it tells how it is doing.
const LOOK: Duration = Duration::from_secs(1);

/// Links that are being made or served at the same time.
const LINKS_MAX: usize = 16;

/// What ends the waiting.
enum End {
    Stopped,
    TakeOver { decided: Instant, taken: TakenOver },
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let security = args.replication.identity.security()?;
    let listener = listen(&args.listen, &security)?;
    let options = SpareOptions {
        dir: args.store.clone(),
        service: args.replication.identity.service.clone(),
        node: args.replication.identity.node()?,
        store: store::Options::default(),
        compacting: Compacting::default(),
        arena: Device::open().is_ok(),
    };
    let has_module = options.arena;
    let signals = supervisor::signals()?;
    let (spare, recovery) = Spare::open(options)?;
    if let Some(torn) = recovery.torn {
        output::say(&format!("{torn}; cut off"));
    }
    let mut program = Program::prepare(args.program, Some(args.store.clone()), None)?;
    let socket = SpareSocket::bind(&args.store)?;
    let status = spare.status();
    let has = match status.durable {
        Some(id) => format!("has epoch {}", id.epoch),
        None => "has no state yet".into(),
    };
    output::say(&format!(
        "spare of {} on {}, {has}{}",
        args.replication.identity.service,
        listener.local_addr()?,
        match has_module {
            true => "",
            false => "; without the module it reads its chain when it takes over",
        }
    ));
    let node = args.replication.identity.node()?;
    let etcd = args.replication.spares.etcd();
    let config = etcd.config(&args.replication.identity.service, &node);
    let candidacy = config.map(Candidacy::begin).transpose()?;
    let waiting = Waiting {
        spare,
        listener,
        security,
        socket,
        signals: &signals,
        candidacy: candidacy.as_ref(),
        about: About {
            service: args.replication.identity.service.clone(),
            node: node.clone(),
            dir: args.store.clone(),
        },
    };
    let (decided, taken) = match waiting.run()? {
        End::Stopped => return Ok(ExitCode::SUCCESS),
        End::TakeOver { decided, taken } => (decided, taken),
    };
    let held = candidacy.and_then(Candidacy::end);
    let keeper = prepare(&mut program, &args.keeper, decided, taken);
    let primary = Primary::with(program, &args.replication, args.store, held)?;
    primary.run(&args.restart, keeper, &signals)
}

/// Prepares starting the program in what was taken over.
fn prepare(
    program: &mut Program,
    keeper: &KeeperArgs,
    decided: Instant,
    taken: TakenOver,
) -> Keeper {
    match taken.commit {
        Some(id) => output::say(&format!(
            "taking over with epoch {} in term {}",
            id.epoch, taken.term
        )),
        None => output::say(&format!(
            "taking over with nothing, as no commit was received, in term {}",
            taken.term
        )),
    }
    let mut keeper = Keeper::new(keeper);
    let why = taken
        .no_arena
        .unwrap_or_else(|| "there is no module here".into());
    keeper.take_over(decided, taken.arena.ok_or(why));
    program.take_over(taken.term);
    keeper
}

fn listen(address: &str, security: &Security) -> anyhow::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .with_context(|| format!("{address} is no address to listen on: write HOST:PORT"))?
        .collect();
    let all_here = addresses
        .iter()
        .all(|address| address.ip().to_canonical().is_loopback());
    if matches!(security, Security::PlainOnLoopback) && !all_here {
        return Err(anyhow!(
            "--plain is for processes of this host alone, and {address} can be reached by others: listen on 127.0.0.1 or [::1], or use --pki"
        ));
    }
    TcpListener::bind(addresses.as_slice())
        .with_context(|| format!("cannot listen on {address}: another may do so already"))
}

struct Waiting<'a> {
    spare: Spare,
    listener: TcpListener,
    security: Security,
    socket: SpareSocket,
    signals: &'a Signals,
    candidacy: Option<&'a Candidacy>,
    about: About,
}

/// What it tells of itself to whoever looks.
struct About {
    service: String,
    node: String,
    dir: PathBuf,
}

fn told(about: &About, status: &SpareStatus) -> Status {
    let epoch = |id: Option<CommitId>| id.map(|id| id.epoch);
    let durable = epoch(status.durable).unwrap_or(0);
    let peers = status.primary.iter().map(|primary| Peer {
        node: primary.node.clone(),
        address: primary.address.clone(),
        connected: true,
        durable,
        applied: epoch(status.applied).unwrap_or(0),
        // How many commits lie between is for the primary to tell.
        lag_epochs: u64::from(primary.newest > durable),
        bytes: status.received_bytes,
        ..Peer::default()
    });
    Status {
        pid: std::process::id(),
        role: "spare".into(),
        service: about.service.clone(),
        node: about.node.clone(),
        term: status.term,
        dir: about.dir.clone(),
        epoch: epoch(status.durable),
        peers: peers.collect(),
    }
}

impl Waiting<'_> {
    /// Serves links until it is told to take over, or to stop.
    fn run(self) -> anyhow::Result<End> {
        let Waiting {
            spare,
            listener,
            security,
            socket,
            signals,
            candidacy,
            about,
        } = self;
        listener.set_nonblocking(true)?;
        let begun = Instant::now();
        let mut heard: Option<Instant> = None;
        let mut file = StatusFile::new();
        let handed_over = Arc::new(Event::new()?);
        let spare = Arc::new(spare);
        let security = Arc::new(security);
        let links = Arc::new(AtomicUsize::new(0));
        let (decided, question) = loop {
            let fds = [
                signals.as_fd(),
                listener.as_fd(),
                socket.as_fd(),
                handed_over.as_fd(),
                candidacy.map_or(handed_over.as_fd(), Candidacy::won),
            ];
            let [signalled, _, _, over, won] = wait_readable(fds, LOOK)?;
            let status = spare.status();
            file.publish(|| told(&about, &status));
            heard = status.primary.as_ref().map(|primary| primary.heard).or(heard);
            if signalled {
                match signals.next(Some(Duration::ZERO))? {
                    Some(arrival)
                        if matches!(
                            arrival.signal,
                            Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGHUP
                        ) =>
                    {
                        return Ok(End::Stopped);
                    }
                    _ => {}
                }
            }
            // Where etcd decides, it does so as soon as the program has ended there.
            if won || over && candidacy.is_none() {
                break (Instant::now(), None);
            }
            if let Some(question) = socket.question()? {
                match answer(&question, &status, begun, heard, candidacy.is_some()) {
                    Ok(answer) => question.answer(&answer),
                    Err(Promote) => break (Instant::now(), Some(question)),
                }
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                // Whatever it is, it concerns the one who called.
                Err(_) => continue,
            };
            if links.fetch_add(1, Ordering::AcqRel) >= LINKS_MAX {
                links.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (serving, security) = (Arc::clone(&spare), Arc::clone(&security));
            let (over, count) = (Arc::clone(&handed_over), Arc::clone(&links));
            let spawned = thread::spawn("ckpt-spare", move || {
                serve(&serving, stream, &security, &over);
                drop(serving);
                count.fetch_sub(1, Ordering::AcqRel);
            });
            if let Err(error) = spawned {
                links.fetch_sub(1, Ordering::AcqRel);
                output::say(&format!("cannot serve a link: {error}"));
            }
        };
        drop(listener);
        let term = candidacy.and_then(Candidacy::term);
        let taken = spare.take_over(term.unwrap_or(0))?;
        if let Some(question) = question {
            question.answer(&json!({
                "term": taken.term,
                "epoch": taken.commit.map(|id| id.epoch),
                "heard_ns": heard.map(|heard| heard.elapsed().as_nanos() as u64),
            }));
        }
        Ok(End::TakeOver { decided, taken })
    }
}

/// Serves one link, in a thread of its own.
fn serve(spare: &Spare, stream: std::net::TcpStream, security: &Security, handed_over: &Event) {
    let link = match Link::accept(stream, security, HANDSHAKE_MAX) {
        Ok(link) => link,
        Err(error) => return output::say(&format!("no link: {error}")),
    };
    let who = match link.peer() {
        Some(peer) => format!("{} ({})", peer.node, link.address()),
        None => link.address().to_owned(),
    };
    output::say(&format!("{who} is connected"));
    let ended = spare.serve(link);
    match ended.why {
        // It says so itself when it has.
        Why::HandOver => handed_over.set(),
        _ => output::say(&ended.to_string()),
    }
}

/// It shall take over.
struct Promote;

fn answer(
    question: &Question,
    status: &SpareStatus,
    begun: Instant,
    heard: Option<Instant>,
    etcd: bool,
) -> Result<Value, Promote> {
    match question.text.as_str() {
        "status" => Ok(json(status, begun, heard)),
        "promote" | "promote force" if etcd => Ok(json!({ "refused":
            "etcd decides here: the spare takes over by itself when the primary's lease has run out" })),
        "promote" => match &status.primary {
            None => Err(Promote),
            Some(primary) => Ok(json!({ "refused": format!(
                "the primary, {} ({}), is connected and was heard of {} ago, so it lives: end it, or \
                 move its program with `ckptctl migrate`; --force takes over all the same",
                primary.node,
                primary.address,
                figures::duration(primary.heard.elapsed().as_nanos() as u64)
            ) })),
        },
        "promote force" => Err(Promote),
        _ => Ok(json!({ "refused": "the spare does not know what is asked: use the same version of ckptctl" })),
    }
}

/// What is told of a spare.
fn json(status: &SpareStatus, begun: Instant, heard: Option<Instant>) -> Value {
    let ns = |time: Instant| time.elapsed().as_nanos() as u64;
    json!({
        "term": status.term,
        "epoch": status.durable.map(|id| id.epoch),
        "applied": status.applied.map(|id| id.epoch),
        "no_arena": status.no_arena,
        "records": status.records,
        "received_bytes": status.received_bytes,
        "up_ns": ns(begun),
        "heard_ns": heard.map(ns),
        "primary": status.primary.as_ref().map(|primary| json!({
            "node": primary.node,
            "address": primary.address,
            "newest": primary.newest,
        })),
    })
}
