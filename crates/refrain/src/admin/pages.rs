//! What the admin listener answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use refrain_core::settings::{Admin, OperatorRole};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::login::{self, Need};
use super::upstreams::{self, Service};
use super::{Door, feedback, guard, purge, readiness, why};
use crate::control::{Control, Running};
use crate::cost::Books;
use crate::reload::{Refused, Report};
use crate::telemetry;

/// The Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
GET  /livez      is the process alive?
GET  /readyz     does it take requests, and is anything degraded?
GET  /metrics    numbers for Prometheus
GET  /config     the settings in force, without secrets
GET  /upstreams  the servers of each pool (easier: refrain upstreams)
GET  /cost       what the servers cost, and what the cache is worth (easier: refrain cost)
GET  /scaling    how many servers each pool should have, for autoscalers
POST /reload     read the configuration again
POST /purge      remove stored answers, or let them expire (easier: refrain purge --help)
POST /explain    would a request hit? from what, or why not? (easier: refrain explain --help)
GET  /misses     what keeps requests apart (easier: refrain misses)
GET  /shadow     what shadow mode saw, a JSON object a line, for refrain tune --log
POST /feedback   an answer is wrong: remove it, and say whom it was served to (easier: refrain feedback --help)
POST /upstreams/drain, /upstreams/undrain  take a server out of service, put it back (refrain upstreams --help)
";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Index,
    Livez,
    Readyz,
    Metrics,
    Config,
    Upstreams,
    Scaling,
    Cost,
    Reload,
    Purge,
    Explain,
    Misses,
    Shadow,
    Feedback,
    Service(Service),
}

impl Page {
    fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Index,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/config" => Self::Config,
            "/upstreams" => Self::Upstreams,
            "/scaling" => Self::Scaling,
            "/cost" => Self::Cost,
            "/reload" => Self::Reload,
            "/purge" => Self::Purge,
            "/explain" => Self::Explain,
            "/misses" => Self::Misses,
            "/shadow" => Self::Shadow,
            "/feedback" => Self::Feedback,
            "/upstreams/drain" => Self::Service(Service::Drain),
            "/upstreams/undrain" => Self::Service(Service::Undrain),
            _ => return None,
        })
    }

    /// The methods it takes, as `Allow` lists them.
    fn allow(self) -> &'static str {
        if self.is_act() { "POST" } else { "GET, HEAD" }
    }

    fn takes(self, method: &Method) -> bool {
        match self.is_act() {
            true => method == Method::POST,
            false => method == Method::GET || method == Method::HEAD,
        }
    }

    /// What it asks of its reader. Whoever restarts a process that hangs, or takes it out of service, has no token.
    fn need(self, admin: &Admin) -> Need {
        match self {
            Self::Livez | Self::Readyz => Need::Nothing,
            Self::Metrics if admin.open_metrics => Need::Nothing,
            _ if self.is_act() => Need::Role(OperatorRole::Operate),
            _ => Need::Role(OperatorRole::Read),
        }
    }

    /// Whether it does something, or takes a body.
    fn is_act(self) -> bool {
        matches!(self, Self::Reload | Self::Purge | Self::Explain | Self::Feedback | Self::Service(_))
    }
}

/// Answers a request.
pub(crate) async fn answer(
    control: &Control,
    request: Request<Incoming>,
    door: &Door,
) -> Response<Full<Bytes>> {
    let reason = guard::refusal(request.method(), request.uri(), request.headers(), door.is_local);
    if let Some(reason) = reason {
        return text(StatusCode::FORBIDDEN, format!("{reason}\n"));
    }
    let admin = door.admin(control);
    let role = login::role(&admin, request.headers());
    let need =
        Page::of_path(request.uri().path()).map_or(Need::Role(OperatorRole::Read), |page| page.need(&admin));
    if let Err(refusal) = login::check(need, role) {
        return refused(refusal);
    }
    let _answering = role.is_ok().then(|| door.place.answering());
    let Some(page) = Page::of_path(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, format!("no such page; these are here:\n{INDEX}"));
    };
    if !page.takes(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {}\n", page.allow()));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(page.allow()));
        return response;
    }
    match page {
        Page::Index => text(StatusCode::OK, INDEX),
        Page::Livez => text(StatusCode::OK, "ok\n"),
        Page::Readyz if role.is_err() => readyz(readiness::short(control)),
        Page::Readyz => readyz(readiness::report(control)),
        Page::Metrics => metrics(control),
        Page::Config => with_running(control, config),
        Page::Upstreams => with_running(control, upstreams::page),
        Page::Scaling => with_running(control, upstreams::scaling),
        Page::Cost => with_running(control, |running| cost(running, control.uptime())),
        Page::Reload => match control.running() {
            Some(running) => reload(running).await,
            None => starting(),
        },
        Page::Purge => match control.running() {
            Some(running) => purge::answer(running, request.into_body()).await,
            None => starting(),
        },
        Page::Explain => match control.running() {
            Some(running) => why::explain(running, request.into_body()).await,
            None => starting(),
        },
        Page::Misses => match control.running() {
            Some(running) => why::misses(running).await,
            None => starting(),
        },
        Page::Shadow => with_running(control, why::shadow),
        Page::Feedback => match control.running() {
            Some(running) => feedback::answer(running, request.into_body()).await,
            None => starting(),
        },
        Page::Service(service) => match control.running() {
            Some(running) => upstreams::serve(running, service, request.into_body()).await,
            None => starting(),
        },
    }
}

fn refused(refusal: login::Refusal) -> Response<Full<Bytes>> {
    let mut response = text(refusal.status(), refusal.message());
    if refusal == login::Refusal::NoToken {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"refrain admin\""));
    }
    response
}

fn readyz(report: Value) -> Response<Full<Bytes>> {
    let status = if report["ready"] == true { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_page(status, &report)
}

fn metrics(control: &Control) -> Response<Full<Bytes>> {
    page(StatusCode::OK, METRICS_TYPE, telemetry::scrape(control))
}

fn config(running: &Running) -> Response<Full<Bytes>> {
    json_page(StatusCode::OK, &refrain_config::redacted(&running.live.load().settings))
}

/// Asks the reloader and waits for its word.
async fn reload(running: &Running) -> Response<Full<Bytes>> {
    let (asker, answer) = oneshot::channel();
    if running.reload.try_send(asker).is_err() {
        let body = json!({ "applied": false, "problems": ["too many reloads wait, or the process stops; try again"] });
        return json_page(StatusCode::SERVICE_UNAVAILABLE, &body);
    }
    match answer.await {
        Ok(Ok(Report { warnings, restart_needed })) => {
            let body = json!({ "applied": true, "warnings": warnings, "restart_needed": restart_needed });
            json_page(StatusCode::OK, &body)
        }
        Ok(Err(Refused { problems })) => {
            json_page(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "applied": false, "problems": problems }))
        }
        Err(_dropped) => starting(),
    }
}

fn cost(running: &Running, uptime: Duration) -> Response<Full<Bytes>> {
    let books = Books::of(&running.live.load(), uptime);
    json_page(StatusCode::OK, &json!(crate::cost::report(&books)))
}

fn with_running(
    control: &Control,
    show: impl FnOnce(&Running) -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    control.running().map_or_else(starting, show)
}

fn starting() -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the process is starting or stopping; try again\n")
}

pub(super) fn json_page(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    page(status, "application/json", format!("{value:#}\n"))
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
