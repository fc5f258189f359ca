//! Requests of one's own, a line of JSON each: a body, or `{"at": seconds, "body": {...}}`. The model, `stream` and usage are
//! filled in as the command line says, and everything else is sent as it is.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::lines::numbered;
use super::{Session, Workload};

/// A line of the file.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) at: Option<Duration>,
    body: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timed {
    at: Option<f64>,
    body: Map<String, Value>,
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for line in numbered(file)? {
        let (number, text) = line?;
        let wrong = || format!("{}:{number}: no request", file.display());
        requests.push(request(&text).with_context(wrong)?);
    }
    anyhow::ensure!(!requests.is_empty(), "{}: no requests in it", file.display());
    timed(&mut requests);
    Ok(requests)
}

/// Where any line says when it comes, one that doesn't comes with the one before it.
fn timed(requests: &mut [Request]) {
    if requests.iter().all(|request| request.at.is_none()) {
        return;
    }
    let mut last = Duration::ZERO;
    for request in &mut *requests {
        last = *request.at.get_or_insert(last);
    }
    requests.sort_by_key(|request| request.at);
}

fn request(text: &str) -> anyhow::Result<Request> {
    let line: Map<String, Value> = serde_json::from_str(text)?;
    if !line.contains_key("body") {
        anyhow::ensure!(line.contains_key("messages"), "neither `messages` nor `body` in it");
        return Ok(Request { at: None, body: line });
    }
    let timed = Timed::deserialize(Value::Object(line))?;
    let at = timed.at.map(Duration::try_from_secs_f64).transpose().context("`at` is in seconds from 0 on")?;
    Ok(Request { at, body: timed.body })
}

pub(super) fn session(workload: &Workload, request: &Request) -> Session {
    let ask = workload.renderer.complete(request.body.clone());
    let at = request.at.map(|at| at.div_f64(workload.sizes.speed));
    Session { at, waves: vec![vec![ask]] }
}
