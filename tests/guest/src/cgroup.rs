// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Control groups of the tests' own.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::failure::Failure;
use crate::failure::Outcome;

const ROOT: &str = "/sys/fs/cgroup";

/// A control group; removed when dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new group with these controllers. Skips the test where there are none.
    pub fn create(name: &str, controllers: &[&str]) -> Result<Self, Failure> {
        let available = std::fs::read_to_string(format!("{ROOT}/cgroup.controllers"))
            .map_err(|error| Failure::skip(format!("no cgroup2 on {ROOT}: {error}")))?;
        for controller in controllers {
            if !available.split_whitespace().any(|word| word == *controller) {
                return Err(Failure::skip(format!(
                    "no {controller} controller on {ROOT}"
                )));
            }
            std::fs::write(
                format!("{ROOT}/cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
        let path = Path::new(ROOT).join(format!("ckpt-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Puts the calling process into it.
    pub fn enter(&self) -> Outcome {
        Ok(std::fs::write(self.path.join("cgroup.procs"), "0")?)
    }

    /// Puts the calling process back into the root group.
    pub fn leave(&self) -> Outcome {
        Ok(std::fs::write(format!("{ROOT}/cgroup.procs"), "0")?)
    }

    /// Sets one of its files.
    pub fn set(&self, file: &str, value: &str) -> Result<(), std::io::Error> {
        std::fs::write(self.path.join(file), value)
    }

    /// A file that is one number.
    pub fn number(&self, file: &str) -> Result<u64, Failure> {
        Ok(std::fs::read_to_string(self.path.join(file))?
            .trim()
            .parse()?)
    }

    /// A number with a name in a file of such lines.
    pub fn counter(&self, file: &str, name: &str) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(self.path.join(file))?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| Failure::new(format!("no {name} in {file}: {text}")))
    }

    /// Waits until a file's number is below a bound: the kernel gives charges
    /// back in batches.
    pub fn wait_until_below(&self, file: &str, bound: u64) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let number = self.number(file)?;
            if number < bound {
                return Ok(());
            }
            crate::ensure!(
                Instant::now() < deadline,
                "{file} is still {number}, not below {bound}"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that cannot be removed does no harm: its name is not used again.
        let _ = std::fs::remove_dir(&self.path);
    }
}
