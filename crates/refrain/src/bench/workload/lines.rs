//! Lines of a file with their numbers, bounded.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;

/// Largest file that is read: it is kept in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// All lines that are not blank, numbered from 1.
///
/// # Errors
/// The file can't be opened, is too large, or a line isn't UTF-8.
pub(super) fn numbered(file: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(usize, String)>>> {
    let name = file.display().to_string();
    let opened = File::open(file).with_context(|| format!("can't read {name}"))?;
    let bytes = opened.metadata()?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{name}: larger than {FILE_BYTES_MAX} bytes; take a part of it");
    let lines = BufReader::new(opened.take(FILE_BYTES_MAX)).lines().enumerate();
    Ok(lines
        .map(move |(at, line)| Ok((at + 1, line.with_context(|| format!("{name}:{}", at + 1))?)))
        .filter(|line| !matches!(line, Ok((_, text)) if text.trim().is_empty())))
}
