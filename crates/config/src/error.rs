//! What is wrong with a configuration: where, at which key, what, and what was probably meant.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::source::Source;
use crate::tree::Origin;

/// Similarity (Jaro-Winkler) from which a known name is offered as what was meant.
const SIMILARITY_MIN: f64 = 0.8;

/// Every problem of a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The key's dotted path, `route.chat.pool`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<Suggestion>,
}

/// Where a problem was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    File {
        /// The file as it was named.
        file: PathBuf,
        /// Line, from 1; 0 if it's the file as a whole.
        line: usize,
        /// Column in characters, from 1; 0 if it's the file as a whole.
        column: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In an argument of the command line.
    Argument(String),
}

/// What was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suggestion {
    /// A known name that is nearly the same.
    Closest(String),
    /// All the known names; empty: there are none yet.
    Known(Vec<String>),
}

impl Errors {
    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Problem {
    /// A problem without a suggestion.
    pub(crate) fn new(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, path: path.into(), message: message.into(), suggestion: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// A file as a whole.
    pub(crate) fn file(file: &Path) -> Self {
        Self::File { file: file.to_owned(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: 0, .. } => write!(f, "{}", file.display()),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) | Self::Argument(name) => f.write_str(name),
        }
    }
}

impl Suggestion {
    /// The closest of the known names, or all of them if none is close.
    pub(crate) fn among<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let score = |candidate: &str| similarity(&name.to_lowercase(), &candidate.to_lowercase());
        known
            .iter()
            .map(|candidate| (score(candidate), *candidate))
            .filter(|(score, _)| *score >= SIMILARITY_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or_else(
                || Self::Known(known.iter().map(|name| (*name).to_owned()).collect()),
                |(_, closest)| Self::Closest(closest.to_owned()),
            )
    }
}

/// From 0 to 1. Jaro-Winkler is low on short words with two letters swapped (`tsl`), which are typos nonetheless.
fn similarity(a: &str, b: &str) -> f64 {
    let is_typo = a.chars().count() >= 3 && strsim::damerau_levenshtein(a, b) == 1;
    strsim::jaro_winkler(a, b).max(if is_typo { SIMILARITY_MIN } else { 0.0 })
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closest(name) => write!(f, "did you mean \"{name}\"?"),
            Self::Known(names) if names.is_empty() => f.write_str("none is known"),
            Self::Known(names) => write!(f, "known: {}", names.join(", ")),
        }
    }
}

/// Collects problems while a source is read.
pub(crate) struct Problems<'s> {
    source: &'s Source,
    found: Vec<Problem>,
}

impl<'s> Problems<'s> {
    /// None yet.
    pub(crate) fn new(source: &'s Source) -> Self {
        Self { source, found: Vec::new() }
    }

    /// Adds a problem.
    pub(crate) fn push(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    /// Adds a problem at a place of the tree.
    pub(crate) fn at(
        &mut self,
        origin: &Origin,
        path: &str,
        message: impl Into<String>,
        suggestion: Option<Suggestion>,
    ) {
        let place = self.place(origin);
        self.push(Problem { suggestion, ..Problem::new(place, path, message) });
    }

    /// Adds what was found in another source.
    pub(crate) fn take(&mut self, found: Vec<Problem>) {
        self.found.extend(found);
    }

    /// What was found.
    pub(crate) fn into_found(self) -> Vec<Problem> {
        self.found
    }

    /// Whether something at this path, or within it, is among the first `count` problems.
    pub(crate) fn holds(&self, path: &str, count: usize) -> bool {
        self.found.iter().take(count).any(|problem| is_within(&problem.path, path))
    }

    /// How many were found.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems in order; callers have made sure that there is one.
    pub(crate) fn into_errors(mut self) -> Errors {
        self.found.sort_by(|a, b| a.place.cmp(&b.place));
        Errors(self.found)
    }

    /// Where an origin is, for people.
    pub(crate) fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::Span(span) => self.place_of_span(span),
            Origin::Variable(name) => Place::Variable(name.clone()),
        }
    }

    fn place_of_span(&self, span: &Range<usize>) -> Place {
        let before = self.source.text.get(..span.start).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            file: self.source.file.clone(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Whether a dotted path is the other or lies within it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || outer.is_empty() || rest.starts_with(['.', '[']))
}
