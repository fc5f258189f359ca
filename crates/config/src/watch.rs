//! Tells that files changed: the config file, secrets, certificates.
//!
//! It watches folders, not files: editors and Kubernetes put a new file, or a new link, in an old one's place. What
//! counts is the content: a write that changes nothing is no change. Reloading is the caller's business.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::source::{FILE_BYTES_MAX, read_bounded};

/// How long a folder must be quiet before its files are looked at.
const QUIET: Duration = Duration::from_millis(200);

/// Longest wait for quiet, in a folder where something is always written.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);

/// Folders can't be watched.
#[derive(Debug, thiserror::Error)]
#[error("can't watch config files for changes: {0}; reload by signal or admin call instead")]
pub struct WatchError(#[from] notify::Error);

/// Watches a set of files for new content.
pub struct Watcher {
    notifier: RecommendedWatcher,
    /// One slot: any number of events before the next look are one.
    stirred: mpsc::Receiver<()>,
    /// An event was taken from `stirred`, and the files have not been looked at since.
    pending: bool,
    files: Vec<Watched>,
    folders: BTreeSet<PathBuf>,
}

/// A file with the content last seen; none: it was missing or unreadable.
struct Watched {
    path: PathBuf,
    content: Option<u64>,
}

impl Watcher {
    /// Watches files, which need not exist, in folders that should. Content as of now is the old content.
    ///
    /// # Errors
    /// The system's notifications can't be had.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Result<Self, WatchError> {
        let (stir, stirred) = mpsc::channel(1);
        let notifier = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_write(event.kind)) {
                // A full slot already says the same.
                let _ = stir.try_send(());
            }
        })?;
        let mut watcher =
            Self { notifier, stirred, pending: false, files: Vec::new(), folders: BTreeSet::new() };
        watcher.watch(files);
        Ok(watcher)
    }

    /// Watches these files from now on, and no others: a reload may have changed the set. Content that changed since
    /// a file was last looked at is reported by the next [`Watcher::changed`].
    pub fn watch(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let paths: BTreeSet<PathBuf> = files.into_iter().collect();
        self.files.retain(|file| paths.contains(&file.path));
        let added: Vec<PathBuf> =
            paths.into_iter().filter(|path| self.files.iter().all(|file| file.path != *path)).collect();
        self.files.extend(added.into_iter().map(|path| Watched { content: digest(&path), path }));
        self.pending = true;
        self.watch_folders();
    }

    /// Waits until the content of at least one file is new, and quiet for 200 ms (at most 2 s are waited for quiet);
    /// gives the changed files, never none. A file that went away is a change too.
    ///
    /// # Cancel safety
    /// Safe: a dropped future loses no change; the next one reports it.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            if !self.pending && self.stirred.recv().await.is_none() {
                // The notifier owns the sender, and `self` the notifier: this can't end before `self`.
                return std::future::pending().await;
            }
            self.pending = true;
            self.settle().await;
            self.watch_folders();
            self.pending = false;
            let changed = self.look();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    async fn settle(&mut self) {
        let latest = Instant::now() + QUIET_WAIT_MAX;
        let mut quiet = Instant::now() + QUIET;
        while let Ok(Some(())) = timeout_at(quiet.min(latest), self.stirred.recv()).await {
            quiet = Instant::now() + QUIET;
        }
    }

    fn look(&mut self) -> Vec<PathBuf> {
        self.files.iter_mut().filter_map(Watched::look).collect()
    }

    /// Follows links anew: the folder of a link's target is another one after each Kubernetes update.
    fn watch_folders(&mut self) {
        let wanted: BTreeSet<PathBuf> = self.files.iter().flat_map(|file| folders(&file.path)).collect();
        for gone in self.folders.difference(&wanted) {
            // It may have been deleted, which ended the watch already.
            let _ = self.notifier.unwatch(gone);
        }
        self.folders.clear();
        for folder in wanted {
            // Also those watched before: a folder made anew under the old name is another one to the system.
            match self.notifier.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder)),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "folder not watched; changes in it go unseen");
                }
            }
        }
    }
}

