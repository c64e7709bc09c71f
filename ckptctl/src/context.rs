// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A context: one arena, one chain, and what moves state between them.

use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::ThreadId;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::arena::Arena;
use crate::arena::Heap;
use crate::arena::RegionSpec;
use crate::error::Error;
use crate::hooks::Hook;
use crate::hooks::Hooks;
use crate::hooks::When;
use crate::identity;
use crate::options::Options;
use crate::options::Restore;
use crate::store;
use crate::store::CommitInfo;
use crate::store::CommitMeta;
use crate::store::Identity;
use crate::store::Kind;
use crate::store::Recovery;
use crate::store::StoreError;
use crate::store::Writer;
use crate::sys::memory::PAGE;
use crate::sys::process;
use crate::track;
use crate::track::Geometry;
use crate::track::PageRange;

/// log2 of the bytes of a page.
const PAGE_SHIFT: u32 = PAGE.trailing_zeros();

/// Pages that are read from the arena in one go when they are saved.
const COPY_PAGES: u64 = 64;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// The epoch.
    pub epoch: u64,
    /// Pages saved, zero pages among them.
    pub pages: u64,
    /// Bytes the chain grew by.
    pub stored_bytes: u64,
    /// For how long the tracker held writers up.
    pub pause_ns: u64,
    /// How long the call took, hooks included.
    pub total_ns: u64,
}

/// What is used under the lock.
struct Inner {
    arena: Arena,
    heap: Heap,
    dir: PathBuf,
    /// None when the last one could not undo a failed append: then the next commit opens
    /// the chain again, which examines what is on the disk.
    writer: Option<Writer>,
    /// Everything up to this epoch is in the chain: the library's cursor.
    saved: u64,
    /// The last durable epoch of this state, which the next one builds on.
    parent: Option<u64>,
    /// The arena's last epoch.
    epoch: u64,
}

/// An open context. May be used from any thread. A clone is the same context; it is closed with
/// the last of them.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

/// What all clones share.
///
/// # Locks
///
/// `turn` first, then `hooks` or `inner`, never both of these. Hooks run with `turn` alone.
struct Shared {
    inner: Mutex<Inner>,
    hooks: Mutex<Hooks>,
    /// Held by the thread that commits; `committing` says which one that is.
    turn: Mutex<()>,
    committing: Mutex<Option<ThreadId>>,
    owner: u32,
    /// [`process::forks`] when it was opened.
    forks: u32,
    identity: Identity,
    generation: [u8; 16],
    restored: Option<u64>,
    recovery: Recovery,
    tracker: &'static str,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock leaves nothing half done that the next user could not bear: the
    // arena's tables change field by field at the end, the writer undoes what it began.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// Opens a chain and makes an arena; restores what the options say.
    pub fn open(options: Options) -> Result<Context, Error> {
        let dir = options.chosen_dir()?;
        let name = options.chosen_name()?;
        let choice = match options.tracker {
            Some(choice) => choice,
            None => track::Choice::from_environment()?,
        };
        let restore = options.chosen_restore()?;
        let (writer, recovery) = Writer::open_or_create(&dir, store::Options::default())?;
        let restored = match restore {
            Restore::Nothing => None,
            Restore::Epoch(epoch) => Some(epoch),
            Restore::Newest => writer.chain().newest()?.map(|commit| commit.epoch),
        };
        let meta = restored
            .map(|epoch| writer.chain().get(epoch))
            .transpose()?;
        let identity = identity::current(options.no_code_pointers);
        if let Some(meta) = &meta {
            if meta.page_shift != PAGE_SHIFT {
                return Err(Error::Layout(format!(
                    "the pages of the chain have {} bytes, and this version can do {PAGE} only",
                    1u64 << meta.page_shift
                )));
            }
            identity::check(&meta.identity, &identity)?;
        }
        let place = meta
            .as_ref()
            .map(|meta| (meta.arena_base, meta.arena_len_pages << PAGE_SHIFT));
        let (base, len_bytes) = options.chosen_place(place)?;
        let highest = writer
            .chain()
            .commits()
            .map(|commit| commit.epoch)
            .max()
            .unwrap_or(0);
        let geometry = Geometry {
            name,
            base,
            len_bytes,
            epoch: highest,
        };
        let mut generation = [0; 16];
        process::random(&mut generation).map_err(|source| Error::System {
            doing: "draw a random number",
            source,
        })?;

        let tracker = track::open(choice, &geometry)?;
        let tracker_name = tracker.name();
        let arena = match &meta {
            None => Arena::begin(tracker)?,
            Some(meta) => {
                let mut arena = Arena::prepare(tracker, &meta.regions)?;
                fill(&mut arena, writer.chain(), meta.epoch)?;
                arena.resume()?;
                arena
            }
        };
        let mut inner = Inner {
            arena,
            heap: Heap::new(),
            dir,
            writer: Some(writer),
            saved: highest,
            parent: restored,
            epoch: highest,
        };
        if meta.is_some() {
            inner.note_restore(&identity, generation)?;
        }
        let context = Context(Arc::new(Shared {
            inner: Mutex::new(inner),
            hooks: Mutex::new(options.hooks),
            turn: Mutex::new(()),
            committing: Mutex::new(None),
            owner: std::process::id(),
            forks: process::forks(),
            identity,
            generation,
            restored,
            recovery,
            tracker: tracker_name,
        }));
        if let Some(epoch) = restored {
            let hooks = lock(&context.0.hooks).clone();
            context.in_hooks(|| hooks.after_restore(&context, epoch))?;
        }
        Ok(context)
    }

