// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckpt-bench store` with little data.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

const MIB: u64 = 16;

fn measure(name: &str, arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckpt-bench"));
    command.args([
        "store",
        "--rounds",
        "1",
        "--mib",
        &MIB.to_string(),
        "--folder",
    ]);
    let output = command.arg(&folder).args(arguments).output().unwrap();
    let _ = fs::remove_dir_all(&folder);
    output
}

/// What it says for `store.json`. It says nothing of a round whose state was restored otherwise
/// than it was saved: then it fails.
fn results(output: &Output) -> Vec<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("@store "));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_save_and_a_restore_of_each_compression_are_told_with_their_units() {
    let results = results(&measure("store-keys", &["--compressions", "lz4,none"]));
    let told: Vec<_> = results
        .iter()
        .map(|one| {
            (
                one["compression"].as_str().unwrap(),
                one["what"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("lz4", "save"),
            ("lz4", "restore"),
            ("none", "save"),
            ("none", "restore")
        ]
    );
    for one in &results {
        for key in [
            "data_bytes",
            "zero_bytes",
            "stored_bytes",
            "seed",
            "rounds",
            "compressor_threads",
            "median_nanoseconds",
            "processor_median_nanoseconds",
            "compressor_median_nanoseconds",
            "disk_median_nanoseconds",
            "at_once_median_nanoseconds",
            "peak_beyond_state_bytes",
        ] {
            assert!(one[key].is_u64(), "{key} of {one}");
        }
        for key in [
            "mib_per_second",
            "median_of_slower",
            "lowest_of_slower",
            "median_of_at_once",
            "median_of_sum",
        ] {
            assert!(
                one[key].as_f64().is_some_and(|figure| figure > 0.0),
                "{key} of {one}"
            );
        }
        assert!(one["tracker"].is_string());
        assert_eq!(one["data_bytes"], MIB << 20);
    }
}

#[test]
fn what_is_stored_is_all_that_is_not_zero_or_less_when_it_is_compressed() {
    let results = results(&measure("store-bytes", &["--compressions", "none,lz4"]));
    let number = |at: usize, key: &str| results[at][key].as_u64().unwrap();
    let data = number(0, "data_bytes") - number(0, "zero_bytes");
    let (none, lz4) = (number(0, "stored_bytes"), number(2, "stored_bytes"));
    // And the index, and the program's own pages.
    assert!((data..data + (1 << 20)).contains(&none), "{none} of {data}");
    assert!(lz4 < none * 3 / 4, "{lz4} of {none}");
}

#[test]
fn a_compression_that_there_is_not_is_refused() {
    let output = measure("store-refused", &["--compressions", "gzip"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("lz4, zstd"), "{said}");
}
