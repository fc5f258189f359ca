//! Whether the store does what it should: shown by the readiness report, run at start and on demand.

/// What the self-test found. Each step is `None` if it was not tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfTest {
    /// A probe could be stored.
    pub write: bool,
    /// It was found by its own key.
    pub exact_read: bool,
    /// It was found by a similar question; `None` without an embedder.
    pub paraphrase_read: Option<bool>,
    /// Another user did not find it, neither by key nor by similarity.
    pub other_user_misses: bool,
    /// After its removal nobody found it.
    pub removed: bool,
}

impl SelfTest {
    /// Whether every step that was tried went well.
    pub fn passed(&self) -> bool {
        let Self { write, exact_read, paraphrase_read, other_user_misses, removed } = *self;
        write && exact_read && paraphrase_read.unwrap_or(true) && other_user_misses && removed
    }
}
