//! A strict, bounded JSON reader (RFC 8259) that keeps what the text said: number lexemes and byte spans.
//!
//! It refuses what two readers could understand in two ways: duplicate names (compared decoded), lone surrogates, text
//! that isn't UTF-8. Strings are decoded only when asked for. It builds no tree of owned values: a document is
//! the original text and one flat table of nodes.

mod document;
mod escape;
pub mod pointer;
mod read;
mod scan;
mod tag;
mod write;

pub use document::{Document, Kind, Members, Outline, Value};
pub use read::{Error, ErrorKind, Limits, read, read_text};
pub use write::{Cut, canonical, canonical_less, canonical_members, string};

pub(crate) use tag::Tag;

#[cfg(test)]
mod tests;
