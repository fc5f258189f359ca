//! Files whose content is known beforehand.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// A file of a package and the SHA-256 that it must have.
pub(super) struct Pinned {
    /// Relative to the package's folder.
    pub(super) path: &'static str,
    pub(super) sha256: &'static str,
}

/// Copies the files into a folder (flat, by file name) and checks the copies.
pub(super) fn copy_checked(from: &Path, files: &[Pinned], to: &Path) -> Result<()> {
    for file in files {
        let source = from.join(file.path);
        let name = source.file_name().context("a pinned path ends in a file name")?;
        let target = to.join(name);
        fs::copy(&source, &target).with_context(|| format!("can't copy {}", source.display()))?;
        check(&target, file.sha256)?;
    }
    Ok(())
}

/// Fails if the file's hash is another.
pub(super) fn check(path: &Path, expected: &str) -> Result<()> {
    let found = sha256_of_file(path)?;
    if found != expected {
        bail!(
            "{} has SHA-256 {found}, expected {expected}: the package was changed or its download broke",
            path.display()
        );
    }
    Ok(())
}

/// One line a pin, for fingerprints.
pub(super) fn lines(files: &[Pinned]) -> String {
    files.iter().map(|file| format!("{} {}\n", file.path, file.sha256)).collect()
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    let mut hasher = HashWriter(Sha256::new());
    io::copy(&mut file, &mut hasher).with_context(|| format!("can't read {}", path.display()))?;
    Ok(hex(&hasher.0.finalize()))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(sha256(b"abc"), ABC);
    }

    #[test]
    fn a_changed_file_is_refused() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pin = [Pinned { path: "sub/data", sha256: ABC }];
        fs::create_dir(from.path().join("sub")).unwrap();
        fs::write(from.path().join("sub/data"), "abc").unwrap();
        copy_checked(from.path(), &pin, to.path()).unwrap();
        assert_eq!(fs::read(to.path().join("data")).unwrap(), b"abc");

        fs::write(from.path().join("sub/data"), "abd").unwrap();
        let error = copy_checked(from.path(), &pin, to.path()).unwrap_err().to_string();
        assert!(error.contains(ABC), "{error}");
    }
}
