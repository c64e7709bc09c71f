// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl`, the tool.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
