//! A stale answer was served: a fresh one takes its place, behind the client's back.

use std::sync::Arc;

use refrain_cache::{Joined, Lead, Reader};
use refrain_upstream::Purpose;

use crate::generate::{self, FlightHead};
use crate::lookup::{self, Miss};
use crate::snapshot::AnswerCache;
use crate::worker::Worker;

/// Asks the upstream again, unless somebody does already. Never fails: the entry is refreshed next time, or expires.
pub(crate) fn begin(worker: &Arc<Worker>, cache: &Arc<AnswerCache>, miss: Miss) {
    let flight = cache.store.epoch().flight(&miss.keyed.key);
    let Joined::Lead(lead, reader) = cache.flights.join(flight) else { return };
    worker.tasks.spawn(refresh(worker.clone(), cache.clone(), miss, lead));
    worker.tasks.spawn(drain(reader));
}

async fn refresh(worker: Arc<Worker>, cache: Arc<AnswerCache>, mut miss: Miss, lead: Lead<Arc<FlightHead>>) {
    // The vector of a stale entry may have been dropped: without a new one, similar questions would not find the fresh one.
    if miss.keyed.plan.semantic.is_some() {
        miss.embedding = lookup::embed(&cache, &miss.keyed).await.ok();
    }
    match generate::generation(&worker, &cache, (&Arc::new(miss), Purpose::Refresh), None) {
        Ok(generation) => generation.pump(lead).await,
        Err(failure) => tracing::debug!(code = failure.code.as_str(), "a stale answer can't be refreshed"),
    }
}

/// Somebody must want the answer, or its generation is given up.
pub(crate) async fn drain(mut reader: Reader<Arc<FlightHead>>) {
    while let Some(Ok(_)) = reader.chunk().await {}
}
