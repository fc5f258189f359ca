//! What can go wrong with the store when it is opened. While it runs, failures are reasons ([`refrain_core::Skip`]) and counts.

use std::io;
use std::path::PathBuf;

/// Why a purge did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// Nothing was done.
    #[error("too many purges wait; nothing was done: ask again")]
    Busy,
    /// Nothing was done.
    #[error(
        "the process that this one replaces has the store's directory still; nothing was done: ask again once it has ended"
    )]
    Waiting,
    /// The store is closed, or was while the purge was under way.
    #[error("the store was closed before the purge had ended: ask again once it runs")]
    Closed,
    /// Nothing was done.
    #[error("the shared store is away; nothing was done: see /readyz, and ask again once it is back")]
    Away,
    /// It is in force, and what it is about was not all removed.
    #[error(
        "the shared store went away: the purge is in force in every proxy, but its entries take room until they expire; \
         ask again to have them removed"
    )]
    Unswept,
    /// Nothing of it is served by this process, and the disk could not be changed.
    #[error(
        "the disk could not be written: what was purged is not served any more, but may be again after a restart; see to the \
         disk, or remove the store's directory before a restart"
    )]
    Disk,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system: can't make a cache secret")]
    NoRandomness,
    /// The secret file can't be used.
    #[error("cache secret {path:?}: {source}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The directory can't be made or written.
    #[error("store directory {dir:?}: {source}; give a directory that this user may write")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "store directory {dir:?} is in use by another process; stop it or give this one another store.dir"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It opens neither as it is nor afresh.
    #[error("store in {dir:?} can't be opened: {reason}; check the disk, or give another store.dir")]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the storage engine said.
        reason: String,
    },
    /// A thread of the store could not be started.
    #[error("can't start a store thread: {0}")]
    Thread(io::Error),
}