impl Watched {
    /// Its path, if its content is new.
    fn look(&mut self) -> Option<PathBuf> {
        let content = digest(&self.path);
        (std::mem::replace(&mut self.content, content) != content).then(|| self.path.clone())
    }
}

/// Whether an event can mean new content. Reads are events too, and looking at files reads them.
fn is_write(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

/// The folder in which a path is named, and the one where the file really lies.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let real = path.canonicalize().ok();
    [Some(path.to_owned()), real].into_iter().flatten().filter_map(|path| {
        let folder = path.parent()?;
        Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
    })
}

/// Digest of a file's content. Not a cryptographic one: who writes config need not forge it.
fn digest(path: &Path) -> Option<u64> {
    let text = read_bounded(path, FILE_BYTES_MAX).ok()?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn next(watcher: &mut Watcher) -> Vec<PathBuf> {
        tokio::time::timeout(DEADLINE, watcher.changed()).await.expect("a change within the deadline")
    }

    #[tokio::test]
    async fn a_written_file_is_reported_once_the_folder_is_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("refrain.toml");
        fs::write(&file, "a").unwrap();
        let mut watcher = Watcher::new([file.clone()]).unwrap();
        fs::write(&file, "b").unwrap();
        assert_eq!(next(&mut watcher).await, [file]);
    }

    #[tokio::test]
    async fn a_file_moved_over_the_old_one_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("refrain.toml");
        fs::write(&file, "a").unwrap();
        let mut watcher = Watcher::new([file.clone()]).unwrap();
        fs::write(folder.path().join("refrain.toml.new"), "b").unwrap();
        fs::rename(folder.path().join("refrain.toml.new"), &file).unwrap();
        assert_eq!(next(&mut watcher).await, [file]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn every_swap_of_a_kubernetes_data_link_is_reported() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let publish = |version: &str| {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("refrain.toml"), version).unwrap();
            symlink(version, folder.path().join("..data_tmp")).unwrap();
            fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        };
        publish("..1");
        let file = folder.path().join("refrain.toml");
        symlink("..data/refrain.toml", &file).unwrap();
        let mut watcher = Watcher::new([file.clone()]).unwrap();
        for (old, new) in [("..1", "..2"), ("..2", "..3")] {
            publish(new);
            fs::remove_dir_all(folder.path().join(old)).unwrap();
            assert_eq!(next(&mut watcher).await, [file.as_path()]);
        }
    }

    #[tokio::test]
    async fn a_folder_made_anew_is_watched_on() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("conf");
        let file = folder.join("refrain.toml");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "a").unwrap();
        let mut watcher = Watcher::new([file.clone()]).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "b").unwrap();
        assert_eq!(next(&mut watcher).await, [file.as_path()]);
        fs::write(&file, "c").unwrap();
        assert_eq!(next(&mut watcher).await, [file.as_path()]);
    }

    #[tokio::test]
    async fn a_file_added_later_is_watched_and_one_left_out_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let mut watcher = Watcher::new([old.clone()]).unwrap();
        watcher.watch([new.clone()]);
        fs::write(&old, "b").unwrap();
        fs::write(&new, "b").unwrap();
        assert_eq!(next(&mut watcher).await, [new]);
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_no_change_and_equal_content_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls.key");
        fs::write(&file, "a").unwrap();
        let mut watcher = Watcher::new([file.clone()]).unwrap();
        fs::write(&file, "a").unwrap();
        assert!(tokio::time::timeout(QUIET * 3, watcher.changed()).await.is_err());
        fs::write(&file, "b").unwrap();
        assert!(tokio::time::timeout(QUIET / 4, watcher.changed()).await.is_err());
        assert_eq!(next(&mut watcher).await, [file]);
    }
}
