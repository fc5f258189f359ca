//! `cargo xtask test`: set-up, then all tests but the documentation's, through nextest.

use anyhow::Result;

use crate::manifest::{Manifest, require};
use crate::run::{Profile, build};
use crate::{command, plugins, setup, workspace};

/// What to hand on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo nextest run --workspace`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// Prepares what is missing and runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    let manifest = Manifest::load(&workspace::setup_dir())?;
    let nextest = require("cargo-nextest", "tools", manifest.nextest.as_ref())?;
    // Once, instead of once a test process.
    let refrain = build(Profile::Dev)?;
    plugins::build_and_test(&refrain)?;
    let mut tests = std::process::Command::new(nextest);
    tests.current_dir(workspace::root()).args(["nextest", "run", "--workspace"]).args(&args.nextest);
    tests.env("REFRAIN_BIN", refrain);
    command::clean_environment(&mut tests);
    command::run(&mut tests)
}
