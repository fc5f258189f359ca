//! A stale answer was served: a fresh one takes its place, behind the client's back.

use std::sync::Arc;

use refrain_cache::{Joined, Reader};

use crate::generate::{self, FlightHead};
use crate::lookup::Miss;
use crate::snapshot::AnswerCache;
use crate::worker::Worker;

/// Asks the upstream again, unless somebody does already. Never fails: the entry is refreshed next time, or expires.
pub(crate) fn begin(worker: &Arc<Worker>, cache: &Arc<AnswerCache>, miss: Miss) {
    let Joined::Lead(lead, reader) = cache.flights.join(miss.keyed.key.key) else { return };
    let miss = Arc::new(miss);
    match generate::generation(worker, cache, &miss) {
        Ok(generation) => {
            worker.tasks.spawn(generation.pump(lead));
            worker.tasks.spawn(drain(reader));
        }
        Err(failure) => tracing::debug!(code = failure.code.as_str(), "a stale answer can't be refreshed"),
    }
}

/// Somebody must want the answer, or its generation is given up.
async fn drain(mut reader: Reader<Arc<FlightHead>>) {
    while let Some(Ok(_)) = reader.chunk().await {}
}
