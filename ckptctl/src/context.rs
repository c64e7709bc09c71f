// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A context: one arena, one chain, and what moves state between them.

mod adopting;
mod callers;
mod commit;
mod elsewhere;
mod opening;
mod rollback;
mod warm;

use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::arena::Arena;
use crate::arena::Heap;
use crate::arena::RegionSpec;
use crate::control::Control;
use crate::error::Error;
use crate::hooks::Hook;
use crate::hooks::Hooks;
use crate::hooks::When;
use crate::options::WaitFor;
use crate::safe_point::Inside;
use crate::safe_point::SafePoint;
use crate::safe_point::Threads;
use crate::saving::ChainEnd;
use crate::saving::Queue;
use crate::saving::Saving;
use crate::saving::Stats;
use crate::store::Identity;
use crate::store::Recovery;
use crate::sys::memory::PAGE;
use crate::warm::Supervisor;
pub(crate) use callers::Callers;
pub use commit::CommitReport;
pub use rollback::RollbackReport;

/// log2 of the bytes of a page.
const PAGE_SHIFT: u32 = PAGE.trailing_zeros();

/// An open context. May be used from any thread. A clone is the same context; it is closed with
/// the last of them.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
    /// None in what the library's own thread hands to hooks: a context that is being closed is
    /// not kept open by them.
    open: Option<Arc<Open>>,
}

/// Closes a context when it is dropped.
struct Open {
    shared: Arc<Shared>,
    /// What could not be saved has been told already.
    told: Mutex<bool>,
}

/// What all clones share, and the thread that saves.
///
/// # Locks
///
/// `turn` first, then `threads` is held, then `hooks`, or `inner` and then `chain_end`. The queue's
/// own lock may be taken under any of them, that of `callers` as well. Hooks before a commit run with
/// `turn` and `threads`, hooks behind one with `turn` or, in the library's own thread, without any.
struct Shared {
    inner: Mutex<Inner>,
    chain_end: Mutex<ChainEnd>,
    queue: Arc<Queue>,
    hooks: Mutex<Hooks>,
    /// Held by the thread that commits.
    turn: Mutex<()>,
    /// Threads that say when they work on the state.
    threads: Threads,
    callers: Arc<Callers>,
    worker: Mutex<Option<JoinHandle<()>>>,
    saving: Saving,
    dir: PathBuf,
    identity: Identity,
    /// Held to copy it.
    generation: Mutex<[u8; 16]>,
    restored: Option<u64>,
    recovery: Recovery,
    tracker: &'static str,
    control: Control,
    /// Who looks after the program, if somebody does.
    supervisor: Option<Supervisor>,
    /// In which term it has taken over, if it was started for that.
    term: Option<u64>,
    wait_for: WaitFor,
    /// The context was closed.
    closed: AtomicBool,
}

/// The arena as the library changes it.
struct Inner {
    arena: Arena,
    heap: Heap,
    known: rollback::Known,
    /// A rollback to this epoch failed halfway: only another one makes sense of the memory.
    undefined: Option<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock leaves nothing half done that the next user could not bear: the
    // arena's tables change field by field at the end, the writer undoes what it began.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// Refuses in a child of the process that opened it: what another thread of that process
    /// had locked then would stay locked, and the thread that saves is not there.
    pub fn check_process(&self) -> Result<(), Error> {
        self.shared.check_process()
    }

    fn inner(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        self.check_process()?;
        let inner = lock(&self.shared.inner);
        match inner.undefined {
            None => Ok(inner),
            Some(epoch) => Err(Error::Undefined {
                epoch,
                why: "it was not done again since".into(),
            }),
        }
    }

    /// Runs hooks, with the thread marked so that it cannot wait for itself.
    fn in_hooks<T>(&self, run: impl FnOnce() -> T) -> T {
        self.shared.callers.in_hooks(run)
    }

    /// True in a hook that this thread runs.
    pub fn in_hook(&self) -> bool {
        self.shared.callers.in_hook()
    }

    fn refuse_in_hooks(&self, what: &'static str) -> Result<(), Error> {
        self.shared.callers.refuse_in_hooks(what)
    }

    /// What outputs have to do with: commits on their way, and who may call.
    pub(crate) fn for_outputs(&self) -> (Arc<Queue>, Arc<Callers>) {
        let shared = &self.shared;
        (Arc::clone(&shared.queue), Arc::clone(&shared.callers))
    }

