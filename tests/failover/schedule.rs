// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What befalls two hosts, and when: the same for the same seed.

use std::time::Duration;

use crate::hosts::Settings;
use crate::hosts::Verb;
use crate::network::CABLES;
use crate::network::Cable;
use crate::network::Cut;
use crate::random::Random;

/// Which host: what it is at that moment counts, for what matters is what befalls a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Primary,
    Other,
}

/// What befalls them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    KillProgram,
    /// The operator comes after a while.
    KillTool(Whose, Duration, Verb),
    StopTool(Whose),
    StopProgram,
    StopBoth,
    /// All that was stopped goes on.
    GoOn,
    KillEtcd,
    StartEtcd,
    Cut(Cable, Cut),
    /// One host hears nobody, or is heard by nobody, or both; here "first" is the host.
    Isolate(Whose, Cut),
    Unplug(Cable),
    Disturb(Cable, String),
    /// The network is whole again.
    Heal,
}

/// What befalls them in one schedule.
pub struct Schedule {
    pub settings: Settings,
    /// By time.
    pub blows: Vec<(Duration, Blow)>,
}

/// Up to more than two leases: what outlasts one matters most.
fn a_while(random: &mut Random) -> Duration {
    Duration::from_millis(300 + random.below(4500))
}

fn whose(random: &mut Random) -> Whose {
    match random.below(3) {
        0 => Whose::Other,
        _ => Whose::Primary,
    }
}

fn cut(random: &mut Random) -> Cut {
    let (from_first, from_second) =
        [(true, true), (true, false), (false, true)][random.below(3) as usize];
    Cut {
        from_first,
        from_second,
    }
}

fn verb(random: &mut Random) -> Verb {
    match random.below(3) {
        0 => Verb::Run,
        _ => Verb::Spare,
    }
}

impl Schedule {
    /// That of a seed.
    pub fn of(seed: u64, settings: Settings, netem: bool) -> Schedule {
        let mut random = Random::new(seed, 0);
        let alone_after_ms = match random.below(4) {
            0 => None,
            _ => Some(200 + random.below(1000)),
        };
        let mut at = Duration::from_millis(random.below(300));
        let mut blows = Vec::new();
        for _ in 0..2 + random.below(2) {
            let kind = random.below(11);
            let cable = CABLES[random.below(3) as usize];
            let lasts = a_while(&mut random);
            let end = at + lasts;
            match kind {
                0 => blows.push((at, Blow::KillProgram)),
                1 | 2 => {
                    let after = Duration::from_millis(random.below(3000));
                    blows.push((at, Blow::KillTool(Whose::Primary, after, verb(&mut random))));
                }
                3 => {
                    let after = Duration::from_millis(random.below(1500));
                    blows.push((at, Blow::KillTool(Whose::Other, after, verb(&mut random))));
                }
                4 => {
                    blows.push((at, Blow::KillEtcd));
                    blows.push((end, Blow::StartEtcd));
                }
                5 => {
                    blows.push((at, Blow::StopTool(whose(&mut random))));
                    blows.push((end, Blow::GoOn));
                }
                6 => {
                    let what = match random.below(2) {
                        0 => Blow::StopProgram,
                        _ => Blow::StopBoth,
                    };
                    blows.push((at, what));
                    blows.push((end, Blow::GoOn));
                }
                7 => {
                    blows.push((at, Blow::Cut(cable, cut(&mut random))));
                    blows.push((end, Blow::Heal));
                }
                8 => {
                    blows.push((at, Blow::Isolate(whose(&mut random), cut(&mut random))));
                    blows.push((end, Blow::Heal));
                }
                9 => {
                    blows.push((at, Blow::Unplug(cable)));
                    blows.push((end, Blow::Heal));
                }
                _ if netem => {
                    let delay = 1 + random.below(60);
                    let how = format!(
                        "delay {delay}ms {}ms loss {}% reorder {}%",
                        delay / 2,
                        random.below(15),
                        random.below(30)
                    );
                    blows.push((at, Blow::Disturb(cable, how)));
                    blows.push((end, Blow::Heal));
                }
                _ => blows.push((at, Blow::KillProgram)),
            }
            // The next comes while this one lasts, or soon after.
            at += Duration::from_millis(random.below(lasts.as_millis() as u64 + 500));
        }
        blows.sort_by_key(|&(at, _)| at);
        Schedule {
            settings: Settings {
                alone_after_ms,
                ..settings
            },
            blows,
        }
    }
}
