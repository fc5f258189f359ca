//! This version's answers as plain values. What has no plain value (a veto by an unknown name) is a violation.

use std::time::Duration;

use refrain_core::settings::Grant;
use refrain_core::{Edit, EditOp, EmbedSource, Freshness, KeyPart, PoolId, Scope, Veto};

use super::bindings::exports::refrain::policy::{setup, store, validate};
use super::bindings::refrain::policy::values;
use crate::answer::{
    About, Answer, BypassWanted, Judged, KeepWanted, Lookup, RefusalWanted, SemanticWanted, Stored,
    Violation, Wanted,
};
use crate::bounds::VETOES_MAX;
use crate::verdict::Upstream;

pub(super) fn about(about: setup::About) -> About {
    let setup::About { name, version, needs, metrics, reasons, labels } = about;
    About {
        name,
        version,
        needs: needs.into_iter().map(grant).collect(),
        metrics,
        reasons,
        labels: labels.into_iter().map(|label| (label.name, label.values)).collect(),
    }
}

pub(super) fn decision(decision: values::Decision) -> Result<Answer, Violation> {
    Ok(match decision {
        values::Decision::Cache(plan) => Answer::Cache(Box::new(wanted(plan)?)),
        values::Decision::Bypass(values::Bypass { reason, upstream, labels }) => {
            Answer::Bypass(BypassWanted { reason, upstream: lift_upstream(upstream), labels })
        }
        values::Decision::Refuse(values::Refusal { status, message, retry_after_s }) => {
            Answer::Refuse(RefusalWanted { status, message, retry_after_s })
        }
    })
}

pub(super) fn verdict(verdict: validate::Verdict) -> Judged {
    match verdict {
        validate::Verdict::Accept(index) => Judged::Accept(index),
        validate::Verdict::Miss(reason) => Judged::Miss(reason),
    }
}

pub(super) fn outcome(outcome: store::Outcome) -> Stored {
    match outcome {
        store::Outcome::Skip(reason) => Stored::Skip(reason),
        store::Outcome::Keep(store::Entry { fresh, narrow, exact_only, tags, labels }) => {
            let (freshness, narrow) = (lift_freshness(fresh), narrow.map(lift_scope));
            Stored::Keep(KeepWanted { freshness, narrow, exact_only, tags, labels })
        }
    }
}

fn wanted(plan: values::Plan) -> Result<Wanted, Violation> {
    let values::Plan {
        key: values::KeyChange { add, edits },
        lookup,
        collapse,
        scope,
        semantic,
        fresh,
        shadow,
        store,
        upstream,
        context,
        labels,
    } = plan;
    Ok(Wanted {
        key_add: add.into_iter().map(lift_part).collect(),
        edits: edits.into_iter().map(lift_edit).collect(),
        lookup: match lookup {
            values::Lookup::Normal => Lookup::Normal,
            values::Lookup::Skip => Lookup::Skip,
            values::Lookup::Only => Lookup::Only,
        },
        collapse,
        scope: lift_scope(scope),
        semantic: semantic.map(lift_semantic).transpose()?,
        freshness: lift_freshness(fresh),
        shadow,
        store,
        upstream: lift_upstream(upstream),
        context,
        labels,
    })
}

fn lift_semantic(semantic: values::Semantic) -> Result<SemanticWanted, Violation> {
    let values::Semantic { source, threshold, candidates, vetoes } = semantic;
    if vetoes.len() > VETOES_MAX {
        return Err(Violation::invalid(format!("{} vetoes (at most {VETOES_MAX})", vetoes.len())));
    }
    let vetoes = vetoes.iter().map(|name| lift_veto(name)).collect::<Result<_, _>>()?;
    Ok(SemanticWanted { source: lift_source(source), threshold, candidates, vetoes })
}

fn lift_veto(name: &str) -> Result<Veto, Violation> {
    Veto::ALL.into_iter().find(|veto| veto.as_str() == name).ok_or_else(|| {
        Violation::invalid("a veto other than \"number\", \"negation\", \"name\", \"date\" and \"unit\"")
    })
}

fn lift_source(source: values::EmbedSource) -> EmbedSource {
    match source {
        values::EmbedSource::LastUserMessage => EmbedSource::LastUserMessage,
        values::EmbedSource::Span((start, len)) => EmbedSource::Span { start, len },
        values::EmbedSource::AllUserMessages => EmbedSource::AllUserMessages,
        values::EmbedSource::LastMessages(n) => EmbedSource::LastMessages(n),
        values::EmbedSource::Text(text) => EmbedSource::Text(text),
    }
}

fn lift_upstream(upstream: values::Upstream) -> Upstream {
    let values::Upstream { pool, routing_key, model } = upstream;
    Upstream {
        pool: pool.map(PoolId::new),
        routing_key: routing_key.into_iter().map(lift_part).collect(),
        model,
    }
}

fn lift_part(part: values::KeyPart) -> KeyPart {
    match part {
        values::KeyPart::Text(text) => KeyPart::Text(text),
        values::KeyPart::Header(name) => KeyPart::Header(name.to_ascii_lowercase()),
        values::KeyPart::Claim(name) => KeyPart::Claim(name),
        values::KeyPart::Message(index) => KeyPart::Message(index),
        values::KeyPart::Json(pointer) => KeyPart::Json(pointer),
        values::KeyPart::Model => KeyPart::Model,
        values::KeyPart::Sampling => KeyPart::Sampling,
        values::KeyPart::SystemPrompt => KeyPart::SystemPrompt,
        values::KeyPart::Tools => KeyPart::Tools,
        values::KeyPart::Messages => KeyPart::Messages,
        values::KeyPart::History => KeyPart::History,
    }
}

fn lift_edit(edit: values::Edit) -> Edit {
    let values::Edit { pointer, op, send_upstream } = edit;
    let op = match op {
        values::EditOp::Remove => EditOp::Remove,
        values::EditOp::DropLinesStarting(start) => EditOp::DropLinesStarting(start),
        values::EditOp::RoundUp(steps) => EditOp::RoundUp(steps),
    };
    Edit { pointer, op, send_upstream }
}

fn lift_scope(scope: values::Scope) -> Scope {
    match scope {
        values::Scope::WithinUser(name) => Scope::UserPart(name),
        values::Scope::User => Scope::User,
        values::Scope::Claim(name) => Scope::Claim(name),
        values::Scope::Tenant => Scope::Tenant,
        values::Scope::Shared(name) => Scope::Shared(name),
    }
}

fn lift_freshness(freshness: values::Freshness) -> Freshness {
    let values::Freshness { ttl_s, stale_revalidate_s, stale_error_s } = freshness;
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    Freshness {
        ttl: seconds(ttl_s),
        stale_while_revalidate: seconds(stale_revalidate_s),
        stale_if_error: seconds(stale_error_s),
    }
}

fn grant(grant: setup::Grant) -> Grant {
    match grant {
        setup::Grant::SharedScope => Grant::SharedScope,
        setup::Grant::Refuse => Grant::Refuse,
        setup::Grant::KeyEdit => Grant::KeyEdit,
        setup::Grant::Rewrite => Grant::Rewrite,
        setup::Grant::Pool => Grant::Pool,
        setup::Grant::State => Grant::State,
        setup::Grant::Embed => Grant::Embed,
    }
}
