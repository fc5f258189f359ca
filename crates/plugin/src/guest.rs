//! What belongs to one instance: its bounds, and the one call that it is working on. The host's side of every import.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use refrain_core::Plan;
use refrain_core::settings::Grant;
use wasmtime::{ResourceLimiter, Result, StoreContextMut, UpdateDeadline};

use crate::inert::Inert;
use crate::site::Site;
use crate::state::State;
use crate::view::{CandidatesView, RequestView, ResponseView, SimilarityError};

pub(crate) use crate::site::Level;

/// Bytes that a guest may read in one go.
const READ_BYTES_MAX: u32 = 1024 * 1024;
/// Similarities that a guest may ask for in one call.
const SIMILARITIES_MAX: u32 = 16;
/// How long a guest may wait for one.
const SIMILARITY_WAIT: Duration = Duration::from_millis(250);
/// A text to compare, in bytes.
const SIMILARITY_BYTES_MAX: usize = 16 * 1024;
/// Tables of an instance: elements together.
const TABLE_ELEMENTS_MAX: usize = 256 * 1024;

/// The data of an instance's store.
pub(crate) struct Guest {
    site: Arc<Site>,
    call: Call,
    /// Epochs that this call may still see go by.
    ticks: u32,
    /// Whether it has seen one: most calls are over before.
    is_long: bool,
    /// The call's one clock value.
    now_ms: Option<f64>,
    /// Similarities that this call asked for.
    similarities: u32,
    pub(crate) limits: Limits,
    pub(crate) inert: Inert,
}

/// The call that an instance is working on: what its functions read.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) request: Option<Arc<dyn RequestView>>,
    pub(crate) candidates: Option<Arc<dyn CandidatesView>>,
    pub(crate) response: Option<Arc<dyn ResponseView>>,
}

/// Why there is no similarity.
pub(crate) enum SimilarityDenied {
    Grant,
    Timeout,
    TooLong,
    Unavailable(String),
}

/// Bounds on what an instance holds.
#[derive(Debug)]
pub(crate) struct Limits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    table_elements: usize,
    /// Whether it was refused anything since the call began.
    refused: bool,
}

impl Guest {
    pub(crate) fn new(site: Arc<Site>, memory_bytes_max: usize) -> Self {
        Self {
            site,
            call: Call::default(),
            ticks: 0,
            is_long: false,
            now_ms: None,
            similarities: 0,
            limits: Limits { memory_bytes_max, memory_bytes: 0, table_elements: 0, refused: false },
            inert: Inert::default(),
        }
    }

    /// Begins a call that may take `ticks` epochs of computing.
    pub(crate) fn begin(&mut self, call: Call, ticks: u32) {
        self.call = call;
        self.ticks = ticks;
        self.is_long = false;
        self.now_ms = None;
        self.similarities = 0;
        self.limits.refused = false;
    }

    /// Ends the call: what it was about is let go.
    pub(crate) fn end(&mut self) {
        self.call = Call::default();
    }

    /// What happens when an epoch passes while the guest computes: it lets others go first, or is stopped. The first epoch may
    /// come at any moment of a short call. That one goes on: else short calls would be cut up and take turns under load, and
    /// each would hold an instance for as long as all take together.
    pub(crate) fn tick(mut store: StoreContextMut<'_, Self>) -> Result<UpdateDeadline> {
        let guest = store.data_mut();
        match guest.ticks.checked_sub(1) {
            None => Ok(UpdateDeadline::Interrupt),
            Some(left) => {
                guest.ticks = left;
                if !std::mem::replace(&mut guest.is_long, true) {
                    return Ok(UpdateDeadline::Continue(1));
                }
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
            }
        }
    }

    pub(crate) fn policy(&self) -> &Site {
        &self.site
    }

    pub(crate) fn request(&self) -> Option<&dyn RequestView> {
        self.call.request.as_deref()
    }

    pub(crate) fn candidates(&self) -> Option<&dyn CandidatesView> {
        self.call.candidates.as_deref()
    }

    pub(crate) fn response(&self) -> Option<&dyn ResponseView> {
        self.call.response.as_deref()
    }

    pub(crate) fn plan(&self) -> &Plan {
        self.call.request.as_ref().map_or(&self.site.plan, |view| view.defaults())
    }

    pub(crate) fn body_slice(&self, offset: u32, len: u32) -> &[u8] {
        self.request().map_or(&[], |view| view.body(offset, len.min(READ_BYTES_MAX)))
    }

    /// A text's bound: what the guest asks for, at most [`READ_BYTES_MAX`].
    pub(crate) fn text_max(max_bytes: u32) -> u32 {
        max_bytes.min(READ_BYTES_MAX)
    }

    /// Milliseconds since 1970; one value a call.
    pub(crate) fn now(&mut self) -> f64 {
        *self.now_ms.get_or_insert_with(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (since.as_secs_f64() * 1000.0).floor()
        })
    }

    pub(crate) fn state(&self) -> Option<&State> {
        self.site.grants.contains(&Grant::State).then_some(&*self.site.state)
    }

    /// Similarity of two texts by the route's embedder.
    pub(crate) async fn compare(&mut self, a: String, b: String) -> Result<f32, SimilarityDenied> {
        if !self.site.grants.contains(&Grant::Embed) {
            return Err(SimilarityDenied::Grant);
        }
        if a.len().max(b.len()) > SIMILARITY_BYTES_MAX {
            return Err(SimilarityDenied::TooLong);
        }
        let Some(request) = self.call.request.clone() else {
            return Err(SimilarityDenied::Unavailable("no request".into()));
        };
        self.similarities += 1;
        if self.similarities > SIMILARITIES_MAX {
            return Err(SimilarityDenied::Unavailable("too many in one call".into()));
        }
        match tokio::time::timeout(SIMILARITY_WAIT, request.similarity(a, b)).await {
            Ok(Ok(similarity)) => Ok(similarity),
            Ok(Err(SimilarityError::TooLong)) => Err(SimilarityDenied::TooLong),
            Ok(Err(SimilarityError::Unavailable(why))) => Err(SimilarityDenied::Unavailable(why)),
            Err(_) | Ok(Err(SimilarityError::Timeout)) => Err(SimilarityDenied::Timeout),
        }
    }
}

impl Limits {
    /// Whether the instance was refused memory during this call.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// Of all its memories, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let after = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if after > self.memory_bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.memory_bytes = after;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let after = self.table_elements.saturating_add(desired.saturating_sub(current));
        if after > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Ok(false);
        }
        self.table_elements = after;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> Result<()> {
        self.refused = true;
        Ok(())
    }

    fn instances(&self) -> usize {
        crate::engine::CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        crate::engine::TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        crate::engine::MEMORIES_MAX as usize
    }
}