    /// Registers a hook behind those that are there.
    pub fn hook(&self, when: When, hook: Arc<Hook>) -> Result<(), Error> {
        self.refuse_in_hooks("registering a hook")?;
        lock(&self.shared.hooks).add(when, hook);
        Ok(())
    }

    /// Begins to work on the state in this thread, until the result is dropped: see
    /// [`SafePoint::enter`]. Makes no system call unless a commit is at work.
    pub fn enter(&self) -> Result<Inside, Error> {
        self.safe_point()?.inside()
    }

    /// Where this thread enters and leaves.
    pub fn safe_point(&self) -> Result<SafePoint, Error> {
        self.check_process()?;
        self.shared.threads.safe_point()
    }

    /// Waits until an epoch is durable, 0 for that of the last commit, and hooks have been told;
    /// with [`WaitFor::Replicated`] until it is on another host as well. `None` waits as long as it takes. An epoch that was given up is durable with the first
    /// later one that is, which has all that it had.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]; [`Error::NotDurable`] when it could not be saved: the next commit
    /// tries again; [`Error::Invalid`] when it was not committed yet; [`Error::FromHook`].
    pub fn wait(&self, epoch: u64, timeout: Option<Duration>) -> Result<(), Error> {
        self.refuse_in_hooks("waiting for an epoch")?;
        match self.shared.wait_for {
            WaitFor::Durable => self.shared.queue.wait(epoch, timeout),
            WaitFor::Replicated => self.shared.queue.wait_replicated(epoch, timeout),
        }
    }

    /// What is waited for before an epoch counts as safe.
    pub fn wait_for(&self) -> WaitFor {
        self.shared.wait_for
    }

    /// The last epoch that is safe: for which [`Context::wait`] would not wait, if there is one.
    pub fn safe(&self) -> Result<Option<u64>, Error> {
        let durable = self.durable()?;
        Ok(match self.shared.wait_for {
            WaitFor::Durable => durable,
            WaitFor::Replicated => durable
                .map(|epoch| epoch.min(self.shared.queue.durable_so_far().replicated))
                .filter(|epoch| *epoch > 0),
        })
    }

    /// Closes this clone. Waits until everything that was committed is durable, or cannot be.
    ///
    /// # Errors
    ///
    /// Why the last commit is not durable. It is closed all the same.
    pub fn close(self) -> Result<(), Error> {
        self.refuse_in_hooks("closing")?;
        let done = self.shared.queue.wait(0, None);
        if let (Err(_), Some(open)) = (&done, &self.open) {
            *lock(&open.told) = true;
        }
        done
    }

    /// Does something that may need memory to be charged; once more when the limit is reached
    /// while commits are on their way, whose snapshots are charged as well.
    fn charging<T>(&self, run: impl Fn(&mut Inner) -> Result<T, Error>) -> Result<T, Error> {
        let first = run(&mut *self.inner()?);
        let in_flight = self.shared.queue.stats().in_flight > 0;
        // A hook behind a commit would wait for itself.
        if !in_flight || !matches!(first, Err(Error::Memlock { .. })) || self.in_hook() {
            return first;
        }
        // Whether they could be saved is for others to be told.
        let _ = self.shared.queue.wait(0, None);
        run(&mut *self.inner()?)
    }

    /// Finds a region by its name, or makes it; returns its address. What is new is zeroed.
    pub fn region(&self, spec: &RegionSpec<'_>) -> Result<NonNull<u8>, Error> {
        self.charging(|inner| inner.arena.region(spec))
    }

    /// Makes a region at least `len_bytes` long. It keeps its address.
    pub fn grow_region(&self, name: &str, len_bytes: u64) -> Result<(), Error> {
        self.charging(|inner| inner.arena.grow(name, len_bytes))
    }

