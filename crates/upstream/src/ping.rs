//! Whether an endpoint answers at all, for `refrain check`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use refrain_core::settings::PoolKind;
use tokio::time::Instant;

use crate::endpoint::EndpointState;
use crate::watch::get;
use crate::{Client, PoolState, UpstreamError};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An endpoint's answer to a small question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// What was asked: `/api/version` of an Ollama, else `/v1/models`.
    pub path: &'static str,
    /// How it answered. Anything shows that a server is there; 401 that it wants a credential.
    pub status: StatusCode,
    /// From nothing to the whole answer, connecting included.
    pub latency: Duration,
}

impl Client {
    /// Asks one endpoint for its version or models.
    ///
    /// # Errors
    /// As [`Client::send`], on this endpoint alone.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn ping(
        &self,
        pool: &Arc<PoolState>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<Ping, UpstreamError> {
        let path = match pool.config().kind {
            PoolKind::Ollama => "/api/version",
            PoolKind::Generic => "/v1/models",
        };
        let started = Instant::now();
        let response = self.send_to(pool, endpoint, get(path)).await?;
        let status = response.status;
        response.body.collect(ANSWER_BYTES_MAX).await?;
        Ok(Ping { path, status, latency: started.elapsed() })
    }
}
