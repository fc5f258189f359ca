//! What people said of answers, kept as JSON lines beside the store: digests and numbers, no text. At most so many lines; then the older
//! half is forgotten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use refrain_core::settings::Store;
use serde::{Deserialize, Serialize};

/// The file's name in the store's folder.
const FILE: &str = "labels.jsonl";
/// Most lines of it.
const LINES_MAX: usize = 20_000;

/// What somebody said of an answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// When it was said, in ms since the Unix epoch.
    pub(crate) at_ms: u64,
    pub(crate) route: String,
    /// The key of the stored answer.
    pub(crate) key: String,
    /// Digest of the question that it was served to.
    pub(crate) question: Option<String>,
    /// How similar that is to the one it was given to; none: it is the same.
    pub(crate) similarity: Option<f32>,
    /// Whether it is an answer to it.
    pub(crate) same: bool,
}

/// Where labels are kept.
pub(crate) struct Labels(PathBuf);

impl Labels {
    /// Beside a store; none if nothing of it is on this machine's disk.
    pub(crate) fn beside(store: &Store) -> Option<Self> {
        let dir = match store {
            Store::Off => None,
            Store::Embedded(store) => store.dir.clone(),
            Store::Redis(store) => store.secret_file.parent().map(Path::to_path_buf),
        };
        dir.map(|dir| Self(dir.join(FILE)))
    }

    /// Appends labels. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn append(&self, labels: &[Label]) -> io::Result<()> {
        /// Whoever shortens the file must not lose what another appends meanwhile.
        static WRITING: Mutex<()> = Mutex::new(());
        let _writing = WRITING.lock();
        let Self(path) = self;
        self.shorten()?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for label in labels {
            let mut line = serde_json::to_vec(label)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        file.sync_all()
    }

    /// Forgets the older half of a long file.
    fn shorten(&self) -> io::Result<()> {
        let Self(path) = self;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() < LINES_MAX {
            return Ok(());
        }
        let beside = path.with_extension("jsonl.new");
        fs::write(&beside, lines[LINES_MAX / 2..].join("\n") + "\n")?;
        fs::rename(&beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_appended_and_the_older_half_is_forgotten_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let labels = Labels(dir.path().join(FILE));
        let label = |at_ms| Label {
            at_ms,
            route: "chat".into(),
            key: "00".into(),
            question: None,
            similarity: Some(0.9),
            same: false,
        };
        let many: Vec<Label> = (0..LINES_MAX as u64).map(label).collect();
        labels.append(&many).unwrap();
        labels.append(&[label(7)]).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let lines: Vec<Label> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), LINES_MAX / 2 + 1);
        assert_eq!((lines[0].at_ms, lines.last().unwrap().at_ms), (LINES_MAX as u64 / 2, 7));
    }
}
