//! The `refrain` program. Everything is in the library, where tests reach it.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    refrain::run(refrain::Cli::parse())
}
