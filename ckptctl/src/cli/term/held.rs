// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A term that this process has.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use ckptctl::sys::clock::since_boot_ns;
use ckptctl::sys::event::Event;
use ckptctl::sys::event::first_readable;
use ckptctl::sys::lease_page::LeaseWriter;
use ckptctl::sys::thread;

use super::Config;
use super::State;
use super::TermError;
use super::config::check_name;
use super::gateway::Gateway;
use super::state::Keys;
use super::store::PATIENCE;
use super::wire::Do;
use super::wire::If;

/// A term that this process has, and whose lease a thread renews.
///
/// Outputs may be released while [`is_valid`](Held::is_valid) says so. It says no when etcd could not be
/// asked for too long, and yes again when the lease could be renewed after all: nobody else had a term in between.
/// When somebody had, the term is over for good and [`lost`](Held::lost) is readable.
///
/// Dropped, it ends like a process that was killed: the lease runs out.
#[derive(Debug)]
pub struct Held {
    term: Arc<Term>,
    /// For what the caller asks.
    asking: Gateway,
    renewing: Option<JoinHandle<()>>,
}

/// What the renewing thread and the callers share.
#[derive(Debug)]
struct Term {
    config: Config,
    keys: Keys,
    number: u64,
    /// By CLOCK_BOOTTIME, before the term was taken. 0: not known.
    began_ns: u64,
    /// The value of the lease key while it is ours. No two terms have the same.
    token: String,
    /// For the renewals alone.
    gateway: Gateway,
    /// By CLOCK_BOOTTIME. 0: not yet, or not any more.
    valid_until_ns: AtomicU64,
    /// As this process has last written or read it. Locked before `shown`.
    state: Mutex<State>,
    /// Why the last renewal failed, if it did.
    trouble: Mutex<Option<String>>,
    /// What tells the program. Locked while `valid_until_ns` changes, so that both say the same.
    shown: Mutex<Shown>,
    /// The term is over.
    lost: Event,
    /// The thread is to end.
    stop: Event,
}

#[derive(Debug)]
struct Shown {
    page: Option<LeaseWriter>,
    /// Why the term is over, if it is.
    over: Option<String>,
}

impl Held {
    /// For a term that was taken: the lease key has `token`. `began_ns` is the instant before the
    /// lease that it is bound to was asked for; `None` when that is not known.
    pub(super) fn begin(
        config: &Config,
        token: &str,
        state: State,
        began_ns: Option<u64>,
    ) -> Result<Held, TermError> {
        let event = || Event::new().map_err(system("make an event"));
        let term = Arc::new(Term {
            config: config.clone(),
            keys: Keys::of(&config.service),
            number: state.term,
            began_ns: began_ns.unwrap_or(0),
            token: token.into(),
            gateway: Gateway::new(config, config.answer())?,
            valid_until_ns: AtomicU64::new(0),
            state: Mutex::new(state),
            trouble: Mutex::new(None),
            shown: Mutex::new(Shown {
                page: None,
                over: None,
            }),
            lost: event()?,
            stop: event()?,
        });
        if let Some(began_ns) = began_ns {
            term.extend(began_ns);
        }
        let same = Arc::clone(&term);
        let renewing = thread::spawn("ckpt-term", move || same.keep_renewing(began_ns));
        Ok(Held {
            term,
            asking: Gateway::new(config, PATIENCE)?,
            renewing: Some(renewing.map_err(system("start a thread"))?),
        })
    }

    /// The number of the term.
    pub fn term(&self) -> u64 {
        self.term.number
    }

    /// An instant before the term began, by CLOCK_BOOTTIME in nanoseconds; 0 when an answer of etcd's was
    /// lost. No earlier term is valid from then on, by the clock of its own machine.
    #[allow(dead_code, reason = "tests/terms.rs looks at it")]
    pub fn began_ns(&self) -> u64 {
        self.term.began_ns
    }

    /// Whether outputs may be released now. They must be on their way within
    /// [`Config::margin`].
    #[allow(dead_code, reason = "tests/terms.rs looks at it")]
    pub fn is_valid(&self) -> bool {
        // Without a clock nothing is.
        since_boot_ns().is_ok_and(|now| now < self.valid_until_ns())
    }

    /// Until when the term is valid at least, by CLOCK_BOOTTIME in nanoseconds; 0 when it is not.
    pub fn valid_until_ns(&self) -> u64 {
        self.term.valid_until_ns.load(Ordering::Relaxed)
    }

