//! What somebody says of an answer: what `refrain feedback` and the admin listener say to each other.

use refrain_core::unhex;
use serde::{Deserialize, Serialize};

use super::page::span;
use super::request::ExplainRequest;
use crate::columns::columns;

/// What is said of which answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FeedbackRequest {
    /// The answer's id, as its readers see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Its key: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The request that it answered: what would be served for it, by whatever way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<ExplainRequest>,
    /// It is right: it stays, and that is remembered. Else it is wrong, and is removed.
    pub(crate) right: bool,
    /// It is only looked up.
    pub(crate) dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FeedbackAnswer {
    /// Stored answers that are meant.
    pub(crate) matched: u64,
    /// Keys that are known to be meant.
    pub(crate) keys: Vec<String>,
    /// Named by a request that is answered by a similar question's answer: how similar.
    #[serde(default)]
    pub(crate) similarity: Option<f32>,
    /// Whom it was served to, as far as this proxy remembers; the latest first, and not all if they are many.
    pub(crate) served: Vec<ServedTo>,
    /// How many those are in all.
    #[serde(default)]
    pub(crate) served_in_all: usize,
    /// Labels that were written for `refrain tune`.
    pub(crate) labels: usize,
    /// Whether it was only looked up.
    pub(crate) dry_run: bool,
    pub(crate) right: bool,
}

/// Somebody who was served an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServedTo {
    pub(crate) ago_s: u64,
    pub(crate) route: String,
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    /// `generated`, `joined`, `exact`, `semantic`.
    pub(crate) served_as: String,
    pub(crate) similarity: Option<f32>,
    /// Digest of what they asked.
    pub(crate) question: Option<String>,
    pub(crate) key: String,
}

impl FeedbackRequest {
    /// How the answer is named.
    ///
    /// # Errors
    /// What to say instead.
    pub(crate) fn named(&self) -> Result<Named<'_>, String> {
        match (&self.id, &self.key, &self.request) {
            (Some(id), None, None) => Ok(Named::Id(id)),
            (None, Some(key), None) => unhex(key.as_bytes())
                .map(Named::Key)
                .ok_or_else(|| "a key is 64 hexadecimal digits, as refrain-debug shows it".to_owned()),
            (None, None, Some(request)) => Ok(Named::Request(request)),
            _ => Err("name the answer by id, key or request, one of them".to_owned()),
        }
    }
}

/// How somebody names an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'r> {
    /// As its readers do.
    Id(&'r str),
    /// As the store does.
    Key([u8; 32]),
    /// By what was asked.
    Request(&'r ExplainRequest),
}

/// The same for people.
pub(super) fn page(answer: &FeedbackAnswer) -> String {
    let FeedbackAnswer { matched, served, served_in_all, similarity, labels, dry_run, right, .. } = answer;
    let mut out = String::new();
    if let Some(similarity) = similarity {
        out.push_str(&format!(
            "This request is served the answer to a similar question ({similarity:.4}).\n\n"
        ));
    }
    if !served.is_empty() {
        let head = ["AGO", "TENANT", "USER", "AS", "SIMILARITY", "ROUTE", "KEY"].map(str::to_owned).to_vec();
        let rows = served.iter().map(|to| {
            let similarity =
                to.similarity.map_or_else(|| "-".to_owned(), |similarity| format!("{similarity:.4}"));
            let user = to.user.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                span(to.ago_s),
                to.tenant.clone(),
                user,
                to.served_as.clone(),
                similarity,
                to.route.clone(),
                to.key[..16.min(to.key.len())].to_owned(),
            ]
        });
        out.push_str("Served to, as far as this proxy remembers:\n");
        out.push_str(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
        let more = served_in_all.saturating_sub(served.len());
        out.push_str(&if more > 0 { format!("and {more} earlier\n\n") } else { "\n".to_owned() });
    }
    let is = |count: u64| {
        if count == 1 { "1 stored answer is".to_owned() } else { format!("{count} stored answers are") }
    };
    out.push_str(&match (matched, dry_run, right) {
        (0, ..) => {
            "Nothing stored is meant: it was never stored, has expired, was purged, or has another id.\n"
                .to_owned()
        }
        (n, true, false) => {
            format!("{} meant. Nothing was removed yet: repeat the command with --yes.\n", is(*n))
        }
        (n, true, true) => {
            format!("{} meant. Nothing was noted yet: repeat the command with --yes.\n", is(*n))
        }
        (n, false, false) => format!("{} removed: nobody is served this any more.\n", is(*n)),
        (n, false, true) => format!("{} kept.\n", is(*n)),
    });
    if *labels > 0 {
        out.push_str(&format!("{labels} labels were written to labels.jsonl for refrain tune.\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_named_in_one_way() {
        let named = |id: Option<&str>, key: Option<&str>| {
            let own = |text: &str| text.to_owned();
            FeedbackRequest { id: id.map(own), key: key.map(own), ..FeedbackRequest::default() }
                .named()
                .is_ok()
        };
        assert!(named(Some("chatcmpl-1"), None) && named(None, Some(&"0a".repeat(32))));
        assert!(!named(None, Some("0a")) && !named(None, None));
        assert!(!named(Some("a"), Some(&"0a".repeat(32))));
    }
}
