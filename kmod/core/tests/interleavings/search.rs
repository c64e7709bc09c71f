// SPDX-License-Identifier: GPL-2.0-only
//! All states that a scenario can come to, breadth first.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::state::{
    Actor, Committer, Committing, Scenario, State, Step, Tried, World, Writer, Writing, COUNT,
};
use crate::{commit, consumer, writer};

/// What was explored without finding anything wrong.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    pub ends: usize,
    /// What was done in some step.
    pub done: BTreeSet<&'static str>,
}

/// How to come to something wrong, in the fewest steps.
pub struct Trace {
    pub wrong: String,
    pub steps: Vec<Step>,
}

impl fmt::Display for Trace {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(to, "{:3}. {step}", number + 1)?;
        }
        write!(to, "     => {}", self.wrong)
    }
}

/// Bits left by the stores of the epochs before.
const BEFORE: u16 = 1 << 15;

/// The first state, after the epochs that come before.
fn begin(world: &World) -> State {
    let scenario = &world.scenario;
    let writer = Writer {
        done: 0,
        at: Writing::Access,
    };
    let committer = Committer {
        done: 0,
        at: Committing::Idle,
        epoch: 0,
        call: None,
        draft: [false; COUNT],
        changed: false,
        begun: [0; COUNT],
    };
    let mut state = State {
        index: world.memory.save(),
        epoch: 0,
        readers: 0,
        holder: None,
        entries: Default::default(),
        memory: [0; COUNT],
        cached: vec![[false; COUNT]; scenario.writers.len()],
        writers: vec![writer; scenario.writers.len()],
        committers: vec![committer; scenario.committers.len()],
        zapped: 0,
        snapshots: Vec::new(),
        thawed: 0,
        replica: [0; COUNT],
        closed: 0,
    };
    for pages in &scenario.before {
        for &page in *pages {
            while state.writers[0].done == 0 {
                writer::store(world, &mut state, 0, page, BEFORE).expect("nobody is in the way");
            }
            state.writers[0].done = 0;
        }
        commit_alone(world, &mut state).expect("nobody is in the way");
    }
    state
}

/// A whole commit while nobody else does anything.
fn commit_alone(world: &World, state: &mut State) -> Result<(), String> {
    let done = state.committers[0].done;
    while state.committers[0].done == done {
        if commit::commit_step(world, state, 0, None)?.is_none() {
            return Err("a commit is blocked for ever".into());
        }
    }
    state.committers[0].done = done;
    Ok(())
}

/// Has an actor take its next step.
fn step(world: &World, state: &mut State, actor: Actor) -> Tried {
    match actor {
        Actor::Writer(me) => writer::step(world, state, me),
        Actor::Committer(me) => commit::step(world, state, me),
        Actor::Consumer(me) => consumer::step(world, state, me),
        Actor::Zapper => {
            let Some(&page) = world.scenario.zaps.get(state.zapped) else {
                return Ok(None);
            };
            if !state.zap(world, page) {
                return Ok(None);
            }
            state.zapped += 1;
            Ok(Some(("takes an entry away", Some(page))))
        }
    }
}

fn actors(state: &State) -> impl Iterator<Item = Actor> {
    let writers = (0..state.writers.len()).map(Actor::Writer);
    let committers = (0..state.committers.len()).map(Actor::Committer);
    let consumers = (0..state.snapshots.len()).map(Actor::Consumer);
    writers
        .chain(committers)
        .chain(consumers)
        .chain([Actor::Zapper])
}

/// What must hold in every state.
fn check(world: &World, state: &State) -> Result<(), String> {
    if state.holder.is_some() {
        return Ok(());
    }
    for page in 0..COUNT {
        let entry = state.entries[page];
        let translated = state.cached.iter().any(|pages| pages[page]);
        if ((entry.present && entry.writable) || translated) && world.frozen(state, page) {
            return Err(format!("page {page} is frozen and writable"));
        }
    }
    Ok(())
}

/// What must hold when nobody can take a step.
fn check_end(world: &World, state: &State) -> Result<(), String> {
    let scenario = &world.scenario;
    for (me, one) in state.writers.iter().enumerate() {
        if one.done < scenario.writers[me].len() {
            return Err(format!("writer {me} waits for ever"));
        }
    }
    for (me, one) in state.committers.iter().enumerate() {
        if one.done < scenario.committers[me].len() {
            return Err(format!("committer {me} waits for ever"));
        }
    }
    if state.snapshots.iter().any(|one| one.listed) || state.zapped < scenario.zaps.len() {
        return Err("a consumer or the zapper waits for ever".into());
    }
    for page in 0..COUNT {
        if world.frozen(state, page) {
            let wanted = state.snapshots.iter().any(|one| one.needs(page));
            if wanted {
                return Err(format!("page {page} is needed by a closed snapshot"));
            }
        }
    }
    let mut state = state.clone();
    commit_alone(world, &mut state)?;
    if state.replica != state.memory {
        return Err(format!(
            "the deltas add up to {:x?}, memory is {:x?}",
            state.replica, state.memory
        ));
    }
    world.memory.load(&state.index);
    match world.memory.index().noted() {
        0 => Ok(()),
        left => Err(format!("{left} notes are left after the last commit")),
    }
}

/// Of a million states, two have the same one once in 40 million searches.
fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Looks at all states.
pub fn explore(scenario: Scenario) -> Result<Explored, Trace> {
    let world = World::new(scenario);
    let first = begin(&world);
    let mut seen = HashSet::from([fingerprint(&first)]);
    // How each state was come to: from which, and by which step.
    let mut origins: Vec<Option<(usize, Step)>> = vec![None];
    let mut queue = VecDeque::from([(0, first)]);
    let (mut steps, mut ends) = (0, 0);
    let mut all_done = BTreeSet::new();
    let trace = |origins: &[Option<(usize, Step)>], mut at: usize, last: Option<Step>, wrong| {
        let mut steps: Vec<Step> = last.into_iter().collect();
        while let Some((from, step)) = origins[at] {
            steps.push(step);
            at = from;
        }
        steps.reverse();
        Trace { wrong, steps }
    };
    while let Some((id, state)) = queue.pop_front() {
        let mut stuck = true;
        for actor in actors(&state) {
            let mut next = state.clone();
            let tried = step(&world, &mut next, actor);
            let tell = |what, page| Some(Step { actor, what, page });
            let (what, page) = match tried {
                Ok(Some(done)) => done,
                Ok(None) => continue,
                Err(wrong) => {
                    return Err(trace(
                        &origins,
                        id,
                        tell("finds that something is wrong", None),
                        wrong,
                    ));
                }
            };
            stuck = false;
            steps += 1;
            all_done.insert(what);
            if !seen.insert(fingerprint(&next)) {
                continue;
            }
            if let Err(wrong) = check(&world, &next) {
                return Err(trace(&origins, id, tell(what, page), wrong));
            }
            origins.push(Some((id, Step { actor, what, page })));
            queue.push_back((origins.len() - 1, next));
        }
        if stuck {
            ends += 1;
            if let Err(wrong) = check_end(&world, &state) {
                return Err(trace(&origins, id, None, wrong));
            }
        }
    }
    Ok(Explored {
        states: origins.len(),
        steps,
        ends,
        done: all_done,
    })
}
