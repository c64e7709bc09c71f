// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs of the shadow oracle on the module.

use crate::diag;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::oracle::geometry::Geometry;
use crate::oracle::kernel::Kernel;
use crate::oracle::run::Config;
use crate::oracle::run::run;
use crate::oracle::run::source;
use crate::runner::Test;
use crate::scratch::DirectFile;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    300 => random_operations_on_arenas_of_many_shapes_leave_arena_deltas_and_replicas_right,
];

struct Shape {
    geometry: Geometry,
    // Of the operations of a run.
    percent: usize,
    // With O_DIRECT, after which a page may be told more often than it was written.
    direct: bool,
}

// Small ones, where the same pages are met again and again; chunks of 512 pages and their
// boundaries; the ends of the largest arena.
fn shapes() -> Vec<Shape> {
    let end = 1_u64 << 32;
    let chunk = 512;
    let shape = |percent, direct, geometry| Shape {
        geometry,
        percent,
        direct,
    };
    let at_boundaries = [
        (chunk - 6, 12),
        (7 * chunk - 3, 6),
        (24 * chunk - 1, 70),
        (63 * chunk, 2),
        (64 * chunk - 1, 2),
    ];
    let far_apart = [
        (0, 20),
        (chunk * chunk - 4, 8),
        (1 << 27, 10),
        (end / 2 - 5, 10),
        (end - 20, 20),
    ];
    vec![
        shape(30, false, Geometry::whole("64 pages", 64)),
        shape(10, true, Geometry::whole("64 pages and O_DIRECT", 64)),
        shape(4, false, Geometry::whole("one page", 1)),
        shape(16, false, Geometry::whole("513 pages", 513)),
        shape(12, true, Geometry::whole("2048 pages and O_DIRECT", 2048)),
        shape(
            16,
            false,
            Geometry::sparse("chunk boundaries", 1 << 20, &at_boundaries),
        ),
        shape(
            12,
            false,
            Geometry::sparse("the largest arena", end, &far_apart),
        ),
    ]
}

fn random_operations_on_arenas_of_many_shapes_leave_arena_deltas_and_replicas_right(
    options: &Options,
) -> Outcome {
    diag!("seed {} ops {}", options.seed, options.ops);
    for shape in shapes() {
        let config = Config {
            seed: options.seed,
            ops: (options.ops * shape.percent).div_ceil(100),
            geometry: shape.geometry.clone(),
        };
        let bytes = source(config.seed);
        let direct = match shape.direct {
            true => direct_file(options, &bytes)?,
            false => None,
        };
        let started = std::time::Instant::now();
        let mut kernel = Kernel::new(shape.geometry, &bytes, direct)?;
        let summary = run(&mut kernel, &config).map_err(|finding| *finding)?;
        kernel.finish()?;
        diag!(
            "{}: {} operations, {} writes, {} commits, {} deltas, {} ms",
            config.geometry.name,
            summary.ops,
            summary.writes,
            summary.commits,
            summary.deltas,
            started.elapsed().as_millis()
        );
    }
    Ok(())
}

fn direct_file(options: &Options, bytes: &[u8]) -> Result<Option<DirectFile>, Failure> {
    match DirectFile::create(&options.scratch, "oracle", bytes) {
        Ok(file) => Ok(Some(file)),
        Err(Failure::Skipped(reason)) => {
            diag!("without O_DIRECT: {reason}");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::shapes;

    #[test]
    fn the_shapes_share_all_operations_among_them() {
        assert_eq!(
            shapes().iter().map(|shape| shape.percent).sum::<usize>(),
            100
        );
    }
}
