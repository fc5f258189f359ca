//! TOML in, validated [`Settings`] out.
//!
//! The order: [`Source`] (text and environment) -> a tree with spans -> environment overrides -> a walk against the
//! JSON schema that finds every unknown key and wrong value -> typed tables -> [`Settings`]. Every stage collects all
//! its problems, and each problem knows its line, so one start shows them all.
//!
//! Not here: reading certificates, models and log filters (their owners do), and swapping settings at run time.

mod check;
mod environment;
mod error;
mod raw;
mod redacted;
mod schema;
mod settle;
mod source;
mod text;
mod tree;
mod upstream;
mod watch;

use std::path::PathBuf;

use refrain_core::Settings;

pub use error::{Errors, Place, Problem, Suggestion};
pub use redacted::redacted;
pub use schema::schema_json;
pub use settle::parse_key_hash;
pub use source::{Source, process_environment};
pub use text::parse_moment;
pub use upstream::for_upstream;
pub use watch::{WatchError, Watcher};

/// A configuration that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run.
    pub settings: Settings,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
    /// Files whose change asks for a reload: the config file, secrets, certificates.
    pub files: Vec<PathBuf>,
}

/// Turns a source into settings.
///
/// Relative paths in the file are relative to the file's folder.
///
/// # Errors
/// Every problem found, in the order of the file.
pub fn load(source: &Source) -> Result<Loaded, Errors> {
    let mut problems = error::Problems::new(source);
    let Some(mut tree) = tree::parse(source, &mut problems) else {
        return Err(problems.into_errors());
    };
    let schema = schema::Schema::of_config();
    environment::apply(source, &schema, &mut tree, &mut problems);
    let checked = check::check(&schema, &tree, &mut problems);
    let Some(raw) = raw::Config::of(checked, &mut problems) else {
        return Err(problems.into_errors());
    };
    settle::settle(raw, &tree, source, problems)
}
