// SPDX-License-Identifier: GPL-2.0-only
//! A thread that stores: the processor's part, and the fault handler's (`arena/faults.rs`).

use ckpt_core::bits::Bits;

use crate::state::{
    self, bits, chunk_of, only, pages, Mistake, State, Tried, World, Writing, COUNT, PAGES,
};

/// The next step of a writer.
pub fn step(world: &World, state: &mut State, me: usize) -> Tried {
    let done = state.writers[me].done;
    match world.scenario.writers[me].get(done) {
        Some(&page) => {
            Ok(store(world, state, me, page, world.bit(me, done)).map(|what| (what, Some(page))))
        }
        None => Ok(None),
    }
}

/// The next step of a store, which leaves `bit` in the page.
pub fn store(
    world: &World,
    state: &mut State,
    me: usize,
    page: usize,
    bit: u16,
) -> Option<&'static str> {
    let at = state.writers[me].at.clone();
    let (next, what) = match at {
        Writing::Access => access(world, state, me, page),
        Writing::Translated => {
            state.memory[page] |= bit;
            state.writers[me].done += 1;
            (Writing::Access, "stores")
        }
        Writing::Fault { exists } => {
            let epoch = state.epoch;
            (
                Writing::Copy { exists, epoch },
                "faults and reads the epoch",
            )
        }
        Writing::Copy { exists, epoch } => match world.frozen(state, page) {
            true => {
                let copy = Some(state.memory[page]);
                (
                    Writing::Enter {
                        exists,
                        epoch,
                        copy,
                    },
                    "copies a frozen page",
                )
            }
            false => (
                Writing::Enter {
                    exists,
                    epoch,
                    copy: None,
                },
                "finds that it is not frozen",
            ),
        },
        Writing::Enter { .. } if state.holder.is_some() => return None,
        Writing::Enter {
            exists,
            epoch,
            copy,
        } => {
            state.readers |= 1 << me;
            enter(world, state, page, exists, epoch, copy)
        }
        Writing::CopyAside { exists, copy, seen } => {
            copy_aside(world, state, page, exists, copy, seen)
        }
        Writing::Count { epoch } => count(world, state, page, epoch),
        Writing::Opened { few } => {
            change(world, state, |index| {
                index.get(PAGES[page]).expect("made").opened(&bits(few));
            });
            (Writing::Note, "tells that the chunk is open")
        }
        Writing::Note => {
            change(world, state, |index| {
                index.note(PAGES[page]);
            });
            if world.mistaken(Mistake::WritableAfterBarrier) {
                state.readers &= !(1 << me);
            }
            (Writing::Entry, "notes")
        }
        Writing::Entry => {
            make_writable(state, page);
            (Writing::Access, "makes the entry writable")
        }
        Writing::Unmap => {
            if !state.zap(world, page) {
                return None;
            }
            (Writing::Access, "takes the entry away")
        }
        Writing::Wait { seen: u8::MAX } => {
            let seen = state.thawed;
            (Writing::Wait { seen }, "asks what to wait for")
        }
        Writing::Wait { seen } if state.thawed == seen => return None,
        Writing::Wait { .. } => (Writing::Access, "wakes up"),
        Writing::Early { exists } => {
            let epoch = state.epoch;
            let copy = None;
            (
                Writing::Enter {
                    exists,
                    epoch,
                    copy,
                },
                "goes on to note",
            )
        }
    };
    // The barrier is held from `Enter` until the entry is writable.
    let holds = matches!(
        next,
        Writing::CopyAside { .. }
            | Writing::Count { .. }
            | Writing::Opened { .. }
            | Writing::Note
            | Writing::Entry
    );
    if !holds {
        state.readers &= !(1 << me);
    }
    state.writers[me].at = next;
    Some(what)
}

/// Changes the index, in one step.
fn change(world: &World, state: &mut State, work: impl FnOnce(&crate::memory::Pages)) {
    world.memory.load(&state.index);
    work(world.memory.index());
    state.index = world.memory.save();
}

