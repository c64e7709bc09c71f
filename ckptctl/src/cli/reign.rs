// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host that is the primary of a service as long as etcd says so: its program knows it by a page,
//! and is ended before anybody else can be the primary.

use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use ckptctl::options;
use ckptctl::replication::note_term;
use ckptctl::sys::clock::since_boot_ns;
use ckptctl::sys::event::Event;
use ckptctl::sys::event::first_readable;
use ckptctl::sys::lease_page;
use ckptctl::sys::lease_page::LeaseWriter;
use ckptctl::sys::signals;
use ckptctl::sys::signals::Signals;
use ckptctl::sys::thread;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::exit::Behind;
use super::output;
use super::program::Program;
use super::term::Config;
use super::term::Held;
use super::term::Outcome;
use super::term::State;
use super::term::Store;
use super::term::Tls;
use super::term::campaign_in_sync;
use super::times;

/// Where it is decided who is the primary.
#[derive(clap::Args, Clone, Debug)]
pub struct EtcdArgs {
    /// Let etcd decide who is the primary; the addresses of its members, http://HOST:2379, with commas
    /// between them
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,
    /// With --etcd: how long the primary may be unable to reach etcd until another can take its
    /// place; whole seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse)]
    ttl: Duration,
    /// With --etcd: the authority that etcd's certificate is of
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// With --etcd: this host's certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// With --etcd: the key of that
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
}

impl EtcdArgs {
    /// Whether etcd decides.
    pub fn is_wanted(&self) -> bool {
        !self.etcd.is_empty()
    }

    /// What is asked where, if anything is.
    pub fn config(&self, service: &str, node: &str) -> Option<Config> {
        (!self.etcd.is_empty()).then(|| Config {
            endpoints: self.etcd.clone(),
            service: service.to_owned(),
            node: node.to_owned(),
            ttl: self.ttl,
            tls: self.etcd_ca.clone().map(|ca| Tls {
                ca,
                identity: self.etcd_cert.clone().zip(self.etcd_key.clone()),
            }),
        })
    }
}

/// The first primary of a service, or the next; `None` when a signal came first.
pub fn become_primary(config: &Config, signals: &Signals) -> anyhow::Result<Option<Held>> {
    let store = Store::new(config)?;
    let Some(state) = store.state()? else {
        output::say(&format!("founding the service {} in etcd", config.service));
        return Ok(Some(store.found()?));
    };
    refuse_behind(config, &state)?;
    if state.primary != config.node {
        output::say(&format!(
            "{} is the primary in term {}: waiting until its lease has run out",
            state.primary, state.term
        ));
    }
    let trouble = |error: &_| output::say(&format!("{error}; trying again"));
    match campaign_in_sync(config, signals, trouble)? {
        Outcome::Won(held) => Ok(Some(held)),
        Outcome::NotInSync(state) => {
            refuse_behind(config, &state)?;
            bail!(
                "the state of {} in etcd changes all the time",
                config.service
            )
        }
        Outcome::Stopped => Ok(None),
    }
}

/// Refuses a node that does not have everything that was ever acknowledged.
fn refuse_behind(config: &Config, state: &State) -> anyhow::Result<()> {
    match state.is_in_sync(&config.node) {
        true => Ok(()),
        false => Err(Behind(format!(
            "{} may not be the primary of {}, as it does not have everything that was acknowledged; {} \
             does. Start `ckptctl spare` here",
            config.node,
            config.service,
            state.in_sync.join(" and ")
        ))
        .into()),
    }
}

/// A term, while its program runs.
pub struct Reign {
    held: Arc<Held>,
    fence: Arc<Fence>,
    stop: Arc<Event>,
    thread: Option<JoinHandle<()>>,
}

/// The program that is ended when the term is.
#[derive(Default)]
pub struct Fence {
    state: Mutex<Fenced>,
}

#[derive(Default)]
struct Fenced {
    pid: Option<Pid>,
    /// Why there is no term any more.
    why: Option<String>,
}

impl Fence {
    fn lock(&self) -> std::sync::MutexGuard<'_, Fenced> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program runs; false when it must not.
    pub fn guard(&self, pid: Pid) -> bool {
        let mut state = self.lock();
        if state.why.is_some() {
            let _ = signals::send(pid, Signal::SIGKILL);
            return false;
        }
        state.pid = Some(pid);
        true
    }

    /// Takes the ends of programs, while none of them can be ended here.
    pub fn while_reaping<T>(&self, reap: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.pid = None;
        let reaped = reap();
        drop(state);
        reaped
    }

    /// Why there is no term any more, if there is none.
    pub fn why(&self) -> Option<String> {
        self.lock().why.clone()
    }

    fn fall(&self, why: String) {
        let mut state = self.lock();
        if let Some(pid) = state.pid.take() {
            let _ = signals::send(pid, Signal::SIGKILL);
        }
        state.why.get_or_insert(why);
    }
}

impl Reign {
    /// Begins to watch a term, and tells the program of it.
    pub fn begin(held: Held, dir: &Path, program: &mut Program) -> anyhow::Result<Reign> {
        note_term(dir, held.term()).context("cannot note the term")?;
        let path = dir.join(lease_page::FILE_NAME);
        let page = LeaseWriter::in_new_file(&path, held.term())
            .with_context(|| format!("cannot make {}", path.display()))?;
        held.show_in(page);
        let path = std::path::absolute(&path)?;
        program.set(options::LEASE, path);
        let held = Arc::new(held);
        let fence = Arc::new(Fence::default());
        let stop = Arc::new(Event::new()?);
        let (watched, falling, stopped) =
            (Arc::clone(&held), Arc::clone(&fence), Arc::clone(&stop));
        let thread = thread::spawn("ckpt-fence", move || watch(&watched, &falling, &stopped))?;
        Ok(Reign {
            held,
            fence,
            stop,
            thread: Some(thread),
        })
    }

    /// Its number.
    pub fn term(&self) -> u64 {
        self.held.term()
    }

    /// The term itself.
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// What the supervisor asks.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The program has ended by itself: another may begin at once.
    pub fn resign(mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(held) = Arc::into_inner(self.held) {
            if let Err(error) = held.resign() {
                output::say(&format!(
                    "{error}; another can begin when the lease has run out"
                ));
            }
        }
    }
}

/// Ends the program when the term is over, or cannot be told not to be.
fn watch(held: &Held, fence: &Fence, stop: &Event) {
    loop {
        let now = since_boot_ns().unwrap_or(u64::MAX);
        let left = held.valid_until_ns().saturating_sub(now);
        if left == 0 {
            let why = match (held.why_lost(), held.trouble()) {
                (Some(why), _) => why.to_string(),
                (None, Some(trouble)) => {
                    format!("the lease could not be renewed in time: {trouble}")
                }
                (None, None) => "the lease could not be renewed in time".into(),
            };
            return fence.fall(why);
        }
        let within = Some(Duration::from_nanos(left));
        match first_readable(&[stop.as_fd(), held.lost()], within) {
            Ok(Some(0)) => return,
            Ok(Some(_)) => {
                let why = held.why_lost().map(|why| why.to_string());
                return fence.fall(why.unwrap_or_else(|| "the term is over".into()));
            }
            // It may have been renewed meanwhile.
            Ok(None) => {}
            Err(error) => return fence.fall(format!("cannot watch the term: {error}")),
        }
    }
}
