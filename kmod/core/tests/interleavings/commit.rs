// SPDX-License-Identifier: GPL-2.0-only
//! A commit (`arena/commit.rs`, `mm/direct.rs`).
//!
//! What is done in the index is the real thing, in one call that asks the hardware now and
//! then. A call cannot be kept in a state. So it is made anew each time, from the index as it
//! was at first, with the answers that it got, up to the question that was not answered yet.

use ckpt_core::bits::Bits;
use ckpt_core::tracker::{Costs, Hardware, Plan};

use crate::memory::{Image, Memory};
use crate::state::{
    bits, few, only, pages, Call, Committing, Consume, Consuming, Look, Mistake, Snapshot, State,
    Tried, Visit, World, COUNT, PAGES,
};

/// The next step of a committer.
pub fn step(world: &World, state: &mut State, me: usize) -> Tried {
    let Some(&asked) = world.scenario.committers[me].get(state.committers[me].done) else {
        return Ok(None);
    };
    commit_step(world, state, me, asked.snapshot)
}

/// As above, of a commit that may not be in the scenario.
pub fn commit_step(
    world: &World,
    state: &mut State,
    me: usize,
    snapshot: Option<Consume>,
) -> Tried {
    let at = state.committers[me].at.clone();
    let mut page = None;
    let (next, what) = match at {
        Committing::Idle if world.mistaken(Mistake::EpochBeforeBarrier) => {
            state.committers[me].epoch = state.epoch + 1;
            (Committing::Chosen, "chooses its epoch too early")
        }
        Committing::Idle | Committing::Chosen => {
            if state.holder.is_some() || state.readers != 0 {
                return Ok(None);
            }
            state.holder = Some(me);
            let one = &mut state.committers[me];
            if at == Committing::Idle {
                one.epoch = state.epoch + 1;
            }
            one.begun = state.memory;
            (Committing::Begun, "has the barrier")
        }
        Committing::Begun => {
            state.committers[me].call = Some(Call {
                start: state.index.clone(),
                answers: Vec::new(),
                late: Vec::new(),
            });
            (go_on(world, state, me, snapshot), "takes notes")
        }
        Committing::GoOn => (go_on(world, state, me, snapshot), "goes on in the index"),
        Committing::Visit(at) => {
            let (next, what, looked) = visit(world, state, me, at);
            page = looked;
            (next, what)
        }
        Committing::Harvested => {
            state.committers[me].call = None;
            if let Some(how) = snapshot {
                open_snapshot(state, me, how);
            }
            let publish = world.mistaken(Mistake::EpochBeforeFlush);
            let next = match publish {
                true => Committing::Publish,
                false => flush_from(world, state, me, 0),
            };
            (next, "has harvested, and puts the snapshot on the list")
        }
        Committing::Flush { processor } => {
            if !world.mistaken(Mistake::NoFlush) {
                (0..COUNT).for_each(|page| state.flush(world, processor, page));
            }
            (
                flush_from(world, state, me, processor + 1),
                "makes a processor forget entries",
            )
        }
        Committing::Publish => {
            state.epoch = state.committers[me].epoch;
            if world.mistaken(Mistake::EpochBeforeFlush) {
                (
                    flush_from(world, state, me, 0),
                    "makes the epoch known too early",
                )
            } else {
                end(world, state, me, snapshot)?;
                (
                    Committing::Idle,
                    "makes the epoch known and lets writers go on",
                )
            }
        }
        Committing::Release => {
            end(world, state, me, snapshot)?;
            (Committing::Idle, "lets writers go on")
        }
    };
    state.committers[me].at = next;
    Ok(Some((what, page)))
}

fn flush_from(world: &World, state: &State, me: usize, processor: usize) -> Committing {
    match processor < state.writers.len() && state.committers[me].changed {
        true => Committing::Flush { processor },
        false if world.mistaken(Mistake::EpochBeforeFlush) => Committing::Release,
        false => Committing::Publish,
    }
}

/// Looks at one entry.
fn visit(
    world: &World,
    state: &mut State,
    me: usize,
    mut at: Visit,
) -> (Committing, &'static str, Option<usize>) {
    let one = &mut state.committers[me];
    let Some(look) = at.todo.pop() else {
        let freeze = at.dirty & at.freeze;
        if freeze != 0 {
            at.todo = pages(freeze).map(Look::Arm).rev().collect();
            at.freeze = 0;
            at.locked = false;
            return (
                Committing::Visit(at),
                "lets the table go, to freeze what is dirty",
                None,
            );
        }
        one.call.as_mut().expect("called").answers.push(at.dirty);
        return (Committing::GoOn, "lets the table go", None);
    };
    at.locked = true;
    let (Look::Arm(page) | Look::Clean(page) | Look::Ask(page) | Look::Blind(page)) = look;
    let entry = &mut state.entries[page];
    if entry.dirty && !matches!(look, Look::Blind(_)) {
        at.dirty |= 1 << page;
    }
    let what = match look {
        Look::Arm(page) if world.mistaken(Mistake::DirtyAskedBefore) => {
            at.todo.push(Look::Blind(page));
            "asks whether it is dirty"
        }
        Look::Arm(_) | Look::Blind(_) => {
            one.changed |= entry.writable || entry.dirty;
            entry.writable = false;
            entry.dirty = false;
            "arms"
        }
        Look::Clean(_) => {
            one.changed |= entry.dirty;
            entry.dirty = false;
            "cleans"
        }
        Look::Ask(_) => "asks whether it is dirty",
    };
    (Committing::Visit(at), what, Some(page))
}

