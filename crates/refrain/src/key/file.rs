//! Files with keys, edited without losing what people wrote in them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toml_edit::{DocumentMut, Item, Table};

/// First lines of a file that is made.
const HEADER: &str =
    "# API keys of Refrain: their hashes, never themselves. `refrain key` changes this file; so may you.\n";

/// A file with `[key.NAME]` tables, perhaps among others. Nobody else changes it by this program meanwhile.
pub(super) struct KeysFile {
    path: PathBuf,
    document: DocumentMut,
    /// Of the folder, held until the end.
    _lock: File,
}

impl KeysFile {
    /// Reads one.
    ///
    /// # Errors
    /// It can't be read, or isn't TOML.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // A link stays one: what it leads to is replaced.
        let path = path.canonicalize().with_context(|| format!("can't read {}", path.display()))?;
        let lock = lock(&path)?;
        Self::read(path, lock)
    }

    fn read(path: PathBuf, lock: File) -> anyhow::Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Self::of(path, &text, lock)
    }

    /// The same, or a new one that is not there before it is saved.
    ///
    /// # Errors
    /// As [`KeysFile::open`].
    pub(super) fn open_or_new(path: &Path) -> anyhow::Result<Self> {
        if !matches!(fs::exists(path), Ok(false)) {
            return Self::open(path);
        }
        let lock = lock(path)?;
        // Another command may have made it before this one had the lock.
        match fs::exists(path) {
            Ok(false) => Self::of(path.to_owned(), HEADER, lock),
            _ => Self::read(path.to_owned(), lock),
        }
    }

    fn of(path: PathBuf, text: &str, lock: File) -> anyhow::Result<Self> {
        let document = text.parse().with_context(|| format!("{} isn't TOML", path.display()))?;
        Ok(Self { path, document, _lock: lock })
    }

    /// Its keys by name.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.document.get("key").and_then(Item::as_table_like).into_iter().flat_map(|keys| keys.iter())
    }

    /// Whether it is a config that has no keys, here or in a file of their own.
    pub(super) fn asks_for_no_key(&self) -> bool {
        let is_config = self.document.get("pool").is_some() || self.document.get("listener").is_some();
        is_config && self.keys_file().is_none() && self.keys().next().is_none()
    }

    /// Whether it has a key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys().any(|(known, _)| known == name)
    }

    /// This name, or one that begins with it and is not taken.
    pub(super) fn free_name(&self, name: &str) -> String {
        let mut names =
            std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name}-{number}")));
        names.find(|name| !self.has(name)).unwrap_or_default()
    }

    /// The salt of its first key: keys of one salt cost a proxy one hash together.
    pub(super) fn salt(&self) -> Option<[u8; 16]> {
        let hash = self.keys().find_map(|(_, key)| key.get("hash")?.as_str())?;
        Some(refrain_config::parse_key_hash(hash).ok()?.salt)
    }

    /// The file of keys that a config file names.
    pub(super) fn keys_file(&self) -> Option<PathBuf> {
        let named = self.document.get("keys_file")?.as_str()?;
        Some(self.path.parent().map_or_else(|| named.into(), |folder| folder.join(named)))
    }

    /// Adds a `[key.NAME]` block.
    ///
    /// # Errors
    /// Its `key` is no table.
    pub(super) fn add(&mut self, block: &str) -> anyhow::Result<()> {
        let text = format!("{}\n\n{block}", self.document.to_string().trim_end());
        self.document =
            text.parse().with_context(|| format!("{} takes no [key.NAME]", self.path.display()))?;
        Ok(())
    }

    /// Removes a key with the comment right above it; whether there was one. What stands above that, with a blank line
    /// between, is about more than this key and stays.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(keys) = self.document.get_mut("key").and_then(Item::as_table_like_mut) else { return false };
        let Some(removed) = keys.remove(name) else { return false };
        let above = removed.as_table().map(|table| (table.position(), comment_above(table)));
        if let Some((position, kept)) = above.filter(|(_, kept)| !kept.trim().is_empty()) {
            let next = keys.iter_mut().filter_map(|(_, key)| key.as_table_mut());
            match next.filter(|table| table.position() > position).min_by_key(|table| table.position()) {
                Some(next) => {
                    let own = prefix(next);
                    next.decor_mut().set_prefix(kept + &own);
                }
                None => {
                    let own = self.document.trailing().as_str().unwrap_or_default().to_owned();
                    self.document.set_trailing(kept + &own);
                }
            }
        }
        true
    }

    /// Puts it in the old one's place at once, with the old one's owner and rights; a new one is for its owner alone.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let text = self.document.to_string();
        replace(&self.path, &text).with_context(|| format!("can't write {}", self.path.display()))
    }
}

/// What stands before a table's head.
fn prefix(table: &Table) -> String {
    table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned()
}

/// The same up to the last blank line.
fn comment_above(table: &Table) -> String {
    let mut above = prefix(table);
    above.truncate(above.rfind("\n\n").map_or(0, |at| at + 2));
    above
}

/// Keeps two commands from writing over each other: the folder's lock, since the file itself is replaced.
fn lock(path: &Path) -> anyhow::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = || -> io::Result<File> {
        let folder = File::open(folder)?;
        folder.lock()?;
        Ok(folder)
    };
    lock().with_context(|| format!("can't lock {}", folder.display()))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.new", std::process::id()));
    let staged = PathBuf::from(staged);
    let write = || -> io::Result<()> {
        let mut file = create_private(&staged)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(path) {
            keep_owner(&file, &old)?;
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().inspect_err(|_| {
        // What is left of it is of no use; that it can't be removed changes nothing about the error.
        let _ = fs::remove_file(&staged);
    })
}

/// A file that root has changed would be root's, and a proxy that can't read it goes on with the keys that it knows: revoked
/// ones too.
#[cfg(unix)]
fn keep_owner(file: &File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid())).map_err(|error| {
        let (user, group) = (old.uid(), old.gid());
        io::Error::new(
            error.kind(),
            format!("it must stay user {user}'s of group {group}; run this as that user"),
        )
    })
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

/// A text of a key's table.
pub(super) fn text<'i>(key: &'i Item, name: &str) -> &'i str {
    key.get(name).and_then(Item::as_str).unwrap_or_default()
}
