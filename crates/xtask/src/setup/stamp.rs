//! Proof that a step is done: what decided its result, and the files that it left, with their sizes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::site::Site;

#[derive(Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Hash of the step's pins and scripts.
    fingerprint: String,
    files: Vec<Left>,
}

#[derive(Serialize, Deserialize)]
struct Left {
    path: PathBuf,
    bytes: u64,
}

impl Stamp {
    /// A stamp for these files, which must exist.
    pub(super) fn of(fingerprint: String, files: Vec<PathBuf>) -> Result<Self> {
        let files = files
            .into_iter()
            .map(|path| {
                let bytes = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
                Ok(Left { path, bytes })
            })
            .collect::<Result<_>>()?;
        Ok(Self { fingerprint, files })
    }

    pub(super) fn save(&self, site: &Site, step: &str) -> Result<()> {
        let path = stamp_path(&site.dir, step);
        fs::create_dir_all(site.dir.join("stamps"))?;
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("can't write {}", path.display()))
    }

    /// Whether the step was done from the same inputs and its files are still there, of the same size.
    pub(super) fn fits(site: &Site, step: &str, fingerprint: &str) -> bool {
        fs::read(stamp_path(&site.dir, step))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .is_some_and(|stamp| stamp.fingerprint == fingerprint && stamp.files.iter().all(Left::is_there))
    }

    pub(super) fn remove(site: &Site, step: &str) -> Result<()> {
        match fs::remove_file(stamp_path(&site.dir, step)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Left {
    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes)
    }
}

fn stamp_path(dir: &Path, step: &str) -> PathBuf {
    dir.join("stamps").join(format!("{step}.json"))
}

#[cfg(test)]
mod tests {
    use super::super::python::Python;
    use super::*;

    fn site(dir: &Path) -> Site {
        Site::new(dir.to_owned(), Python { executable: "python3".into(), version: (3, 11) })
    }

    #[test]
    fn a_stamp_fits_until_inputs_or_files_change() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        let file = dir.path().join("weights");
        fs::write(&file, "1234").unwrap();
        assert!(!Stamp::fits(&site, "model", "a"));

        Stamp::of("a".into(), vec![file.clone()]).unwrap().save(&site, "model").unwrap();
        assert!(Stamp::fits(&site, "model", "a"));
        assert!(!Stamp::fits(&site, "model", "b"), "other pins");
        assert!(!Stamp::fits(&site, "llm", "a"), "another step");

        fs::write(&file, "12").unwrap();
        assert!(!Stamp::fits(&site, "model", "a"), "a cut file");
        fs::remove_file(&file).unwrap();
        assert!(!Stamp::fits(&site, "model", "a"), "a file that has gone");
    }

    #[test]
    fn a_removed_stamp_no_longer_fits() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        Stamp::of("a".into(), vec![]).unwrap().save(&site, "tools").unwrap();
        Stamp::remove(&site, "tools").unwrap();
        Stamp::remove(&site, "tools").unwrap();
        assert!(!Stamp::fits(&site, "tools", "a"));
    }
}
