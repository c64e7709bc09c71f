// SPDX-License-Identifier: Apache-2.0 OR MIT
//! With which options the running kernel was built.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;

use flate2::read::GzDecoder;

/// An option that matters to the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelOption {
    /// The kernel can load modules written in Rust.
    Rust,
    /// It has what finds out which pages of a mapping were written without a fault.
    MappingDirtyHelpers,
}

impl KernelOption {
    fn name(self) -> &'static str {
        match self {
            KernelOption::Rust => "CONFIG_RUST",
            KernelOption::MappingDirtyHelpers => "CONFIG_MAPPING_DIRTY_HELPERS",
        }
    }

    /// Whether a symbol is there only in kernels with the option.
    fn shows_in(self, symbol: &str) -> bool {
        match self {
            KernelOption::Rust => symbol.starts_with("rust_helper_"),
            KernelOption::MappingDirtyHelpers => symbol == "clean_record_shared_mapping_range",
        }
    }
}

/// Whether the running kernel was built with an option, by the first of these that can be read:
/// its list of symbols, its own copy of its configuration, that in `/boot`. `None` when none can.
pub fn has(option: KernelOption, release: &str) -> Option<bool> {
    let symbols =
        || symbols_have(option, BufReader::new(File::open("/proc/kallsyms").ok()?)).ok()?;
    let own = || {
        let mut text = String::new();
        let packed = File::open("/proc/config.gz").ok()?;
        GzDecoder::new(packed).read_to_string(&mut text).ok()?;
        Some(config_has(option, &text))
    };
    let in_boot = || {
        let text = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
        Some(config_has(option, &text))
    };
    symbols().or_else(own).or_else(in_boot)
}

/// `None` when the list is empty, as it is for some users.
fn symbols_have(option: KernelOption, list: impl BufRead) -> io::Result<Option<bool>> {
    let mut any = false;
    for line in list.lines() {
        let line = line?;
        let mut fields = line.split_whitespace().skip(2);
        let symbol = fields.next();
        // A fourth field is the module that the symbol belongs to.
        if fields.next().is_some() {
            continue;
        }
        any |= symbol.is_some();
        if symbol.is_some_and(|symbol| option.shows_in(symbol)) {
            return Ok(Some(true));
        }
    }
    Ok(any.then_some(false))
}

fn config_has(option: KernelOption, text: &str) -> bool {
    text.lines()
        .any(|line| line.strip_prefix(option.name()) == Some("=y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "0 T _text\n0 T clean_record_shared_mapping_range\n\
                           0 t rust_helper_kmap\t[ckpt]\n";

    fn symbols(option: KernelOption, list: &str) -> Option<bool> {
        symbols_have(option, list.as_bytes()).unwrap()
    }

    #[test]
    fn a_symbol_of_the_kernel_shows_its_option() {
        assert_eq!(
            symbols(KernelOption::MappingDirtyHelpers, SYMBOLS),
            Some(true)
        );
        assert_eq!(
            symbols(KernelOption::MappingDirtyHelpers, "0 T _text\n"),
            Some(false)
        );
    }

    #[test]
    fn a_symbol_of_a_module_says_nothing_about_the_kernel() {
        assert_eq!(symbols(KernelOption::Rust, SYMBOLS), Some(false));
    }

    #[test]
    fn an_empty_list_of_symbols_says_nothing() {
        assert_eq!(symbols(KernelOption::Rust, ""), None);
    }

    #[test]
    fn a_configuration_has_what_is_set_to_y() {
        let text = "CONFIG_RUST_IS_AVAILABLE=y\n# CONFIG_RUST is not set\n";
        assert!(!config_has(KernelOption::Rust, text));
        assert!(config_has(KernelOption::Rust, "CONFIG_RUST=y\n"));
    }
}