    /// Readable when the term is over for good.
    pub fn lost(&self) -> BorrowedFd<'_> {
        self.term.lost.as_fd()
    }

    /// Why the term is over, if it is.
    pub fn why_lost(&self) -> Option<TermError> {
        let over = lock(&self.term.shown).over.clone();
        over.map(|why| self.term.fenced(why))
    }

    /// Why the lease could not be renewed when that was tried last, if it could not.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.term.trouble).clone()
    }

    /// Tells a program through a page of this term, from now on and until the term ends.
    pub fn show_in(&self, mut page: LeaseWriter) {
        let mut shown = lock(&self.term.shown);
        match shown.over {
            None => page.extend(self.valid_until_ns()),
            Some(_) => page.end(),
        }
        shown.page = Some(page);
    }

    /// The nodes that have everything that was ever acknowledged as replicated, as this process
    /// has last written them.
    pub fn in_sync(&self) -> Vec<String> {
        lock(&self.term.state).in_sync.clone()
    }

    /// Changes which nodes have everything that was ever acknowledged as replicated.
    ///
    /// A node that is added must have it all before, and from this call on nothing is acknowledged
    /// without it. Without a node that is removed nothing is acknowledged before this has returned.
    /// So after an error, when both may be, what is acknowledged must be on the nodes of both.
    ///
    /// The primary itself counts as any other: it may stay in while what is acknowledged is
    /// durable in its own chain as well.
    ///
    /// # Errors
    ///
    /// [`TermError::Fenced`] when the term is over.
    pub fn set_in_sync(&self, nodes: &[&str]) -> Result<(), TermError> {
        let mut in_sync: Vec<String> = nodes.iter().map(|&node| node.into()).collect();
        in_sync.sort();
        in_sync.dedup();
        for node in &in_sync {
            check_name("node", node)?;
        }
        if in_sync.is_empty() {
            return Err(TermError::Invalid(
                "somebody has to be in sync: nobody could ever be the primary again".into(),
            ));
        }
        // Held for all of it, so that the changes of this process are one after the other.
        let mut known = lock(&self.term.state);
        loop {
            let wanted = State {
                in_sync: in_sync.clone(),
                ..known.clone()
            };
            let key = &self.term.keys.state;
            let outcome = self.asking.transaction(
                &[If::Revision(key, known.revision)],
                &[Do::Put(key, &wanted.to_json())],
                &[Do::Get(key)],
            )?;
            if outcome.done {
                *known = State {
                    revision: outcome.revision,
                    ..wanted
                };
                return Ok(());
            }
            let [Some(pair)] = &outcome.read[..] else {
                return Err(self.term.end("its state was removed".into()));
            };
            let state = State::from_json(key, &pair.value, pair.revision)?;
            self.term.check_own(&state)?;
            // An earlier request of ours whose answer was lost; or this one, repeated.
            *known = state;
            if known.in_sync == in_sync {
                return Ok(());
            }
        }
    }

    /// Ends the term, so that another node can begin the next at once. The state stays.
    ///
    /// Nothing may be released any more when this is called: there is no margin for what is on its way.
    pub fn resign(mut self) -> Result<(), TermError> {
        self.stop_renewing();
        let lease = &self.term.keys.lease;
        // Without this transaction the lease would run out. If another has the key already it is not touched.
        self.asking
            .transaction(
                &[If::Is(lease, &self.term.token)],
                &[Do::Remove(lease)],
                &[],
            )
            .map(|_| ())
    }

    /// Behind this, this process is not valid and does nothing to become so.
    fn stop_renewing(&mut self) {
        self.term.stop.set();
        self.term.gateway.interrupt();
        if let Some(thread) = self.renewing.take() {
            // A panic has been reported where it was.
            let _ = thread.join();
        }
        self.term.conclude("it was given up".into());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop_renewing();
    }
}