/// The processor: by a translation that it has, or by the entry.
fn access(world: &World, state: &mut State, me: usize, page: usize) -> (Writing, &'static str) {
    let entry = &mut state.entries[page];
    if state.cached[me][page] {
        return (Writing::Translated, "has the translation");
    }
    if entry.present && entry.writable {
        entry.dirty = true;
        state.cached[me][page] = true;
        return (Writing::Translated, "sets the dirty bit");
    }
    let exists = entry.present;
    if world.mistaken(Mistake::WritableBeforeNoted) && !world.frozen(state, page) {
        make_writable(state, page);
        return (
            Writing::Early { exists },
            "makes the entry writable too early",
        );
    }
    (Writing::Fault { exists }, "finds no writable entry")
}

/// `vmf_insert_page_mkwrite`: an entry that exists is not made dirty.
fn make_writable(state: &mut State, page: usize) {
    let entry = &mut state.entries[page];
    entry.dirty |= !entry.present;
    entry.present = true;
    entry.writable = true;
}

fn enter(
    world: &World,
    state: &State,
    page: usize,
    exists: bool,
    epoch: u64,
    copy: Option<u16>,
) -> (Writing, &'static str) {
    let frozen = match world.mistaken(Mistake::FrozenNotAskedAgain) {
        true => copy.is_some(),
        false => world.frozen(state, page),
    };
    if !frozen {
        return match exists {
            true => (Writing::Count { epoch }, "enters"),
            // Only writes through an entry count.
            false => (Writing::Note, "enters"),
        };
    }
    let current = state.epoch == epoch || world.mistaken(Mistake::CopyOfAnyEpoch);
    match copy.filter(|_| current) {
        Some(copy) => {
            let seen = state.thawed;
            (
                Writing::CopyAside { exists, copy, seen },
                "enters, the page is frozen",
            )
        }
        None => (
            Writing::Fault { exists },
            "has no copy of what is frozen now",
        ),
    }
}

/// `Arena::copy_aside`, under the lock of the list.
fn copy_aside(
    world: &World,
    state: &mut State,
    page: usize,
    exists: bool,
    copy: u16,
    seen: u8,
) -> (Writing, &'static str) {
    let copied = |copies: &[Option<u16>; COUNT]| copies.iter().flatten().count();
    let mut needing = state.snapshots.iter().filter(|one| one.needs(page));
    if needing.any(|one| copied(&one.copies) >= one.how.reserve) {
        if exists {
            return (Writing::Unmap, "has no room for a copy");
        }
        return match world.mistaken(Mistake::WaitTooLate) {
            true => (
                Writing::Wait { seen: u8::MAX },
                "has no room and will ask what to wait for",
            ),
            false => (Writing::Wait { seen }, "has no room for a copy and waits"),
        };
    }
    for one in state.snapshots.iter_mut().filter(|one| one.needs(page)) {
        one.copies[page] = Some(copy);
    }
    change(world, state, |index| {
        index.get(PAGES[page]).expect("made").thaw(&only(page));
    });
    (Writing::Note, "gives the copy to who needs it, and thaws")
}

/// Counts the fault, and makes the chunk's entries writable if that is due.
fn count(world: &World, state: &mut State, page: usize, epoch: u64) -> (Writing, &'static str) {
    let first = chunk_of(page);
    let mut opens = false;
    let mut not = Bits::default();
    change(world, state, |index| {
        let chunk = index.get(PAGES[page]).expect("made");
        opens = chunk.count_fault(PAGES[page], epoch, index.tracker());
        not = chunk.frozen();
    });
    if !opens {
        return (Writing::Note, "is counted");
    }
    let mut few = 0;
    for other in pages(state::few(first, &Bits::ALL.minus(&not))) {
        if state.entries[other].present {
            state.entries[other].writable = true;
            few |= 1 << other;
        }
    }
    (Writing::Opened { few }, "opens the entries of the chunk")
}
