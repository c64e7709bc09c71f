// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Output commit: what a program wants to say waits until what it says cannot be taken back.
//!
//! A reply to a client, a line on a terminal, an order to a machine depends on state. When the
//! program dies before that state is durable, it goes on from an earlier one and knows nothing of
//! what it said. So it hands its output to [`Outputs`], with the epoch that it depends on, and
//! says it when it gets it back.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use crate::context::Callers;
use crate::context::Context;
use crate::error::Error;
use crate::options;
use crate::options::WaitFor;
use crate::saving::Queue;
use crate::saving::watch::Durable;
use crate::saving::watch::Watch;
use crate::sys::event::Event;
use crate::sys::lease_page::LeasePage;

/// Outputs of a program that wait until they are safe. May be used from any thread; a clone is
/// the same outputs. Does not keep the context open.
///
/// Outputs come back in the order in which they were given, each when what it depends on, and
/// what those before it depend on, is durable and hooks have been told; with
/// [`WaitFor::Replicated`] when it is on another host as well. An epoch that could not be
/// saved is durable with the first later one that is, as with [`Context::wait`]: an error of a
/// commit loses no output.
///
/// # Examples
///
/// A thread answers, another works:
///
/// ```no_run
/// # use ckptctl::{Context, Options, Outputs, outputs::Released};
/// # fn answer(reply: String) {}
/// # fn main() -> Result<(), ckptctl::Error> {
/// let context = Context::open(Options::new())?;
/// let outputs = Outputs::new(&context, 1000)?;
/// let replies = outputs.clone();
/// let answering = std::thread::spawn(move || {
///     while let Ok(Some(Released::Safe(reply))) = replies.released(None) {
///         answer(reply);
///     }
/// });
/// // Change the state, then:
/// outputs.hold(0, "done".to_owned())?;
/// context.commit()?;
/// context.close()?;
/// answering.join().unwrap();
/// # Ok(())
/// # }
/// ```
pub struct Outputs<T: Send + 'static> {
    held: Arc<Held<T>>,
    queue: Arc<Queue>,
    callers: Arc<Callers>,
}

/// An output that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released<T> {
    /// What it depends on is durable: say it.
    Safe(T),
    /// What it depends on was lost: the context was closed when it was not durable, or the
    /// program's state was taken back. Do not say it.
    Lost(T),
}

/// An output that was not taken.
#[derive(Debug)]
pub struct Refused<T> {
    /// The output.
    pub output: T,
    /// Why.
    pub error: Error,
}

impl<T> From<Refused<T>> for Error {
    fn from(refused: Refused<T>) -> Error {
        refused.error
    }
}

/// How often it is looked whether a host that may not say anything may again.
const SILENT_LOOK: Duration = Duration::from_millis(20);

/// What an output depends on.
#[derive(Clone, Copy)]
enum Needs {
    /// An epoch that was closed.
    Epoch(u64),
    /// What was there before this attempt to close one.
    Closing(u64),
}

impl Needs {
    fn are_met(&mut self, now: Durable, wait_for: WaitFor) -> bool {
        if let Needs::Closing(attempt) = *self {
            if attempt > now.closing {
                return false;
            }
            // Some epoch up to this one has it.
            *self = Needs::Epoch(now.epoch);
        }
        match (*self, wait_for) {
            (Needs::Epoch(epoch), WaitFor::Durable) => epoch <= now.epoch,
            (Needs::Epoch(epoch), WaitFor::Replicated) => {
                epoch <= now.epoch && epoch <= now.replicated
            }
            (Needs::Closing(_), _) => false,
        }
    }
}

/// What clones share.
///
/// The queue's lock may be taken under that of the list. The event is set when and only when
/// there is something to be taken, or the end.
struct Held<T> {
    list: Mutex<List<T>>,
    changed: Condvar,
    event: Event,
    limit: usize,
    wait_for: WaitFor,
    /// Tells whether this host may say anything.
    lease: Option<LeasePage>,
}

struct List<T> {
    waiting: VecDeque<(Needs, T)>,
    released: VecDeque<Released<T>>,
    ended: bool,
}

impl<T> List<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.released.len()
    }
}

impl<T> Held<T> {
    fn lock(&self) -> MutexGuard<'_, List<T>> {
        // Nothing under this lock can panic halfway.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all waiting outputs from the front go for which this holds.
    fn release(&self, list: &mut List<T>, now: Durable) {
        let mut waiting = list.waiting.iter_mut();
        let safe = waiting.position(|(needs, _)| !needs.are_met(now, self.wait_for));
        let safe = safe.unwrap_or(list.waiting.len());
        let safe = list.waiting.drain(..safe);
        list.released
            .extend(safe.map(|(_, output)| Released::Safe(output)));
        self.announce(list);
    }

    fn lose(&self, list: &mut List<T>) {
        let lost = list.waiting.drain(..);
        list.released
            .extend(lost.map(|(_, output)| Released::Lost(output)));
        self.announce(list);
    }

    /// Whether another host may be the primary by now.
    fn is_silent(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| !lease.is_valid())
    }

    fn announce(&self, list: &List<T>) {
        if list.ended || !list.released.is_empty() {
            self.event.set();
            self.changed.notify_all();
        }
    }
}

impl<T: Send> Watch for Held<T> {
    fn durable(&self, now: Durable) {
        self.release(&mut self.lock(), now);
    }

