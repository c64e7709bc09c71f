// SPDX-License-Identifier: GPL-2.0-only
//! What programs write: the pages of one chunk in each epoch.

use ckpt_core::bits::{Bits, CHUNK_PAGES};
use ckpt_core::tracker::{Costs, Policy};
use proptest::prelude::*;

use crate::machine::Run;

fn pages(pages: impl IntoIterator<Item = usize>) -> Bits {
    let mut bits = Bits::default();
    pages
        .into_iter()
        .for_each(|page| bits.insert(page % CHUNK_PAGES));
    bits
}

/// Some pages: a run, every so many, a few, all.
pub fn set() -> impl Strategy<Value = Bits> {
    prop_oneof![
        3 => (0..CHUNK_PAGES, 1usize..100).prop_map(|(first, len)| pages(first..first + len)),
        2 => (0..CHUNK_PAGES, 2usize..90, 1usize..60)
            .prop_map(|(first, step, number)| pages((0..number).map(|n| first + n * step))),
        3 => prop::collection::vec(0..CHUNK_PAGES, 1..9).prop_map(pages),
        1 => Just(Bits::ALL),
    ]
}

/// What is written for a while.
fn phase() -> impl Strategy<Value = Vec<Bits>> {
    let epochs = 1usize..25;
    prop_oneof![
        // The same.
        3 => (set(), epochs.clone()).prop_map(|(set, epochs)| vec![set; epochs]),
        // This and that.
        2 => (set(), set(), epochs.clone())
            .prop_map(|(a, b, epochs)| (0..epochs).map(|n| if n % 2 == 0 { a } else { b }).collect()),
        // Some, and nothing for a while, in turns.
        3 => (set(), 1usize..9, epochs.clone()).prop_map(|(set, rest, epochs)| {
            (0..epochs).map(|n| if n % (rest + 1) == 0 { set } else { Bits::default() }).collect()
        }),
        // A run that moves.
        2 => (0..CHUNK_PAGES, 1usize..40, 1usize..40, epochs.clone()).prop_map(
            |(first, len, step, epochs)| {
                let run = |n| first + n * step..first + n * step + len;
                (0..epochs).map(|n| pages(run(n))).collect()
            }
        ),
        // Anything.
        2 => prop::collection::vec(set(), epochs.clone()),
        2 => epochs.prop_map(|epochs| vec![Bits::default(); epochs]),
    ]
}

/// A program with some phases.
pub fn program() -> impl Strategy<Value = Vec<Bits>> {
    prop::collection::vec(phase(), 1..7).prop_map(|phases| phases.concat())
}

/// A program that knows the policy: of the first `of` pages it writes some that will fault, and
/// nothing as long as `idle_at` are open.
pub fn cruel(
    costs: &'static Costs,
    of: usize,
    number: usize,
    idle_at: usize,
    epochs: usize,
) -> Vec<Bits> {
    let mut run = Run::new(Policy::Adaptive, costs);
    run.write(0, &Bits::range(0, of));
    run.commit();
    let mut at = 0;
    let epoch = |_| {
        let mut set = Bits::default();
        if run.open(0).len() < idle_at {
            let writable = run.writable(0);
            let armed = |page: &usize| writable.and(&Bits::range(*page, page + 1)).is_empty();
            let next = (0..of).map(|n| (at + n) % of).filter(armed);
            set = pages(next.take(number));
            at = (at + number) % of;
        }
        run.write(0, &set);
        run.commit();
        set
    };
    (0..epochs).map(epoch).collect()
}
