//! Whether the shared store does what it should: tried in Redis itself, past everything that this process keeps.

use super::Inner;
use super::link::Link;
use super::probe::VectorMode;
use super::trouble::StoreTrouble;
use crate::embedder::{DIMENSIONS, Embedding};
use crate::key::CacheKey;
use crate::self_test::{Probe, SelfTest};

impl Inner {
    /// Stores a probe, reads it in every way, and removes it.
    ///
    /// # Errors
    /// Redis could not be asked, or refused.
    pub(super) async fn self_test(&self, mode: VectorMode) -> Result<SelfTest, StoreTrouble> {
        let (link, entries) = (&self.link, &self.entries);
        let Some((probe, vectors)) = Probe::new(&self.secret, self.near.bans.latest()).zip(vectors()) else {
            return Ok(SelfTest::default());
        };
        let [question, paraphrase] = vectors;
        let key = &probe.mine;
        entries.write(link, mode, &probe.entry(), Some(&question)).await?;
        let mut report =
            SelfTest { write: true, exact_read: self.has(link, key, &probe).await?, ..SelfTest::default() };
        if matches!(mode, VectorMode::QueryEngine | VectorMode::VectorSets) {
            report.paraphrase_read = Some(self.leads_to(mode, key, &paraphrase).await?);
        }
        let mut reached = false;
        for other in &probe.others {
            reached |=
                self.has(link, other, &probe).await? || self.leads_to(mode, other, &paraphrase).await?;
        }
        report.other_user_misses = !reached;
        entries.remove(link, mode, (&key.partition, &key.key)).await?;
        report.removed =
            !self.has(link, key, &probe).await? && !self.leads_to(mode, key, &paraphrase).await?;
        Ok(report)
    }

    async fn has(&self, link: &Link, key: &CacheKey, probe: &Probe) -> Result<bool, StoreTrouble> {
        let found = self.entries.read(link, &key.partition, &key.key).await?;
        Ok(found.is_some_and(|entry| entry.answers(key) && probe.is(&entry)))
    }

    async fn leads_to(
        &self,
        mode: VectorMode,
        key: &CacheKey,
        vector: &Embedding,
    ) -> Result<bool, StoreTrouble> {
        let found = self.search(mode, &key.partition, vector, 1).await?;
        Ok(found.iter().any(|near| near.entry.is_some()))
    }
}

/// A random question and one much like it.
fn vectors() -> Option<[Embedding; 2]> {
    let question: Vec<f32> = (0..DIMENSIONS).map(|_| rand::random::<f32>() - 0.5).collect();
    let paraphrase: Vec<f32> = question.iter().map(|x| x + (rand::random::<f32>() - 0.5) / 4.0).collect();
    Some([Embedding::normalised(&question)?, Embedding::normalised(&paraphrase)?])
}
