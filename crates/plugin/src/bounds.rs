//! Whether an answer is one at all: the interface's own bounds, and the grants that it would need.
//!
//! Pure. What is over a bound here fails the policy; what is over the operator's bounds is narrowed by [`crate::merge`].

use std::collections::BTreeSet;

use refrain_core::settings::Grant;
use refrain_core::{Edit, EditOp, EmbedSource, KeyPart, PoolId, Scope, SemanticPlan};

use crate::answer::{
    About, Answer, BypassWanted, KeepWanted, RefusalWanted, SemanticWanted, Stored, Violation, Wanted,
};
use crate::verdict::Upstream;

/// Key parts, and parts of a routing key.
const PARTS_MAX: usize = 32;
/// Text of key parts, of edits, and to embed, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Edits of a body.
const EDITS_MAX: usize = 32;
/// Steps of one `round-up`.
const STEPS_MAX: usize = 64;
/// What is handed to later hooks, in bytes.
const CONTEXT_BYTES_MAX: usize = 4 * 1024;
/// Labels of an answer.
const LABELS_MAX: usize = 16;
/// A label's name, in bytes.
const LABEL_NAME_BYTES_MAX: usize = 64;
/// A label's value, in bytes.
const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Vetoes, repeated ones counted.
pub(crate) const VETOES_MAX: usize = 8;
/// Tags of an entry.
const TAGS_MAX: usize = 16;
/// A tag, in bytes.
const TAG_BYTES_MAX: usize = 128;
/// A name that stands for something: a scope, a claim, a header, a pool, a model.
const NAME_BYTES_MAX: usize = 256;
/// A refusal's message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Neighbours that a policy may look at.
const CANDIDATES_MAX: u32 = 64;
/// Metrics and reasons that a policy may declare.
const DECLARED_MAX: usize = 32;
/// Labels that a policy may have counted.
const COUNTED_LABELS_MAX: usize = 4;
/// Values of one of them.
const COUNTED_VALUES_MAX: usize = 16;

/// What an answer is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights<'a> {
    pub(crate) grants: &'a BTreeSet<Grant>,
    /// The route's own pool: choosing it is no choice.
    pub(crate) pool: &'a PoolId,
    /// The semantic tier without policies: its embed source is no choice either.
    pub(crate) semantic: Option<&'a SemanticPlan>,
}

type Checked = Result<(), Violation>;

/// Checks an answer of `on-request`.
pub(crate) fn check_answer(answer: &Answer, rights: Rights<'_>) -> Checked {
    match answer {
        Answer::Cache(wanted) => check_plan(wanted, rights),
        Answer::Bypass(BypassWanted { reason, upstream, labels }) => {
            check_name("reason", reason)?;
            check_upstream(upstream, rights)?;
            check_labels(labels)
        }
        Answer::Refuse(refusal) => check_refusal(refusal, rights),
    }
}

/// Checks an answer of `on-response`.
pub(crate) fn check_stored(stored: &Stored) -> Checked {
    match stored {
        Stored::Skip(reason) => check_name("reason", reason),
        Stored::Keep(KeepWanted { freshness: _, narrow, exact_only: _, tags, labels }) => {
            narrow.as_ref().map_or(Ok(()), check_scope)?;
            at_most("tags", tags.len(), TAGS_MAX)?;
            tags.iter().try_for_each(|tag| at_most("bytes of a tag", tag.len(), TAG_BYTES_MAX))?;
            check_labels(labels)
        }
    }
}

/// Checks what a policy says of itself.
pub(crate) fn check_about(about: &About) -> Checked {
    let About { name, version, needs: _, metrics, reasons, labels } = about;
    check_name("name", name)?;
    check_name("version", version)?;
    at_most("metrics", metrics.len(), DECLARED_MAX)?;
    at_most("reasons", reasons.len(), DECLARED_MAX)?;
    at_most("counted labels", labels.len(), COUNTED_LABELS_MAX)?;
    metrics.iter().chain(reasons).try_for_each(|name| check_token(name))?;
    labels.iter().try_for_each(|(name, values)| {
        check_token(name)?;
        at_most("values of a counted label", values.len(), COUNTED_VALUES_MAX)?;
        values
            .iter()
            .try_for_each(|value| at_most("bytes of a label value", value.len(), LABEL_VALUE_BYTES_MAX))
    })
}

fn check_plan(wanted: &Wanted, rights: Rights<'_>) -> Checked {
    let Wanted {
        key_add,
        edits,
        lookup: _,
        collapse: _,
        scope,
        semantic,
        freshness: _,
        shadow: _,
        store: _,
        upstream,
        context,
        labels,
    } = wanted;
    check_parts("key parts", key_add)?;
    check_edits(edits, rights)?;
    check_scope(scope)?;
    semantic.as_ref().map_or(Ok(()), |semantic| check_semantic(semantic, rights))?;
    check_upstream(upstream, rights)?;
    at_most("bytes of context", context.len(), CONTEXT_BYTES_MAX)?;
    check_labels(labels)
}

fn check_parts(what: &str, parts: &[KeyPart]) -> Checked {
    at_most(what, parts.len(), PARTS_MAX)?;
    let bytes = parts.iter().map(|part| match part {
        KeyPart::Text(text) | KeyPart::Header(text) | KeyPart::Claim(text) | KeyPart::Json(text) => {
            text.len()
        }
        KeyPart::Message(_)
        | KeyPart::Model
        | KeyPart::Sampling
        | KeyPart::SystemPrompt
        | KeyPart::Tools
        | KeyPart::Messages
        | KeyPart::History => 0,
    });
    at_most("bytes of key parts", bytes.sum(), TEXT_BYTES_MAX)?;
    parts.iter().try_for_each(|part| match part {
        KeyPart::Json(pointer) => check_pointer(pointer),
        _ => Ok(()),
    })
}

