// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Settings of the kernel in /proc/sys.

use crate::failure::Failure;

/// A changed setting, set back when dropped.
pub struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    /// Changes a setting.
    pub fn new(path: &'static str, value: &str) -> Result<Self, Failure> {
        let before = std::fs::read_to_string(path)?;
        std::fs::write(path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Nothing can be done when this fails; later tests will tell.
        let _ = std::fs::write(self.path, &self.before);
    }
}
