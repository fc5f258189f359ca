//! A request to be explained, as people write it and as it goes to the admin listener.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use refrain_core::{Identity, KeyId, ListenerId, Role, TenantId, UserId};
use refrain_llm::json;
use refrain_proxy::explain::{AskedBy, ExplainedRequest, Texts};
use serde::{Deserialize, Serialize};

use crate::cli::AskedArguments;

/// Where a request goes that doesn't say.
const PATH: &str = "/v1/chat/completions";
/// What a request file with more than a body may hold, as the proxy's own reader has it.
const LIMITS: json::Limits = json::Limits { depth_max: 128, nodes_max: 1 << 20 };

/// A request to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExplainRequest {
    /// Empty: POST.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    /// Empty: OpenAI's chat.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body's text, exactly as it is sent: `1.0` and `1` are not the same to a cache.
    pub(crate) body: String,
    /// Who asks, as if verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Caller>,
    /// Who asks, by the name of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Where it comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<String>,
    /// Whether texts are told.
    pub(crate) show_text: bool,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Caller {
    pub(crate) tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) claims: BTreeMap<String, String>,
}

impl ExplainRequest {
    /// Reads a file, and puts the arguments of the command line over it. `key`: the API key's name that it is asked with.
    ///
    /// # Errors
    /// It can't be read, or is no request.
    pub(crate) fn read(file: &Path, asked: &AskedArguments, key: Option<&str>) -> anyhow::Result<Self> {
        let mut text = Vec::new();
        if file == Path::new("-") {
            std::io::stdin().read_to_end(&mut text)?;
        } else {
            text = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        }
        let mut request = Self::of_text(&text).with_context(|| format!("{}", file.display()))?;
        let AskedArguments { path, identity, listener } = asked;
        if request.path.is_empty() {
            request.path = path.clone().unwrap_or_default();
        }
        if let Some(who) = identity {
            (request.identity, request.key) = (Some(Caller::of(who, request.identity.take())), None);
        }
        if let Some(key) = key {
            (request.identity, request.key) = (None, Some(key.to_owned()));
        }
        request.listener = listener.clone().or(request.listener);
        Ok(request)
    }

    /// A request's body, or an object with a `body` and more.
    ///
    /// # Errors
    /// Neither.
    pub(crate) fn of_text(text: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(text).context("a request is UTF-8")?;
        // A body that is no JSON is explained, too: it is refused.
        let Ok(document) = json::read_text(text, LIMITS) else {
            return Ok(Self { body: text.to_owned(), ..Self::default() });
        };
        let Some(body) = document.root().member("body") else {
            return Ok(Self { body: text.to_owned(), ..Self::default() });
        };
        // As it is written: another reader might change its numbers.
        let body_text = body.as_str().map_or_else(|| body.raw().to_owned(), std::borrow::Cow::into_owned);
        let span = body.span();
        let rest = format!("{}\"\"{}", &text[..span.start], &text[span.end..]);
        let request: Self = serde_json::from_str(&rest)
            .context("a request has method, path, headers, body, identity, key, listener")?;
        Ok(Self { body: body_text, ..request })
    }

    /// For the proxy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn into_explained(self) -> anyhow::Result<ExplainedRequest> {
        let Self { method, path, headers, body, identity, key, listener, show_text } = self;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
            let (Ok(parsed), Ok(value)) = parsed else { bail!("not a header: {name:?}") };
            map.append(parsed, value);
        }
        let method = match &*method {
            "" => Method::POST,
            name => Method::from_bytes(name.as_bytes()).with_context(|| format!("not a method: {name:?}"))?,
        };
        let by = match (identity, key) {
            (Some(_), Some(_)) => bail!("say who asks by identity or by key, not both"),
            (Some(caller), None) => AskedBy::Identity(caller.into_identity()),
            (None, Some(key)) => AskedBy::Key(KeyId::new(key)),
            (None, None) => AskedBy::Headers,
        };
        Ok(ExplainedRequest {
            method,
            path: if path.is_empty() { PATH.to_owned() } else { path },
            headers: map,
            body: Bytes::from(body),
            by,
            listener: listener.map(ListenerId::new),
            texts: if show_text { Texts::Shown } else { Texts::Hidden },
        })
    }
}

impl Caller {
    /// `TENANT/USER`; claims stay as they were.
    fn of(who: &str, before: Option<Self>) -> Self {
        let (tenant, user) = match who.split_once('/') {
            Some((tenant, user)) => (tenant, Some(user.to_owned())),
            None => (who, None),
        };
        let claims = before.map(|before| before.claims).unwrap_or_default();
        Self { tenant: tenant.to_owned(), user, claims }
    }

    fn into_identity(self) -> Identity {
        let Self { tenant, user, claims } = self;
        Identity { tenant: TenantId::new(tenant), user: user.map(UserId::new), claims, role: Role::Caller }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ExplainRequest {
        ExplainRequest::of_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_body_alone_is_a_request_and_stays_as_it_is_written() {
        let body = r#"{"model": "m", "temperature": 0.70, "messages": []}"#;
        assert_eq!(read(body), ExplainRequest { body: body.to_owned(), ..ExplainRequest::default() });
        assert_eq!(read("{oops").body, "{oops");
    }

    #[test]
    fn a_request_with_more_than_a_body_keeps_the_bodys_text() {
        let request = read(
            r#"{"path": "/api/chat", "body": {"seed": 1.0, "n": 12345678901234567890123}, "identity": {"tenant": "acme"}}"#,
        );
        assert_eq!(request.body, r#"{"seed": 1.0, "n": 12345678901234567890123}"#);
        assert_eq!((&*request.path, request.identity.unwrap().user), ("/api/chat", None));
        assert_eq!(read(r#"{"body": "{\"a\":1}"}"#).body, r#"{"a":1}"#);
        let wrong = ExplainRequest::of_text(br#"{"body": {}, "pth": "/"}"#).unwrap_err();
        assert!(format!("{wrong:#}").contains("pth"), "{wrong:#}");
    }

    #[test]
    fn who_asks_is_a_tenant_and_perhaps_a_user() {
        let user = |who| Caller::of(who, None).into_identity().user;
        assert_eq!(user("acme/ann"), Some(UserId::new("ann")));
        assert_eq!(user("acme"), None);
    }
}
