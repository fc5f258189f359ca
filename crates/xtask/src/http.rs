//! A small blocking HTTP client for servers on this machine.

use std::time::Duration;

use anyhow::{Context, Result};
use ureq::Agent;

pub(crate) struct Client {
    agent: Agent,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The `Cache-Status` field; empty if there is none.
    pub(crate) cache_status: String,
    pub(crate) body: String,
}

impl Client {
    /// Whole exchanges take this long at most.
    pub(crate) fn new(timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0);
        Self { agent: config.build().new_agent() }
    }

    /// The status of a GET.
    pub(crate) fn status(&self, url: &str) -> Result<u16> {
        Ok(self.agent.get(url).call()?.status().as_u16())
    }

    /// The body of a GET.
    pub(crate) fn get(&self, url: &str) -> Result<String> {
        let mut response = self.agent.get(url).call().with_context(|| format!("GET {url}"))?;
        response.body_mut().read_to_string().with_context(|| format!("answer of {url}"))
    }

    /// Posts JSON and reads the whole answer.
    pub(crate) fn post(&self, url: &str, body: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.agent.post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).with_context(|| format!("POST {url}"))?;
        let cache_status = response.headers().get("cache-status").and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: response.status().as_u16(),
            cache_status: cache_status.unwrap_or_default().to_owned(),
            body: response.body_mut().read_to_string().with_context(|| format!("answer of {url}"))?,
        })
    }
}