    /// Length of a region in bytes.
    pub fn region_len(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.inner()?.arena.region_len(name))
    }

    /// Allocates `size` bytes, above zero, in the arena, aligned to `align`, a power of two, and
    /// to 16.
    pub fn allocate(&self, size: usize, align: usize) -> Result<NonNull<u8>, Error> {
        if size == 0 || !align.is_power_of_two() {
            return Err(Error::Invalid(format!(
                "cannot allocate {size} bytes aligned to {align}: the size is above 0, the alignment a power of two"
            )));
        }
        self.charging(|inner| inner.heap.allocate(&mut inner.arena, size, align))
    }

    /// Makes a block `size` bytes long, above zero, perhaps elsewhere.
    pub fn reallocate(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<u8>, Error> {
        if size == 0 {
            return Err(Error::Invalid(
                "cannot make a block 0 bytes long: free it".into(),
            ));
        }
        self.charging(|inner| inner.heap.reallocate(&mut inner.arena, block, size))
    }

    /// Frees a block.
    pub fn free(&self, block: NonNull<u8>) -> Result<(), Error> {
        let inner = &mut *self.inner()?;
        inner.heap.free(&mut inner.arena, block)
    }

    /// The root pointer, if one was set.
    pub fn root(&self) -> Result<Option<NonNull<u8>>, Error> {
        let root = self.inner()?.arena.root();
        Ok(NonNull::new(root as *mut u8))
    }

    /// Sets the root pointer, which must be in the arena.
    pub fn set_root(&self, root: Option<NonNull<u8>>) -> Result<(), Error> {
        let root = root.map_or(0, |root| root.as_ptr() as u64);
        self.inner()?.arena.set_root(root)
    }

    /// The epoch that was restored, if one was.
    pub fn restored_epoch(&self) -> Option<u64> {
        self.shared.restored
    }

    /// The epoch of the last commit, durable or on its way to be, if there is one. What could
    /// not be saved does not count.
    pub fn epoch(&self) -> Result<Option<u64>, Error> {
        self.check_process()?;
        Ok(self.shared.queue.newest())
    }

    /// The last durable epoch of this state, if there is one.
    pub fn durable(&self) -> Result<Option<u64>, Error> {
        self.check_process()?;
        Ok(self.shared.queue.durable())
    }

    /// What commits have done and cost since it was opened.
    pub fn stats(&self) -> Result<Stats, Error> {
        let costs = self.inner()?.arena.snapshot_costs()?;
        Ok(Stats {
            copied_pages: costs.copied_pages,
            writer_waits: costs.writer_waits,
            ..self.shared.queue.stats()
        })
    }

    /// Whether somebody outside asks for a commit (`ckptctl commit`, `ckptctl pull`): a program
    /// that looks here now and then and commits at its next safe point answers. Costs one load.
    pub fn pending(&self) -> bool {
        self.shared.control.is_pending()
    }

    /// The word behind [`Context::pending`], which is not zero then. It is there until the
    /// context and all its clones are closed.
    pub fn pending_word(&self) -> &AtomicU32 {
        self.shared.control.pending()
    }

    /// When a commit returns.
    pub fn saving(&self) -> Saving {
        self.shared.saving
    }

    /// Random bytes, made anew each time a context is opened or goes back to an epoch.
    pub fn generation(&self) -> [u8; 16] {
        *lock(&self.shared.generation)
    }

    /// The term in which this program took over from one on another host; `None` when it was not
    /// started for that.
    pub fn takeover_term(&self) -> Option<u64> {
        self.shared.term
    }

    /// What opening the chain found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    /// Name of the tracker in use.
    pub fn tracker(&self) -> &'static str {
        self.shared.tracker
    }
}

impl Shared {
    fn check_process(&self) -> Result<(), Error> {
        self.callers.check_process()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = lock(&self.shared.worker).take();
        if self.shared.check_process().is_err() {
            // The thread is the parent's. Here there is only what remembers it, and nothing
            // that could be done with that.
            std::mem::forget(worker);
            return;
        }
        self.shared.threads.shut();
        self.shared.closed.store(true, Ordering::Release);
        self.shared.queue.close();
        if let Some(worker) = worker {
            // It ends when everything is saved or given up; its panics are caught.
            let _ = worker.join();
        }
        // The arena goes, the program's memory stays. Without memory for that it keeps the
        // arena's pages.
        let _ = lock(&self.shared.inner).arena.release_all_but(&[]);
        // Nothing is on its way any more.
        self.shared.queue.ended();
        if let Some(supervisor) = &self.shared.supervisor {
            supervisor.leave();
        }
        let saved = self.shared.queue.wait(0, Some(Duration::ZERO));
        if let (Err(error), false) = (saved, *lock(&self.told)) {
            let dir = self.shared.dir.display();
            eprintln!("ckpt: {dir} was closed without its last commit: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
