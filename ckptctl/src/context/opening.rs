// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opening, and what is restored then.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Callers;
use super::Context;
use super::Inner;
use super::Open;
use super::PAGE_SHIFT;
use super::Shared;
use super::lock;
use super::rollback::Known;
use super::rollback::new_generation;
use super::warm::Taken;
use super::warm::Wanted;
use crate::arena::Arena;
use crate::arena::Heap;
use crate::control::Control;
use crate::error::Error;
use crate::identity;
use crate::options;
use crate::options::Options;
use crate::options::Restore;
use crate::options::TAKEOVER_GAP;
use crate::safe_point::Threads;
use crate::saving::ChainEnd;
use crate::saving::Queue;
use crate::saving::Saving;
use crate::store::Kind;
use crate::store::Writer;
use crate::sys::memory::PAGE;
use crate::sys::thread;
use crate::track;
use crate::track::Geometry;
use crate::warm::Going;
use crate::warm::Supervisor;

impl Context {
    /// Opens a chain and makes an arena; restores what the options say.
    pub fn open(options: Options) -> Result<Context, Error> {
        let dir = options.chosen_dir()?;
        let name = options.chosen_name()?;
        let choice = match options.tracker {
            Some(choice) => choice,
            None => track::Choice::from_environment()?,
        };
        let saving = match options.saving {
            Some(saving) => saving,
            None => Saving::from_environment()?,
        };
        let restore = options.chosen_restore()?;
        let written = options.chosen_store()?;
        let compacting = options.chosen_compacting()?;
        let wait_for = options.chosen_wait_for()?;
        let (mut writer, recovery) = Writer::open_or_create(&dir, written.clone())?;
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
        let term = options::takeover_term()?;
        let in_chain = writer
            .chain()
            .commits()
            .map(|commit| commit.epoch)
            .max()
            .unwrap_or(0);
        // The host that is taken over from may have given numbers above.
        let highest = match term {
            Some(_) => in_chain.saturating_add(TAKEOVER_GAP),
            None => in_chain,
        };
        let geometry = Geometry {
            name,
            base,
            len_bytes,
            epoch: highest,
        };
        let generation = new_generation()?;

        let (supervisor, survivor) = Supervisor::find().unzip();
        let wanted = Wanted {
            choice,
            geometry: &geometry,
            in_chain,
            meta: meta.as_ref(),
            identity: &identity,
        };
        let survivor = survivor.flatten();
        let taken =
            survivor.map(|survivor| (Taken::from(&survivor, &mut writer, &wanted), survivor));
        let (mut going, mut cold) = (Going::Anew, String::new());
        let taken = match taken {
            None => None,
            Some((Ok(taken), _)) => Some(taken),
            Some((Err(why), survivor)) => {
                if let Some(supervisor) = &supervisor {
                    supervisor.drop_survivor(survivor, &why);
                }
                cold = why;
                None
            }
        };
        let (arena, known) = match taken {
            Some(taken) => {
                going = taken.going();
                (taken.arena, taken.known)
            }
            None => {
                let tracker = track::open(choice, &geometry)?;
                let mut arena = match &meta {
                    None => Arena::begin(tracker)?,
                    Some(meta) => {
                        going = Going::Cold(cold);
                        let mut arena = Arena::prepare(tracker, &meta.regions)?;
                        fill(&mut arena, &mut writer, meta.epoch)?;
                        arena.resume()?;
                        arena
                    }
                };
                arena.set_identity(&identity);
                let known = Known {
                    begun: highest + 1,
                    filled_with: restored,
                };
                (arena, known)
            }
        };
        let tracker_name = arena.tracker_name();
        // Whichever of the two is in the newest record when the program dies.
        let newest = writer.chain().commits().next_back();
        let before = newest.map_or(generation, |newest| newest.generation);
        if let Some(supervisor) = &supervisor {
            let kept = known.kept(&arena, [generation, before]);
            supervisor.keep(kept, arena.fd());
        }
        let control = Control::open(arena.fd(), &dir);
        let callers = Arc::new(Callers::new());
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                arena,
                heap: Heap::new(),
                known,
                undefined: None,
            }),
            chain_end: Mutex::new(ChainEnd::new(dir.clone(), written, compacting, writer)),
            queue: Arc::new(Queue::new(highest, restored)),
            hooks: Mutex::new(options.hooks),
            turn: Mutex::new(()),
            threads: Threads::new(Arc::clone(&callers)),
            callers,
            worker: Mutex::default(),
            saving,
            dir,
            identity,
            generation: Mutex::new(generation),
            restored,
            recovery,
            tracker: tracker_name,
            control,
            supervisor,
            term,
            wait_for,
            closed: AtomicBool::new(false),
        });
        if meta.is_some() {
            shared.note_restore()?;
        }
        let context = Context {
            open: Some(Arc::new(Open {
                shared: Arc::clone(&shared),
                told: Mutex::default(),
            })),
            shared,
        };
        context.shared.learn_what_is_elsewhere()?;
        if let Some(epoch) = restored {
            let hooks = lock(&context.shared.hooks).clone();
            context.in_hooks(|| hooks.after_restore(&context, epoch))?;
            if context.shared.term.is_some() {
                context.in_hooks(|| hooks.after_takeover(&context, epoch))?;
            }
        }
        if let Some(supervisor) = &context.shared.supervisor {
            supervisor.going(going);
        }
        Ok(context)
    }
}

/// Loads an epoch into a new arena.
fn fill(arena: &mut Arena, writer: &mut Writer, epoch: u64) -> Result<(), Error> {
    let filling = arena.filling();
    let outside = AtomicBool::new(false);
    // The program waits, so there is no reason to leave it a processor.
    writer.restore(epoch, thread::processors(), |pgoff, bytes| {
        // SAFETY: An epoch has each page once, and each is handed out once.
        if !unsafe { filling.put(pgoff, bytes) } {
            outside.store(true, Ordering::Relaxed);
        }
    })?;
    match outside.into_inner() {
        false => Ok(()),
        true => Err(Error::Layout(
            "the chain has pages outside of the arena".into(),
        )),
    }
}

impl Shared {
    /// Gives the restored state an epoch of its own, so that none is ever used twice.
    fn note_restore(&self) -> Result<(), Error> {
        let mut inner = lock(&self.inner);
        let committed = inner.arena.commit()?;
        let meta = self.meta(&mut inner, committed, Kind::Restore, self.restored);
        let info = lock(&self.chain_end).append_empty(&meta)?;
        self.queue.begin_with(info.epoch);
        self.control.closed(info.epoch);
        self.control.saved(info.epoch);
        Ok(())
    }
}