    fn taken_back(&self) {
        self.lose(&mut self.lock());
    }

    fn ended(&self) {
        let list = &mut *self.lock();
        list.ended = true;
        self.lose(list);
    }
}

impl<T: Send + 'static> Outputs<T> {
    /// For the outputs of this context, `limit` at most, those that are released and not taken
    /// among them. There may be several for one context, each with its own order.
    pub fn new(context: &Context, limit: usize) -> Result<Outputs<T>, Error> {
        context.check_process()?;
        if limit == 0 {
            return Err(Error::Invalid(
                "a limit of 0 outputs leaves no room for any: allow some".into(),
            ));
        }
        let event = Event::new().map_err(|source| Error::System {
            doing: "make a descriptor for outputs",
            source,
        })?;
        let (queue, callers) = context.for_outputs();
        let held = Arc::new(Held {
            list: Mutex::new(List {
                waiting: VecDeque::new(),
                released: VecDeque::new(),
                ended: false,
            }),
            changed: Condvar::new(),
            event,
            limit,
            wait_for: context.wait_for(),
            lease: options::lease()?,
        });
        let watch: Weak<dyn Watch> = Arc::<Held<T>>::downgrade(&held);
        queue.watch(watch);
        Ok(Outputs {
            held,
            queue,
            callers,
        })
    }

    /// Holds an output until an epoch is durable: one that was committed, or 0 for the next.
    ///
    /// With 0 it depends on everything that the calling thread has written so far, whether
    /// or not that is committed. It is released with the first commit that *begins* after this
    /// call and becomes durable: one that another thread is about to make may be too early to
    /// have what was just written, and is not taken for it. A commit that fails, because a hook
    /// refuses or the disk is full, leaves it to the next one.
    ///
    /// Does not wait, and may be called from a hook.
    ///
    /// # Errors
    ///
    /// [`Error::OutputsFull`] beyond the limit: it does not wait for room, since who holds an
    /// output is often the one who would make room. [`Error::Invalid`] for an epoch that was not
    /// committed yet; [`Error::OutputsEnded`] when the context is closed. The output comes back
    /// with it.
    pub fn hold(&self, epoch: u64, output: T) -> Result<(), Refused<T>> {
        if let Err(error) = self.callers.check_process() {
            return Err(Refused { output, error });
        }
        let list = &mut *self.held.lock();
        let error = if list.ended {
            Error::OutputsEnded
        } else if list.len() >= self.held.limit {
            Error::OutputsFull(self.held.limit)
        } else if epoch > self.queue.closed() {
            Error::Invalid(format!(
                "epoch {epoch} was not committed yet: hold the output for one that was, or for 0, the next"
            ))
        } else {
            let needs = match epoch {
                0 => Needs::Closing(self.queue.next_closing()),
                epoch => Needs::Epoch(epoch),
            };
            list.waiting.push_back((needs, output));
            self.held.release(list, self.queue.durable_so_far());
            return Ok(());
        };
        Err(Refused { output, error })
    }

    /// Takes the next output that is released, waiting for it: `None` when the time is over,
    /// which is at once with [`Duration::ZERO`]. Without a timeout it waits as long as it takes.
    ///
    /// When the context is closed, what was released is still to be had, then what was lost.
    ///
    /// # Errors
    ///
    /// [`Error::OutputsEnded`] when the context is closed and there are no more;
    /// [`Error::FromHook`] when it would have to wait in a hook.
    pub fn released(&self, timeout: Option<Duration>) -> Result<Option<Released<T>>, Error> {
        self.callers.check_process()?;
        let now = timeout == Some(Duration::ZERO);
        if !now {
            self.callers.refuse_in_hooks("waiting for an output")?;
        }
        // A time that is too far away to be told is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut list = self.held.lock();
        // Who has just waited for an epoch may be faster than the news of it.
        self.held.release(&mut list, self.queue.durable_so_far());
        loop {
            if self.held.is_silent() {
                // Until it is known again that nobody else answers for this one.
                if now {
                    return Ok(None);
                }
                let waited = self.held.changed.wait_timeout(list, SILENT_LOOK);
                list = waited.unwrap_or_else(PoisonError::into_inner).0;
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
                continue;
            }
            if let Some(output) = list.released.pop_front() {
                if list.released.is_empty() && !list.ended {
                    self.held.event.clear();
                }
                return Ok(Some(output));
            }
            if list.ended {
                return Err(Error::OutputsEnded);
            }
            let changed = &self.held.changed;
            list = match deadline {
                None => changed.wait(list).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = changed.wait_timeout(list, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Refuses in a child of the process that opened the context.
    pub fn check_process(&self) -> Result<(), Error> {
        self.callers.check_process()
    }

    /// Outputs that are held, or released and not taken.
    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends these outputs as closing the context would: those that are not released are lost,
    /// who waits for one is woken.
    pub fn end(&self) {
        self.held.ended();
    }
}

impl<T: Send + 'static> Clone for Outputs<T> {
    fn clone(&self) -> Outputs<T> {
        Outputs {
            held: Arc::clone(&self.held),
            queue: Arc::clone(&self.queue),
            callers: Arc::clone(&self.callers),
        }
    }
}

/// A descriptor for an event loop: readable as long as [`Outputs::released`] has something to
/// give, or the end to tell. It is not to be read from.
impl<T: Send + 'static> AsFd for Outputs<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.event.as_fd()
    }
}
