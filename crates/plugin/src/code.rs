//! Compiled code on disk, so that a restart doesn't compile again.
//!
//! Loading compiled code is running it with all rights of this process: so the directory and its files must belong to this
//! process's user and be writable by nobody else, and each file carries a digest over what it is and what it holds. The
//! digest finds damage; the ownership keeps others out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::PluginError;

/// Components whose code is kept; past that, the oldest go.
const FILES_MAX: usize = 64;
/// Code of one component, in bytes.
const CODE_BYTES_MAX: u64 = 512 * 1024 * 1024;
const SUFFIX: &str = "cwasm";
const CONTEXT: &str = "refrain 2026 compiled policy v1";
const DIGEST_BYTES: usize = 32;

/// The directory of compiled code.
#[derive(Debug)]
pub(crate) struct CodeCache {
    dir: PathBuf,
    /// What this engine's code is compatible with.
    compatibility: [u8; 32],
    writes: AtomicU64,
}

impl CodeCache {
    /// Makes the directory if it isn't there, and checks whose it is. None if it can't be made (a service without a home):
    /// that costs each start some time, and is only logged.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Option<Self>, PluginError> {
        let refused = |message: String| PluginError::CodeDir { path: dir.to_owned(), message };
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            warn!(dir = %dir.display(), %error, "compiled policies are not kept; name a folder in plugin_host.code_dir");
            return Ok(None);
        }
        let found = fs::symlink_metadata(dir).map_err(|error| refused(error.to_string()))?;
        if !found.is_dir() {
            return Err(refused("it is no directory; remove it or name another".into()));
        }
        check_owner(&found).map_err(refused)?;
        let compatibility = compatibility(engine);
        Ok(Some(Self { dir: dir.to_owned(), compatibility, writes: AtomicU64::new(0) }))
    }

    /// Code that this host compiled before; none if there is none, or if it can't be trusted.
    pub(crate) fn find(&self, engine: &Engine, sha256: &[u8; 32]) -> Option<Component> {
        let path = self.path(sha256);
        let code = match self.read(&path, sha256) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "compiled policy set aside");
                drop(fs::remove_file(&path));
                return None;
            }
        };
        load(engine, &code)
            .inspect_err(|error| warn!(path = %path.display(), %error, "compiled policy not loaded"))
            .ok()
    }

    /// Keeps code. A failure costs a later start some time, so it is only logged.
    pub(crate) fn keep(&self, sha256: &[u8; 32], component: &Component) {
        let kept = component.serialize().map_err(io::Error::other).and_then(|code| self.write(sha256, &code));
        if let Err(error) = kept {
            warn!(dir = %self.dir.display(), %error, "compiled policy not kept");
        }
        self.drop_oldest();
    }

    fn path(&self, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join(format!(
            "{}-{}.{SUFFIX}",
            refrain_core::hex(sha256),
            refrain_core::hex(&self.compatibility[..8])
        ))
    }

    fn read(&self, path: &Path, sha256: &[u8; 32]) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.len() > CODE_BYTES_MAX {
            return Err(io::Error::other("no file of compiled code"));
        }
        check_owner(&found).map_err(io::Error::other)?;
        let mut all = Vec::new();
        file.take(CODE_BYTES_MAX).read_to_end(&mut all)?;
        let digest = all.split_off(all.len().saturating_sub(DIGEST_BYTES));
        if digest != self.digest(sha256, &all) {
            return Err(io::Error::other("its digest is wrong"));
        }
        Ok(all)
    }

    /// Writes beside and renames, so that no reader sees half a file.
    fn write(&self, sha256: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let beside = self.dir.join(format!(
            "{}.{}.{}",
            refrain_core::hex(sha256),
            std::process::id(),
            self.writes.fetch_add(1, Ordering::Relaxed)
        ));
        let written =
            self.write_to(&beside, sha256, code).and_then(|()| fs::rename(&beside, self.path(sha256)));
        if written.is_err() {
            drop(fs::remove_file(&beside));
        }
        written
    }

    fn write_to(&self, path: &Path, sha256: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(code)?;
        file.write_all(&self.digest(sha256, code))?;
        file.sync_all()
    }

    fn digest(&self, sha256: &[u8; 32], code: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(sha256).update(&self.compatibility).update(code);
        *hasher.finalize().as_bytes()
    }

    fn drop_oldest(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .filter(|(_, path)| path.extension().is_some_and(|suffix| suffix == SUFFIX))
            .collect();
        files.sort();
        for (_, path) in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
            drop(fs::remove_file(path));
        }
    }
}

/// The only unsafe code of the workspace: what is loaded was written by [`CodeCache::keep`] of a compatible engine, as its
/// digest and the file's owner say. See `docs/decisions/0005-plugin-host.md`.
#[expect(unsafe_code, reason = "compiled code is trusted by its owner and its digest")]
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` runs what it is given. `CodeCache::read` has checked that this user alone could write the file,
    // and that it is, byte for byte, what `Component::serialize` of a compatible engine gave for this component.
    unsafe { Component::deserialize(engine, code) }
}

/// That this process's user owns it, and nobody else may write to it.
fn check_owner(found: &fs::Metadata) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Err(format!(
            "it belongs to user {}, not to user {user}; name a directory of its own",
            found.uid()
        ));
    }
    match found.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!("others may write to it (mode {:03o}); run chmod 700 on it", found.mode() & 0o777)),
    }
}

fn compatibility(engine: &Engine) -> [u8; 32] {
    struct Blake3(blake3::Hasher);
    impl Hasher for Blake3 {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Blake3(blake3::Hasher::new_derive_key(CONTEXT));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    *hasher.0.finalize().as_bytes()
}
