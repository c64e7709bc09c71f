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
    const ALL: [KernelOption; 2] = [KernelOption::Rust, KernelOption::MappingDirtyHelpers];

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

/// Which options the running kernel was built with, as far as it can be told.
#[derive(Debug)]
pub struct KernelConfig(Source);

#[derive(Debug)]
enum Source {
    /// The kernel's own symbols, of those that show an option.
    Symbols(Vec<String>),
    /// Its configuration.
    Text(String),
    Nothing,
}

impl KernelConfig {
    /// Reads the first of these that can be read: the kernel's list of its symbols, its own copy of
    /// its configuration, that in `/boot`.
    pub fn of_running(release: &str) -> KernelConfig {
        let symbols =
            || telling_symbols(BufReader::new(File::open("/proc/kallsyms").ok()?)).ok()?;
        let own = || {
            let mut text = String::new();
            let packed = File::open("/proc/config.gz").ok()?;
            GzDecoder::new(packed).read_to_string(&mut text).ok()?;
            Some(text)
        };
        let text = || own().or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok());
        KernelConfig(match symbols() {
            Some(symbols) => Source::Symbols(symbols),
            None => text().map_or(Source::Nothing, Source::Text),
        })
    }

    /// Whether the kernel was built with an option; `None` when nothing tells.
    pub fn has(&self, option: KernelOption) -> Option<bool> {
        match &self.0 {
            Source::Symbols(symbols) => Some(symbols.iter().any(|symbol| option.shows_in(symbol))),
            Source::Text(text) => {
                let is_set = |line: &str| line.strip_prefix(option.name()) == Some("=y");
                Some(text.lines().any(is_set))
            }
            Source::Nothing => None,
        }
    }
}

/// The symbols that show an option, without those of modules; `None` when the list is empty, as
/// it is for some users.
pub fn telling_symbols(list: impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut any = false;
    let mut telling = Vec::new();
    for line in list.lines() {
        let line = line?;
        let mut fields = line.split_whitespace().skip(2);
        // A field behind the symbol is the module that it belongs to.
        let (Some(symbol), None) = (fields.next(), fields.next()) else {
            continue;
        };
        any = true;
        if KernelOption::ALL
            .iter()
            .any(|option| option.shows_in(symbol))
        {
            telling.push(symbol.to_owned());
        }
    }
    Ok(any.then_some(telling))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "0 T _text\n0 T clean_record_shared_mapping_range\n\
                           0 t rust_helper_kmap\t[ckpt]\n";

    fn by_symbols(option: KernelOption, list: &str) -> Option<bool> {
        let symbols = telling_symbols(list.as_bytes()).unwrap();
        KernelConfig(symbols.map_or(Source::Nothing, Source::Symbols)).has(option)
    }

    #[test]
    fn a_symbol_of_the_kernel_shows_its_option() {
        let helpers = KernelOption::MappingDirtyHelpers;
        assert_eq!(by_symbols(helpers, SYMBOLS), Some(true));
        assert_eq!(by_symbols(helpers, "0 T _text\n"), Some(false));
    }

    #[test]
    fn a_symbol_of_a_module_says_nothing_about_the_kernel() {
        assert_eq!(by_symbols(KernelOption::Rust, SYMBOLS), Some(false));
    }

    #[test]
    fn an_empty_list_of_symbols_says_nothing() {
        assert_eq!(by_symbols(KernelOption::Rust, ""), None);
    }

    #[test]
    fn a_configuration_has_what_is_set_to_y() {
        let has = |text: &str| KernelConfig(Source::Text(text.into())).has(KernelOption::Rust);
        let without = "CONFIG_RUST_IS_AVAILABLE=y\n# CONFIG_RUST is not set\n";
        assert_eq!(has(without), Some(false));
        assert_eq!(has("CONFIG_RUST=y\n"), Some(true));
    }
}
