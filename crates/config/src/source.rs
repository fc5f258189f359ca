//! What a configuration is made of, before anything is understood: text, its name, and the environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Errors, Place, Problem};

/// Largest file that is read as configuration, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Text of a config file, with the environment that overrides it.
#[derive(Clone)]
pub struct Source {
    /// The file's name, as errors print it.
    pub(crate) file: PathBuf,
    /// The file's text.
    pub(crate) text: String,
    /// Variables by name.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Source {
    /// Reads a file of at most 4 MiB.
    ///
    /// # Errors
    /// One problem, if the file can't be read, is too large or is not UTF-8.
    pub fn read(
        file: impl Into<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Errors> {
        let file = file.into();
        match read_bounded(&file, FILE_BYTES_MAX) {
            Ok(text) => Ok(Self::from_text(file, text, environment)),
            Err(message) => {
                Err(Errors::from(Problem::new(Place::file(&file), "", format!("can't read it: {message}"))))
            }
        }
    }

    /// Takes text as if it had been read from `file`: relative paths within are relative to the folder of `file`.
    pub fn from_text(
        file: impl Into<PathBuf>,
        text: impl Into<String>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self { file: file.into(), text: text.into(), environment: environment.into_iter().collect() }
    }

    /// Makes a path of the file absolute or relative to the working directory, as the file itself is named.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }
}

impl std::fmt::Debug for Source {
    /// Neither text nor environment: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The variables of this process; those that are not UTF-8 are left out.
pub fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads a text file, refusing one that is larger than `bytes_max`.
pub(crate) fn read_bounded(file: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("larger than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}
