// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The oracle can fail: every planted bug is found, and the right mock passes.

use super::geometry::Geometry;
use super::mock::Bug;
use super::mock::Mock;
use super::op::Means;
use super::run::Config;
use super::run::run;

fn geometries() -> Vec<Geometry> {
    vec![
        Geometry::whole("small", 64),
        Geometry::sparse(
            "sparse",
            1 << 28,
            &[(0, 20), (500, 40), (1 << 20, 3), ((1 << 28) - 9, 9)],
        ),
    ]
}

fn config(geometry: Geometry, seed: u64, ops: usize) -> Config {
    Config {
        seed,
        ops,
        geometry,
    }
}

#[test]
fn a_right_tracker_passes() {
    for geometry in geometries() {
        for seed in 0..4 {
            let mut mock = Mock::new(geometry.clone(), Bug::None);
            let summary = run(&mut mock, &config(geometry.clone(), seed, 200_000))
                .unwrap_or_else(|finding| panic!("{finding}"));
            assert!(summary.commits > 300 && summary.deltas > 200 && summary.writes > 8_000);
            let snapshots = summary.snapshots;
            assert!(
                snapshots.made > 20 && snapshots.gathers > 100 && snapshots.compared > 300,
                "{snapshots:?}"
            );
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    let mut bugs = vec![
        Bug::ForgetsAPage,
        Bug::ForgetsOnUnmap,
        Bug::ForgetsOnDontNeed,
        Bug::ForgetsOnProtect,
        Bug::ForgetsAfterMove,
        Bug::ForgetsTheSecondPage,
        Bug::ForgetsTheSecondEpoch,
        Bug::ClearsForOthers,
        Bug::ForgetsOldEpochs,
        Bug::ResumesTooFar,
        Bug::LosesChunkStart,
        Bug::SplitsRanges,
        Bug::ReportsReads,
        Bug::TearsStores,
        Bug::LosesContent,
        Bug::Miscounts,
        Bug::RepeatsEpochs,
        Bug::SaysMore,
        Bug::ForgetsLoops,
        Bug::ForgetsOnSplit,
        Bug::SnapshotShowsLater,
        Bug::SnapshotMissesLoops,
        Bug::SnapshotCopiesOnce,
        Bug::SnapshotTearsCopies,
        Bug::ClosingThawsOthers,
        Bug::SnapshotLosesAPage,
        Bug::SnapshotIgnoresSince,
        Bug::SnapshotReservesLess,
        Bug::SnapshotMiscounts,
        Bug::SnapshotCountsNoCopies,
        Bug::GatherMixesPages,
        Bug::GatherIgnoresCopies,
        Bug::GatherForgetsToThaw,
        Bug::GatherResumesTooFar,
        Bug::GatherSaysMore,
        Bug::GatherForgetsMore,
        Bug::GatherSplitsRanges,
        Bug::ThawsTooMuch,
        Bug::ThawsTooLittle,
    ];
    bugs.extend(Means::ALL.iter().map(|means| Bug::ForgetsMeans(*means)));
    bugs.extend(Means::ALL.iter().map(|means| Bug::SnapshotMisses(*means)));
    let geometry = &geometries()[1];
    for bug in bugs {
        for seed in 0..3 {
            let mut mock = Mock::new(geometry.clone(), bug);
            let found = run(&mut mock, &config(geometry.clone(), seed, 400_000));
            assert!(found.is_err(), "{bug:?} was not found with seed {seed}");
        }
    }
}

#[test]
fn a_forgotten_page_is_called_unforgivable() {
    let geometry = geometries().remove(0);
    let mut mock = Mock::new(geometry.clone(), Bug::ForgetsMeans(Means::Store));
    let finding = run(&mut mock, &config(geometry, 1, 20_000)).unwrap_err();
    assert!(finding.to_string().contains("UNFORGIVABLE"), "{finding}");
}

#[test]
fn a_seed_replays_exactly() {
    let geometry = geometries().remove(1);
    let text = |seed| {
        let mut mock = Mock::new(geometry.clone(), Bug::ForgetsAPage);
        run(&mut mock, &config(geometry.clone(), seed, 20_000))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(text(5), text(5));
    assert_ne!(text(5), text(6));
}
