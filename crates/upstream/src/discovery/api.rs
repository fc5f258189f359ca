//! Asking an HTTP API that is no upstream, with the same client, bounded in bytes and time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use refrain_core::settings::{Endpoint, Pool};
use serde_json::Value;

use super::DiscoveryError;
use crate::watch::{LOOK_TIMEOUTS, get};
use crate::{Client, EndpointState, PoolState, UpstreamError, UpstreamRequest, UpstreamResponse, Upstreams};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest wait that an API may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A server that is no upstream and mostly answers with JSON, and the way to it.
#[derive(Debug)]
pub struct Api {
    client: Client,
    /// Of one endpoint, as the client wants it.
    pool: Arc<PoolState>,
    endpoint: Arc<EndpointState>,
}

impl Api {
    /// The one at an endpoint, whose `Authorization` is sent along.
    ///
    /// # Errors
    /// Files that its TLS names can't be used.
    pub fn new(client: Client, endpoint: &Endpoint) -> Result<Self, UpstreamError> {
        let pool = Arc::new(Pool {
            timeouts: LOOK_TIMEOUTS,
            idle_connections_max: 1,
            ..Pool::new(endpoint.id.as_str().into(), vec![endpoint.clone()])
        });
        let upstreams = Upstreams::new(&BTreeMap::from([(pool.id.clone(), pool.clone())]))?;
        let state =
            upstreams.pool(&pool.id).and_then(|pool| Some((pool.clone(), pool.endpoint(&endpoint.id)?)));
        let (pool, endpoint) = state.ok_or_else(|| UpstreamError::NoEndpoint { pool: pool.id.clone() })?;
        Ok(Self { client, pool, endpoint })
    }

    /// The JSON at a path, asked for with another `Authorization` than the endpoint's if one is given.
    ///
    /// # Errors
    /// It can't be reached, refuses, or answers something else.
    ///
    /// # Cancel safety
    /// Safe: dropping the future closes the connection.
    pub async fn json(
        &self,
        path: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Value, DiscoveryError> {
        let response = self.send(request(path, authorization)?).await?;
        check(response.status, &response.headers)?;
        let body = response.body.collect(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|_| DiscoveryError::Malformed("it is not JSON"))
    }

    /// The answer to a request, whatever it is.
    ///
    /// # Errors
    /// It can't be reached, or doesn't answer in HTTP.
    ///
    /// # Cancel safety
    /// As [`Api::json`].
    pub(crate) async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        self.client.send_to(&self.pool, &self.endpoint, request).await
    }
}

fn request(path: &str, authorization: Option<&HeaderValue>) -> Result<UpstreamRequest, DiscoveryError> {
    let path = PathAndQuery::try_from(path);
    let path_and_query =
        path.map_err(|_| DiscoveryError::Malformed("its token of the next page is no token"))?;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("refrain/", env!("CARGO_PKG_VERSION"))));
    headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
    Ok(UpstreamRequest { path_and_query, headers, ..get("/") })
}

fn check(status: StatusCode, headers: &HeaderMap) -> Result<(), DiscoveryError> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(DiscoveryError::Refused { status }),
        StatusCode::TOO_MANY_REQUESTS => Err(DiscoveryError::TooOften { retry_after: retry_after(headers) }),
        status => Err(DiscoveryError::Status { status, retry_after: retry_after(headers) }),
    }
}

/// RFC 9110, section 10.2.3: seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// A text as a part of a query or path.
pub(super) fn query(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A token as the value of `Authorization`; no error holds it.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, DiscoveryError> {
    let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    let mut value = value.map_err(|_| DiscoveryError::Malformed("the token holds what no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_has_an_end() {
        let wait = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_status_says_what_to_do() {
        let check = |status| check(status, &HeaderMap::new());
        assert!(check(StatusCode::OK).is_ok());
        for status in [401, 403, 404, 429, 500, 204, 302] {
            let error = check(StatusCode::from_u16(status).unwrap()).unwrap_err();
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }

    #[test]
    fn a_token_that_is_no_header_is_told_without_it() {
        let error = bearer("my\nsecret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(!format!("{:?}", bearer("secret").unwrap()).contains("secret"));
    }
}
