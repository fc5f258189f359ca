//! The set-up folder: where results, staging and logs lie, and the lock that keeps two runs apart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::python::Python;

/// The set-up folder and the Python that works on it.
pub(super) struct Site {
    pub(super) dir: PathBuf,
    pub(super) python: Python,
}

/// Waits until no other run prepares the same folder; released when dropped.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    file.lock().with_context(|| format!("can't lock {}", path.display()))?;
    Ok(file)
}

impl Site {
    pub(super) fn new(dir: PathBuf, python: Python) -> Self {
        Self { dir, python }
    }

    /// The log of all child processes of set-up.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("setup.log")
    }

    /// An empty folder for a result in the making. What an interrupted run left is removed.
    pub(super) fn staging(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("staging").join(name);
        remove_dir(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        Ok(dir)
    }

    pub(super) fn remove_staging(&self) -> Result<()> {
        remove_dir(&self.dir.join("staging"))
    }

    /// Moves a staged folder to its place, in the stead of an older one.
    pub(super) fn install(&self, staged: &Path, name: &str) -> Result<PathBuf> {
        let place = self.dir.join(name);
        remove_dir(&place)?;
        fs::rename(staged, &place).with_context(|| format!("can't move {} into place", place.display()))?;
        Ok(place)
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