impl Term {
    /// Renews until the term is over. `began_ns` is of the renewal before.
    fn keep_renewing(&self, began_ns: Option<u64>) {
        let renewal_ns = nanoseconds(self.config.renewal());
        let mut next_ns = began_ns.map_or(0, |began_ns| began_ns + renewal_ns);
        loop {
            let wait = now_ns().map(|now| next_ns.saturating_sub(now));
            let wait = wait.map_or(self.config.pause(), Duration::from_nanos);
            match first_readable(&[self.stop.as_fd()], Some(wait)) {
                Ok(None) => {}
                // Without being able to wait there is no renewing: the validity ends by itself.
                Ok(Some(_)) | Err(_) => return,
            }
            let trouble = match self.renew() {
                Ok(began_ns) => {
                    next_ns = began_ns + renewal_ns;
                    None
                }
                Err(TermError::Fenced { .. }) => return,
                Err(error) => {
                    next_ns = now_ns().unwrap_or(0) + nanoseconds(self.config.pause());
                    Some(error.to_string())
                }
            };
            *lock(&self.trouble) = trouble;
        }
    }

    /// Binds the lease key to a new lease. Returns the instant from which that lasts at least.
    fn renew(&self) -> Result<u64, TermError> {
        let began_ns = now_ns()?;
        let lease = self.gateway.grant(self.config.ttl)?;
        let key = &self.keys.lease;
        let bind = Do::PutLeased(key, &self.token, lease);
        let outcome = self.gateway.transaction(
            &[If::Is(key, &self.token)],
            &[bind],
            &[Do::Get(&self.keys.state), Do::Get(key)],
        )?;
        if !outcome.done {
            self.return_to(&outcome.read, bind)?;
        }
        self.extend(began_ns);
        Ok(began_ns)
    }

    /// Binds the lease key anew after it was lost, if nobody has begun another term: the state is
    /// that of this one still.
    fn return_to(&self, read: &[Option<super::wire::Pair>], bind: Do<'_>) -> Result<(), TermError> {
        let [Some(state), lease] = read else {
            return Err(self.end("its state was removed".into()));
        };
        let state = State::from_json(&self.keys.state, &state.value, state.revision)?;
        self.check_own(&state)?;
        if lease.is_some() {
            return Err(self.end("its lease key was overwritten".into()));
        }
        let conditions = [
            If::Absent(&self.keys.lease),
            If::Revision(&self.keys.state, state.revision),
        ];
        match self.gateway.transaction(&conditions, &[bind], &[])?.done {
            true => Ok(()),
            false => Err(TermError::NoAnswer("somebody else was quicker".into())),
        }
    }

    /// Whether a state is that of this term. If not, the term is over.
    fn check_own(&self, state: &State) -> Result<(), TermError> {
        match state.term == self.number && state.primary == self.config.node {
            true => Ok(()),
            false => {
                let (term, primary) = (state.term, &state.primary);
                Err(self.end(format!("{primary} has begun term {term}")))
            }
        }
    }

    /// A lease is there that was asked for behind this instant: valid until its end, less the margin.
    fn extend(&self, began_ns: u64) {
        let lasts = self.config.ttl - self.config.margin();
        let until_ns = began_ns + nanoseconds(lasts);
        let mut shown = lock(&self.shown);
        if shown.over.is_some() {
            return;
        }
        self.valid_until_ns.fetch_max(until_ns, Ordering::Relaxed);
        if let Some(page) = &mut shown.page {
            page.extend(until_ns);
        }
    }

    /// The term is over, because of others.
    fn end(&self, why: String) -> TermError {
        self.conclude(why.clone());
        self.lost.set();
        self.fenced(why)
    }

    /// The term is over.
    fn conclude(&self, why: String) {
        let mut shown = lock(&self.shown);
        shown.over.get_or_insert(why);
        self.valid_until_ns.store(0, Ordering::Relaxed);
        if let Some(page) = &mut shown.page {
            page.end();
        }
    }

    fn fenced(&self, why: String) -> TermError {
        TermError::Fenced {
            service: self.config.service.clone(),
            term: self.number,
            why,
        }
    }
}

/// A value for the lease key that nobody else has ever.
pub(super) fn new_token(config: &Config) -> Result<String, TermError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| TermError::System {
        doing: "make a random number".into(),
        source: error.into(),
    })?;
    let random = u128::from_ne_bytes(random);
    Ok(format!("{} {random:032x}", config.node))
}

/// CLOCK_BOOTTIME.
pub(super) fn now_ns() -> Result<u64, TermError> {
    since_boot_ns().map_err(system("read the clock"))
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// What a thread that panicked has left is as good as ever: each change is one store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn system(doing: &'static str) -> impl Fn(std::io::Error) -> TermError {
    move |source| TermError::System {
        doing: doing.into(),
        source,
    }
}