fn check_edits(edits: &[Edit], rights: Rights<'_>) -> Checked {
    if edits.is_empty() {
        return Ok(());
    }
    rights.need(Grant::KeyEdit)?;
    at_most("edits", edits.len(), EDITS_MAX)?;
    let bytes = edits.iter().map(|edit| {
        edit.pointer.len()
            + match &edit.op {
                EditOp::DropLinesStarting(start) => start.len(),
                EditOp::Remove | EditOp::RoundUp(_) => 0,
            }
    });
    at_most("bytes of edits", bytes.sum(), TEXT_BYTES_MAX)?;
    edits.iter().try_for_each(|edit| check_edit(edit, rights))
}

fn check_edit(edit: &Edit, rights: Rights<'_>) -> Checked {
    if edit.send_upstream {
        rights.need(Grant::Rewrite)?;
    }
    if edit.pointer.is_empty() {
        return Err(Violation::invalid("an edit of the whole body"));
    }
    check_pointer(&edit.pointer)?;
    match &edit.op {
        EditOp::Remove => Ok(()),
        EditOp::DropLinesStarting(start) if start.is_empty() => {
            Err(Violation::invalid("an edit of every line"))
        }
        EditOp::DropLinesStarting(_) => Ok(()),
        EditOp::RoundUp(steps) => {
            at_most("steps of round-up", steps.len(), STEPS_MAX)?;
            if steps.is_sorted() { Ok(()) } else { Err(Violation::invalid("steps of round-up don't ascend")) }
        }
    }
}

fn check_pointer(pointer: &str) -> Checked {
    if pointer.is_empty() || pointer.starts_with('/') {
        Ok(())
    } else {
        Err(Violation::invalid("a JSON pointer doesn't start with \"/\""))
    }
}

fn check_scope(scope: &Scope) -> Checked {
    match scope {
        Scope::User | Scope::Tenant => Ok(()),
        Scope::Claim(name) | Scope::WithinUser(name) | Scope::UserPart(name) | Scope::Shared(name) => {
            if name.is_empty() {
                return Err(Violation::invalid("a scope without a name"));
            }
            check_name("scope", name)
        }
    }
}

fn check_semantic(semantic: &SemanticWanted, rights: Rights<'_>) -> Checked {
    let SemanticWanted { source, threshold, candidates, vetoes } = semantic;
    if !(0.0..=1.0).contains(threshold) {
        return Err(Violation::invalid("a threshold outside of 0 to 1"));
    }
    if !(1..=CANDIDATES_MAX).contains(candidates) {
        return Err(Violation::invalid("candidates outside of 1 to 64"));
    }
    at_most("vetoes", vetoes.len(), VETOES_MAX)?;
    check_source(source, rights)
}

fn check_source(source: &EmbedSource, rights: Rights<'_>) -> Checked {
    if rights.semantic.is_some_and(|own| own.source == *source) {
        return Ok(());
    }
    match source {
        EmbedSource::LastUserMessage | EmbedSource::Span { .. } => Ok(()),
        EmbedSource::AllUserMessages => rights.need(Grant::KeyEdit),
        EmbedSource::LastMessages(0) => Err(Violation::invalid("an embed source of no messages")),
        EmbedSource::LastMessages(_) => rights.need(Grant::KeyEdit),
        EmbedSource::Text(text) => {
            at_most("bytes of text to embed", text.len(), TEXT_BYTES_MAX)?;
            rights.need(Grant::KeyEdit)
        }
    }
}

fn check_upstream(upstream: &Upstream, rights: Rights<'_>) -> Checked {
    let Upstream { pool, routing_key, model } = upstream;
    if let Some(pool) = pool.as_ref().filter(|pool| *pool != rights.pool) {
        check_name("pool", pool.as_str())?;
        rights.need(Grant::Pool)?;
    }
    if let Some(model) = model {
        check_name("model", model)?;
    }
    check_parts("routing key parts", routing_key)
}

fn check_refusal(refusal: &RefusalWanted, rights: Rights<'_>) -> Checked {
    let RefusalWanted { status, message, retry_after_s: _ } = refusal;
    rights.need(Grant::Refuse)?;
    if !matches!(status, 400..=499 | 503) {
        return Err(Violation::invalid("a refusal with a status other than 400 to 499 or 503"));
    }
    at_most("bytes of a refusal's message", message.len(), MESSAGE_BYTES_MAX)
}

fn check_labels(labels: &[(String, String)]) -> Checked {
    at_most("labels", labels.len(), LABELS_MAX)?;
    labels.iter().try_for_each(|(name, value)| {
        at_most("bytes of a label's name", name.len(), LABEL_NAME_BYTES_MAX)?;
        at_most("bytes of a label's value", value.len(), LABEL_VALUE_BYTES_MAX)
    })
}

fn check_name(what: &str, name: &str) -> Checked {
    if name.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(Violation::invalid(format!("a {what} of {} bytes (at most {NAME_BYTES_MAX})", name.len())))
    }
}

/// What becomes a label of metrics.
fn check_token(name: &str) -> Checked {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=LABEL_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known) {
        Ok(())
    } else {
        Err(Violation::invalid("a declared name that isn't 1 to 64 of the letters a-z A-Z 0-9 _ - ."))
    }
}

fn at_most(what: &str, found: usize, max: usize) -> Checked {
    if found <= max { Ok(()) } else { Err(Violation::invalid(format!("{found} {what} (at most {max})"))) }
}

impl Rights<'_> {
    fn need(&self, grant: Grant) -> Checked {
        if self.grants.contains(&grant) { Ok(()) } else { Err(Violation::NotGranted(grant)) }
    }
}