    /// Refuses in a child of the process that opened it: what another thread of that process
    /// had locked then would stay locked.
    pub fn check_process(&self) -> Result<(), Error> {
        match process::forks() == self.0.forks {
            true => Ok(()),
            false => Err(Error::Forked {
                owner: self.0.owner,
            }),
        }
    }

    fn inner(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        self.check_process()?;
        Ok(lock(&self.0.inner))
    }

    /// Runs hooks, with the thread marked so that it cannot wait for itself.
    fn in_hooks<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Unmark<'a>(&'a Context, Option<ThreadId>);
        impl Drop for Unmark<'_> {
            fn drop(&mut self) {
                *lock(&self.0.0.committing) = self.1;
            }
        }
        let before = lock(&self.0.committing).replace(thread::current().id());
        let _unmark = Unmark(self, before);
        run()
    }

    /// True in a hook that this thread runs.
    pub fn in_hook(&self) -> bool {
        *lock(&self.0.committing) == Some(thread::current().id())
    }

    /// Closes the epoch and saves what changed. The epoch is durable when this returns.
    ///
    /// When it fails, nothing is lost: what changed is saved by the next commit that succeeds.
    pub fn commit(&self) -> Result<CommitReport, Error> {
        self.check_process()?;
        if self.in_hook() {
            return Err(Error::FromHook("commit"));
        }
        let _turn = lock(&self.0.turn);
        let begun = Instant::now();
        let next = self.inner()?.epoch + 1;
        let hooks = lock(&self.0.hooks).clone();
        self.in_hooks(|| hooks.before_commit(self, next))?;
        let mut report = self.inner()?.commit(&self.0.identity, self.0.generation)?;
        self.in_hooks(|| hooks.after_commit(self, report.epoch));
        report.total_ns = begun.elapsed().as_nanos() as u64;
        Ok(report)
    }

    /// Registers a hook behind those that are there.
    pub fn hook(&self, when: When, hook: Arc<Hook>) -> Result<(), Error> {
        self.check_process()?;
        if self.in_hook() {
            return Err(Error::FromHook("registering a hook"));
        }
        lock(&self.0.hooks).add(when, hook);
        Ok(())
    }

    /// Finds a region by its name, or makes it; returns its address. What is new is zeroed.
    pub fn region(&self, spec: &RegionSpec<'_>) -> Result<NonNull<u8>, Error> {
        self.inner()?.arena.region(spec)
    }

    /// Makes a region at least `len_bytes` long. It keeps its address.
    pub fn grow_region(&self, name: &str, len_bytes: u64) -> Result<(), Error> {
        self.inner()?.arena.grow(name, len_bytes)
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
        let inner = &mut *self.inner()?;
        inner.heap.allocate(&mut inner.arena, size, align)
    }

    /// Makes a block `size` bytes long, above zero, perhaps elsewhere.
    pub fn reallocate(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<u8>, Error> {
        if size == 0 {
            return Err(Error::Invalid(
                "cannot make a block 0 bytes long: free it".into(),
            ));
        }
        let inner = &mut *self.inner()?;
        inner.heap.reallocate(&mut inner.arena, block, size)
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
        self.0.restored
    }

    /// The last durable epoch of this state, if there is one.
    pub fn epoch(&self) -> Result<Option<u64>, Error> {
        Ok(self.inner()?.parent)
    }

    /// Random bytes, made anew each time a context is opened.
    pub fn generation(&self) -> [u8; 16] {
        self.0.generation
    }

    /// What opening the chain found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Name of the tracker in use.
    pub fn tracker(&self) -> &'static str {
        self.0.tracker
    }
}

