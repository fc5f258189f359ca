//! The secret under which keys and records are hashed: who lacks it can neither compute a key nor forge a record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rand::TryRngCore;
use zeroize::Zeroizing;

use crate::error::StoreError;

/// The file's name within the store's directory.
const FILE: &str = "secret";

/// Sub-keys of one 32-byte secret, one for each use. Never printed; wiped on drop.
pub struct KeySecret {
    partition: Zeroizing<[u8; 32]>,
    exact: Zeroizing<[u8; 32]>,
    fingerprint: Zeroizing<[u8; 32]>,
    record: Zeroizing<[u8; 32]>,
    check: Zeroizing<[u8; 32]>,
    salt: Zeroizing<[u8; 32]>,
    subject: Zeroizing<[u8; 32]>,
    part: Zeroizing<[u8; 32]>,
}

impl KeySecret {
    /// Derives the sub-keys and wipes the secret.
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        let derive = |context| Zeroizing::new(blake3::derive_key(context, secret.as_slice()));
        Self {
            partition: derive("refrain 2026 cache partition v3"),
            exact: derive("refrain 2026 cache key v3"),
            fingerprint: derive("refrain 2026 cache fingerprint v3"),
            record: derive("refrain 2026 cache record v1"),
            check: derive("refrain 2026 cache secret check v1"),
            salt: derive("refrain 2026 prefix cache salt v1"),
            subject: derive("refrain 2026 limit subject v1"),
            part: derive("refrain 2026 cache key part v1"),
        }
    }

    /// A new secret that dies with the process: right for a store in memory only.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn random() -> Result<Self, StoreError> {
        Ok(Self::from_bytes(*random_bytes()?))
    }

    /// Reads the secret file of a store directory, or makes one (mode 0600, synced before it is used).
    ///
    /// # Errors
    /// If the directory or the file can't be made or read, or the file isn't 32 bytes long.
    pub fn load_or_create(dir: &Path) -> Result<Self, StoreError> {
        Self::load_or_create_file(&dir.join(FILE))
    }

    /// Reads a secret file, or makes one, with its directory.
    ///
    /// # Errors
    /// As [`KeySecret::load_or_create`].
    pub fn load_or_create_file(path: &Path) -> Result<Self, StoreError> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |source| StoreError::Secret { path: path.into(), source };
        match File::open(path) {
            Ok(file) => read(file, path).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir)
                    .map_err(|source| StoreError::Directory { dir: dir.into(), source })?;
                let bytes = random_bytes()?;
                create(dir, path, &bytes).map_err(failed)?;
                File::open(path).and_then(|file| read(file, path)).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads a secret file; none if there is none. Makes nothing.
    ///
    /// # Errors
    /// If the file can't be read, or isn't 32 bytes long.
    pub fn load_file(path: &Path) -> Result<Option<Self>, StoreError> {
        let failed = |source| StoreError::Secret { path: path.into(), source };
        match File::open(path) {
            Ok(file) => read(file, path).map(Some).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(crate) fn partition_key(&self) -> &[u8; 32] {
        &self.partition
    }

    pub(crate) fn exact_key(&self) -> &[u8; 32] {
        &self.exact
    }

    pub(crate) fn fingerprint_key(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(crate) fn record_key(&self) -> &[u8; 32] {
        &self.record
    }

    /// What parts of keys are told by, one by one.
    pub(crate) fn part_key(&self) -> &[u8; 32] {
        &self.part
    }

    /// What salts of tenants are made with, the same for all proxies of this secret.
    pub(crate) fn salt_key(&self) -> [u8; 32] {
        *self.salt
    }

    /// What names of limits' subjects are made with.
    pub(crate) fn subject_key(&self) -> &[u8; 32] {
        &self.subject
    }

    /// Tells stores of one secret from those of another, without telling anything of the secret.
    pub(crate) fn check_value(&self) -> &[u8; 32] {
        &self.check
    }
}

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret(..)")
    }
}

fn random_bytes() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rngs::OsRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| StoreError::NoRandomness)?;
    Ok(bytes)
}

fn read(file: File, path: &Path) -> io::Result<KeySecret> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the cache secret can be read by others; chmod it to 600");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    file.take(33).read_to_end(&mut bytes)?;
    let secret: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it must be 32 bytes long; delete it to start an empty cache",
        )
    })?;
    Ok(KeySecret::from_bytes(secret))
}

/// Written beside and linked, so that a crash can't leave half a secret; of two processes that race, both use the first's.
fn create(dir: &Path, path: &Path, bytes: &[u8; 32]) -> io::Result<()> {
    let temporary = dir.join(format!("{FILE}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::remove_file(&temporary)?,
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_secret_is_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = KeySecret::load_or_create(dir.path()).unwrap();
        let found = KeySecret::load_or_create(dir.path()).unwrap();
        assert_eq!(made.check_value(), found.check_value());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_secret_that_is_only_looked_for_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        assert!(KeySecret::load_file(&path).unwrap().is_none());
        assert!(!path.exists());
        let made = KeySecret::load_or_create_file(&path).unwrap();
        let found = KeySecret::load_file(&path).unwrap().unwrap();
        assert_eq!(made.check_value(), found.check_value());
    }

    #[test]
    fn a_damaged_secret_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 31, 33] {
            fs::write(dir.path().join(FILE), vec![7; len]).unwrap();
            let error = KeySecret::load_or_create(dir.path()).unwrap_err();
            assert!(error.to_string().contains("delete it"), "{error}");
        }
    }

    #[test]
    fn sub_keys_differ_and_none_is_printed() {
        let secret = KeySecret::from_bytes([9; 32]);
        let keys = [
            secret.partition_key(),
            secret.exact_key(),
            secret.fingerprint_key(),
            secret.record_key(),
            secret.check_value(),
            secret.part_key(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(format!("{secret:?}"), "KeySecret(..)");
    }
}
