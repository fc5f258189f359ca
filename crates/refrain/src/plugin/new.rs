//! `refrain plugin new`.

use std::process::ExitCode;

use crate::cli::NewPluginArguments;

/// Not there yet.
pub(super) fn new(_arguments: &NewPluginArguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not there yet")
}