/// Runs the call up to the next question, or to its end.
fn go_on(world: &World, state: &mut State, me: usize, snapshot: Option<Consume>) -> Committing {
    let one = &mut state.committers[me];
    let call = one.call.as_ref().expect("called");
    world.memory.load(&call.start);
    let mut script = Script {
        memory: &world.memory,
        call,
        asked: 0,
        question: None,
    };
    let index = world.memory.index();
    index.harvest(one.epoch, snapshot.is_some(), &mut script);
    let mut draft = [false; COUNT];
    if let Some(how) = snapshot {
        let since = if how.all { 0 } else { one.epoch - 1 };
        let frozen: Result<(), ()> = index.freeze(since, &mut script, |first, set| {
            pages(few(first, set)).for_each(|page| draft[page] = true);
            Ok(())
        });
        frozen.expect("nothing fails");
    }
    match script.question.take() {
        Some((first, plan, image)) => {
            state.index = image;
            let (arm, keep) = (few(first, &plan.arm), few(first, &plan.keep));
            let kept = |page| {
                if plan.freeze {
                    Look::Ask(page)
                } else {
                    Look::Clean(page)
                }
            };
            let todo = pages(arm).map(Look::Arm).chain(pages(keep).map(kept));
            Committing::Visit(Visit {
                first,
                todo: todo.rev().collect(),
                dirty: 0,
                freeze: if plan.freeze { keep } else { 0 },
                locked: false,
            })
        }
        None => {
            state.index = world.memory.save();
            one.draft = draft;
            Committing::Harvested
        }
    }
}

/// The machine, as far as it has answered.
struct Script<'a> {
    memory: &'a Memory,
    call: &'a Call,
    asked: usize,
    /// What was asked that has no answer yet, and the index then. What comes after is void.
    question: Option<(u64, Plan, Image)>,
}

impl Hardware for Script<'_> {
    fn costs(&self) -> &'static Costs {
        &Costs::DIRECT
    }

    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        if self.question.is_some() {
            return Bits::default();
        }
        let asked = self.asked;
        self.asked += 1;
        for &(_, page) in self.call.late.iter().filter(|(at, _)| *at == asked) {
            self.memory.index().note(PAGES[page]);
        }
        match self.call.answers.get(asked) {
            Some(&dirty) => bits(dirty),
            None => {
                self.question = Some((first, *plan, self.memory.save()));
                Bits::default()
            }
        }
    }

    fn pinned(&mut self, _first: u64, _pages: &Bits) -> Bits {
        Bits::default()
    }
}

fn open_snapshot(state: &mut State, me: usize, how: Consume) {
    let one = &state.committers[me];
    state.snapshots.push(Snapshot {
        epoch: one.epoch,
        how,
        wanted: one.draft,
        copies: [None; COUNT],
        listed: true,
        at: Consuming::NotYet,
        content: [0; COUNT],
    });
}

/// The barrier is released, and what the commit promised is looked at.
fn end(
    world: &World,
    state: &mut State,
    me: usize,
    snapshot: Option<Consume>,
) -> Result<(), String> {
    let one = &mut state.committers[me];
    let (epoch, begun) = (one.epoch, one.begun);
    one.done += 1;
    one.changed = false;
    one.draft = [false; COUNT];
    one.begun = [0; COUNT];
    one.epoch = 0;
    state.holder = None;
    if epoch <= state.closed {
        return Err(format!("epoch {epoch} comes after epoch {}", state.closed));
    }
    state.closed = epoch;
    world.memory.load(&state.index);
    let stamped = |page: usize, since| {
        let chunk = world.memory.index().get(PAGES[page]).expect("made");
        !chunk.stamped_after(since).and(&only(page)).is_empty()
    };
    for (page, begun) in begun.into_iter().enumerate() {
        // A consumer that reads what is in the delta.
        if stamped(page, epoch - 1) {
            state.replica[page] = state.memory[page];
        }
        if begun & !state.replica[page] != 0 {
            return Err(format!(
                "page {page} was written before commit {epoch}, and is in no delta"
            ));
        }
    }
    if let Some(how) = snapshot {
        let memory = state.memory;
        let mine = state.snapshots.iter_mut().find(|one| one.epoch == epoch);
        let mine = mine.expect("opened");
        mine.content = memory;
        mine.at = Consuming::Page(0);
        let since = if how.all { 0 } else { epoch - 1 };
        for page in 0..COUNT {
            if mine.wanted[page] != stamped(page, since) {
                return Err(format!("snapshot {epoch} is wrong about page {page}"));
            }
        }
    }
    Ok(())
}
