// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line.

use std::path::PathBuf;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: ckpt-guest-tests [options] [filter...]

Tests of the kernel module. Run as root in the test VM, with the module loaded.
Results are KTAP version 1 on stdout. A filter is a part of a test's name; with
several, a test that matches any of them runs. With a ! in front, those that match
it do not run.

  --list         print the names of the tests and exit
  --seed N       seed of the random tests (default: from the clock; printed)
  --ops N        operations of each run of the shadow oracle (default 1000000)
  --fuzz-calls N calls of the processes that call anything (default 200000)
  --starve N     refuse the module N of a hundred allocations, at random, in all tests
  --module PATH  the module, for the tests that unload it (default /ckpt/ckpt.ko)
  --scratch DIR  a directory on a disk that can do O_DIRECT (default /scratch)
  --slow N       multiply the time limit of every test by N
  --help         this text

Exit code: 0 when no test failed, 1 when one did, 2 for a wrong argument.
";

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Print names only.
    pub list: bool,
    /// Print the usage only.
    pub help: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Operations of a run of the shadow oracle.
    pub ops: usize,
    /// Calls of the processes that call anything.
    pub fuzz_calls: usize,
    /// The module's file.
    pub module: PathBuf,
    /// Of a hundred allocations of the module, so many are refused in all tests.
    pub starve: u32,
    /// A directory on a real disk.
    pub scratch: PathBuf,
    /// Factor for time limits.
    pub slow: u32,
    /// Parts of names of tests to run; empty for all.
    pub filters: Vec<String>,
}

impl Options {
    /// Reads the arguments; `default_seed` is used without `--seed`.
    pub fn parse(
        arguments: impl Iterator<Item = String>,
        default_seed: u64,
    ) -> Result<Self, String> {
        let mut options = Self {
            list: false,
            help: false,
            seed: default_seed,
            ops: 1_000_000,
            fuzz_calls: 200_000,
            module: PathBuf::from("/ckpt/ckpt.ko"),
            starve: 0,
            scratch: PathBuf::from("/scratch"),
            slow: 1,
            filters: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--seed" => options.seed = number(&argument, &value()?)?,
                "--ops" => options.ops = number(&argument, &value()?)?,
                "--fuzz-calls" => options.fuzz_calls = number(&argument, &value()?)?,
                "--starve" => options.starve = number(&argument, &value()?)?,
                "--slow" => options.slow = number(&argument, &value()?)?,
                "--module" => options.module = PathBuf::from(value()?),
                "--scratch" => options.scratch = PathBuf::from(value()?),
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    /// Whether a test of that name is to run.
    pub fn wants(&self, name: &str) -> bool {
        let (out, only): (Vec<&str>, Vec<&str>) = self
            .filters
            .iter()
            .map(String::as_str)
            .partition(|part| part.starts_with('!'));
        let matches = |part: &&str| name.contains(part.trim_start_matches('!'));
        (only.is_empty() || only.iter().any(matches)) && !out.iter().any(matches)
    }
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{option} needs a number, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(words.iter().map(|word| (*word).to_owned()), 7)
    }

    #[test]
    fn the_seed_is_the_given_one_or_the_default() {
        assert_eq!(parse(&[]).unwrap().seed, 7);
        assert_eq!(parse(&["--seed", "12"]).unwrap().seed, 12);
    }

    #[test]
    fn a_filter_selects_by_part_of_the_name() {
        let options = parse(&["delta", "poll"]).unwrap();
        assert!(options.wants("delta::since_zero"));
        assert!(options.wants("poll::commit"));
        assert!(!options.wants("list::order"));
        assert!(parse(&[]).unwrap().wants("list::order"));
    }

    #[test]
    fn a_filter_with_an_exclamation_mark_takes_out() {
        let options = parse(&["!delta"]).unwrap();
        assert!(!options.wants("delta::since_zero"));
        assert!(options.wants("poll::commit"));
        let options = parse(&["delta", "!zero"]).unwrap();
        assert!(!options.wants("delta::since_zero"));
        assert!(options.wants("delta::order"));
        assert!(!options.wants("poll::commit"));
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(parse(&["--seed"]).unwrap_err().contains("--seed"));
        assert!(parse(&["--ops", "x"]).unwrap_err().contains("--ops"));
        assert!(parse(&["--frob"]).unwrap_err().contains("--frob"));
    }
}