/// Loads an epoch into a new arena.
fn fill(arena: &mut Arena, chain: &store::Chain, epoch: u64) -> Result<(), Error> {
    let mut loader = chain.load(epoch)?;
    while let Some(run) = loader.next_run()? {
        arena.write_pages(run.pgoff, run.bytes)?;
    }
    Ok(())
}

impl Inner {
    fn meta(
        &mut self,
        kind: Kind,
        pause_ns: u64,
        identity: &Identity,
        generation: [u8; 16],
    ) -> CommitMeta {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        CommitMeta {
            epoch: self.epoch,
            parent: self.parent,
            kind,
            generation,
            time_ns: now.as_nanos() as u64,
            pause_ns,
            arena_base: self.arena.base(),
            arena_len_pages: self.arena.len_bytes() / PAGE as u64,
            page_shift: PAGE_SHIFT,
            regions: self.arena.regions(),
            identity: identity.clone(),
        }
    }

    /// Gives the restored state an epoch of its own, so that none is ever used twice.
    fn note_restore(&mut self, identity: &Identity, generation: [u8; 16]) -> Result<(), Error> {
        let committed = self.arena.commit()?;
        self.epoch = committed.epoch;
        let meta = self.meta(Kind::Restore, committed.pause_ns, identity, generation);
        self.append(&meta, &[])?;
        self.saved = committed.epoch;
        self.parent = Some(committed.epoch);
        Ok(())
    }

    /// Appends a record with the pages of a delta.
    fn append(&mut self, meta: &CommitMeta, delta: &[PageRange]) -> Result<CommitInfo, StoreError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let (writer, _) = Writer::open_or_create(&self.dir, store::Options::default())?;
                self.writer.insert(writer)
            }
        };
        let mut buffer = Vec::new();
        let appended = writer.append_with(meta, |sink| {
            for part in delta.iter().flat_map(parts) {
                buffer.resize((part.end - part.start) as usize * PAGE, 0);
                self.arena.read_pages(part.start, &mut buffer);
                sink.push(part.start, &buffer)?;
            }
            Ok(())
        });
        let appended = appended.cloned();
        if let Err(StoreError::Poisoned { .. }) = appended {
            self.writer = None;
        }
        appended
    }

    fn commit(&mut self, identity: &Identity, generation: [u8; 16]) -> Result<CommitReport, Error> {
        let committed = self.arena.commit()?;
        self.epoch = committed.epoch;
        let delta = self.arena.delta(self.saved)?;
        let meta = self.meta(Kind::Commit, committed.pause_ns, identity, generation);
        let info = self.append(&meta, &delta)?;
        let report = CommitReport {
            epoch: info.epoch,
            pages: info.data_pages + info.zero_pages,
            stored_bytes: info.stored_bytes,
            pause_ns: committed.pause_ns,
            total_ns: 0,
        };
        self.saved = report.epoch;
        self.parent = Some(report.epoch);
        Ok(report)
    }
}

/// A range in parts that are small enough to copy.
fn parts(range: &PageRange) -> impl Iterator<Item = PageRange> + use<> {
    let end = range.end;
    (range.start..end)
        .step_by(COPY_PAGES as usize)
        .map(move |first| first..end.min(first + COPY_PAGES))
}

#[cfg(test)]
mod tests;
