// SPDX-License-Identifier: GPL-2.0-only
//! Threads of which one runs at a time, and every order in which they can.
//!
//! A thread can be made to stop before each access to shared memory. An execution is told by
//! who was chosen to go on each time; all are tried, one after the other, but for those in which
//! threads are made to stop more often than a bound, when they could have gone on.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};

/// Who may go on at some point, and who did.
struct Choice {
    options: Vec<usize>,
    chosen: usize,
}

struct Course {
    /// The choices to be made as the last time, but for the last of them.
    path: Vec<usize>,
    made: Vec<Choice>,
    alive: Vec<bool>,
    running: usize,
    /// How often a thread may be made to stop.
    stops: usize,
}

impl Course {
    /// Who goes on, if it is up to `options`.
    fn choose(&mut self, options: Vec<usize>) -> usize {
        let chosen = self.path.get(self.made.len()).copied().unwrap_or(0);
        let next = options[chosen];
        self.made.push(Choice { options, chosen });
        next
    }

    fn others(&self, me: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.alive.len()).filter(move |&one| one != me && self.alive[one])
    }
}

/// Threads that take turns.
struct Turns {
    course: Mutex<Course>,
    changed: Condvar,
}

impl Turns {
    fn wait(&self, me: usize) {
        let course = self.course.lock().expect("no panic");
        drop(
            self.changed
                .wait_while(course, |course| course.running != me),
        );
    }

    /// Before an access.
    fn stop(&self, me: usize) {
        let mut course = self.course.lock().expect("no panic");
        if course.stops == 0 {
            return;
        }
        let options: Vec<usize> = [me].into_iter().chain(course.others(me)).collect();
        if options.len() == 1 {
            return;
        }
        let next = course.choose(options);
        if next == me {
            return;
        }
        course.stops -= 1;
        course.running = next;
        self.changed.notify_all();
        drop(
            self.changed
                .wait_while(course, |course| course.running != me),
        );
    }

    fn end(&self, me: usize) {
        let mut course = self.course.lock().expect("no panic");
        course.alive[me] = false;
        let options: Vec<usize> = course.others(me).collect();
        if !options.is_empty() {
            course.running = course.choose(options);
            self.changed.notify_all();
        }
    }
}

thread_local! {
    /// Set in threads that take turns.
    static TURN: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Before an access to shared memory: others may have theirs first.
pub fn before_access() {
    TURN.with_borrow(|turn| {
        if let Some((turns, me)) = turn {
            turns.stop(*me);
        }
    });
}

/// Runs threads over what `make` makes, in every order with at most so many stops, and has each
/// outcome checked. Returns how many there were, or what `check` had against one.
pub fn every_order<S: Sync>(
    stops: usize,
    make: impl Fn() -> S,
    threads: &[&(dyn Fn(&S) + Sync)],
    check: impl Fn(S) -> Result<(), String>,
) -> Result<usize, String> {
    let mut path = Vec::new();
    for number in 1.. {
        let shared = make();
        let turns = Arc::new(Turns {
            course: Mutex::new(Course {
                path,
                made: Vec::new(),
                alive: vec![true; threads.len()],
                running: usize::MAX,
                stops,
            }),
            changed: Condvar::new(),
        });
        std::thread::scope(|scope| {
            for (me, work) in threads.iter().enumerate() {
                let (turns, shared) = (&turns, &shared);
                scope.spawn(move || {
                    TURN.set(Some((turns.clone(), me)));
                    turns.wait(me);
                    work(shared);
                    turns.end(me);
                });
            }
            let mut course = turns.course.lock().expect("no panic");
            let all = (0..threads.len()).collect();
            course.running = course.choose(all);
            turns.changed.notify_all();
        });
        let made = std::mem::take(&mut turns.course.lock().expect("no panic").made);
        check(shared).map_err(|wrong| {
            let turns: Vec<usize> = made.iter().map(|one| one.options[one.chosen]).collect();
            format!("{wrong}, after {number} orders, when the turns are {turns:?}")
        })?;
        let Some(last) = made
            .iter()
            .rposition(|one| one.chosen + 1 < one.options.len())
        else {
            return Ok(number);
        };
        path = made[..=last].iter().map(|one| one.chosen).collect();
        path[last] += 1;
    }
    unreachable!("the loop has no end")
}
