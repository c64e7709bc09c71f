// SPDX-License-Identifier: GPL-2.0-only
//! Who reads a snapshot, thaws its pages and closes it (`snapshot.rs`, `arena/frozen.rs`).

use crate::state::{chunk_of, only, Consuming, Mistake, State, Tried, World, COUNT};

/// The next step of the consumer of a snapshot.
pub fn step(world: &World, state: &mut State, me: usize) -> Tried {
    let mine = &state.snapshots[me];
    let mut about = None;
    let (next, what) = match mine.at.clone() {
        Consuming::NotYet | Consuming::Done => return Ok(None),
        Consuming::Page(from) => match (from..COUNT).find(|&page| mine.wanted[page]) {
            Some(page) if mine.how.read => {
                about = Some(page);
                match mine.copies[page] {
                    Some(copy) => (got(state, me, page, copy)?, "reads a copy"),
                    None => (Consuming::Read(page), "finds no copy"),
                }
            }
            _ => (Consuming::Close, "closes"),
        },
        Consuming::Read(page) => {
            about = Some(page);
            (
                Consuming::LookAgain(page, state.memory[page]),
                "reads the page",
            )
        }
        Consuming::LookAgain(page, read) => {
            about = Some(page);
            let copy = mine.copies[page].filter(|_| !world.mistaken(Mistake::NoSecondLook));
            (
                got(state, me, page, copy.unwrap_or(read))?,
                "looks for a copy again",
            )
        }
        Consuming::Thaw(page) => {
            about = Some(page);
            if !thaw(world, state, me, page..page + 1) {
                return Ok(None);
            }
            (Consuming::Tell(page), "thaws")
        }
        Consuming::Tell(page) => {
            state.thawed += 1;
            (Consuming::Page(page + 1), "wakes who waits")
        }
        Consuming::Close => {
            if !thaw(world, state, me, 0..COUNT) {
                return Ok(None);
            }
            (Consuming::TellClosed, "thaws all")
        }
        Consuming::TellClosed => {
            state.thawed += 1;
            (Consuming::OffList, "wakes who waits")
        }
        Consuming::OffList => {
            state.snapshots[me].listed = false;
            (Consuming::Done, "takes the snapshot off the list")
        }
    };
    state.snapshots[me].at = next;
    Ok(Some((what, about)))
}

/// What was handed over must be what was there at the commit.
fn got(state: &State, me: usize, page: usize, content: u16) -> Result<Consuming, String> {
    let mine = &state.snapshots[me];
    if content != mine.content[page] {
        return Err(format!(
            "snapshot {} gives {content:#x} for page {page}, which was {:#x} at its commit",
            mine.epoch, mine.content[page]
        ));
    }
    Ok(match mine.how.thaw {
        true => Consuming::Thaw(page),
        false => Consuming::Page(page + 1),
    })
}

/// `Arena::thaw`. False if it has to wait for a commit.
fn thaw(world: &World, state: &mut State, me: usize, pages: std::ops::Range<usize>) -> bool {
    if state.holder.is_some() && !world.mistaken(Mistake::ThawWithoutBarrier) {
        return false;
    }
    world.memory.load(&state.index);
    for page in pages {
        let needed = (state.snapshots.iter().enumerate())
            .any(|(n, one)| n != me && one.needs(page) && !world.mistaken(Mistake::ThawForOthers));
        let mine = &mut state.snapshots[me];
        if mine.wanted[page] && mine.copies[page].is_none() && !needed {
            let chunk = world.memory.index().get(chunk_of(page)).expect("made");
            chunk.thaw(&only(page));
        }
        mine.wanted[page] = false;
        mine.copies[page] = None;
    }
    state.index = world.memory.save();
    true
}
