//! The `refrain` program. Everything is in the library, where tests reach it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    refrain::run(refrain::Cli::parse())
}
