//! A TOML document with the origin of every key and value.

use std::ops::Range;

/// Where a key or value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Bytes of the file.
    Span(Range<usize>),
    /// An environment variable.
    Variable(String),
}
