//! Plain values as this version's guests are told them.

use refrain_core::{EmbedSource, Freshness, Plan, Scope, SemanticPlan};

use super::bindings::exports::refrain::policy::validate;
use super::bindings::refrain::policy::{request as wire, types, values};
use crate::answer::Lookup;
use crate::merge::own_lookup;
use crate::verdict::Candidate;
use crate::view::{Api, RequestSummary, ResponseSummary, Role};

pub(super) fn request(summary: RequestSummary) -> types::RequestSummary {
    let RequestSummary {
        route,
        tenant,
        api,
        model,
        streaming,
        temperature,
        has_tools,
        has_media,
        message_count,
        body_size,
    } = summary;
    types::RequestSummary {
        route,
        tenant,
        api: lower_api(api),
        model,
        streaming,
        temperature,
        has_tools,
        has_media,
        message_count,
        body_size,
    }
}

pub(super) fn response(summary: ResponseSummary) -> types::ResponseSummary {
    let ResponseSummary {
        status,
        finish_reason,
        complete,
        has_tool_calls,
        input_tokens,
        output_tokens,
        upstream,
        latency_ms,
        text_size,
    } = summary;
    types::ResponseSummary {
        status,
        finish_reason,
        complete,
        has_tool_calls,
        input_tokens,
        output_tokens,
        upstream,
        latency_ms,
        text_size,
    }
}

pub(super) fn candidate(candidate: Candidate) -> validate::Candidate {
    let Candidate { similarity, exact, age_s, stale, source_text, model, labels } = candidate;
    validate::Candidate { similarity, exact, age_s, stale, source_text, model, labels }
}

pub(super) fn role(role: Role) -> wire::Role {
    match role {
        Role::System => wire::Role::System,
        Role::Developer => wire::Role::Developer,
        Role::User => wire::Role::User,
        Role::Assistant => wire::Role::Assistant,
        Role::Tool => wire::Role::Tool,
        Role::Other => wire::Role::Other,
    }
}

/// The route's plan. Its own scope within a user is told by its name, and taken back by it: see
/// [`crate::merge::Bounds::clamp`].
pub(super) fn plan(plan: &Plan) -> values::Plan {
    values::Plan {
        key: values::KeyChange { add: Vec::new(), edits: Vec::new() },
        lookup: match own_lookup(plan) {
            Lookup::Normal => values::Lookup::Normal,
            Lookup::Skip => values::Lookup::Skip,
            Lookup::Only => values::Lookup::Only,
        },
        collapse: plan.collapse,
        scope: scope(&plan.scope),
        semantic: plan.semantic.as_ref().map(semantic),
        fresh: freshness(plan.freshness),
        shadow: plan.shadow,
        store: plan.store,
        upstream: values::Upstream { pool: None, routing_key: Vec::new(), model: None },
        context: String::new(),
        labels: Vec::new(),
    }
}

fn scope(scope: &Scope) -> values::Scope {
    match scope {
        Scope::User => values::Scope::User,
        Scope::Tenant => values::Scope::Tenant,
        Scope::Claim(name) => values::Scope::Claim(name.clone()),
        Scope::WithinUser(name) | Scope::UserPart(name) => values::Scope::WithinUser(name.clone()),
        Scope::Shared(name) => values::Scope::Shared(name.clone()),
    }
}

fn semantic(plan: &SemanticPlan) -> values::Semantic {
    values::Semantic {
        source: source(&plan.source),
        threshold: plan.threshold,
        candidates: u32::try_from(plan.candidates).unwrap_or(u32::MAX),
        vetoes: plan.vetoes.iter().map(|veto| veto.as_str().to_owned()).collect(),
    }
}

fn source(source: &EmbedSource) -> values::EmbedSource {
    match source {
        EmbedSource::LastUserMessage => values::EmbedSource::LastUserMessage,
        EmbedSource::Span { start, len } => values::EmbedSource::Span((*start, *len)),
        EmbedSource::AllUserMessages => values::EmbedSource::AllUserMessages,
        EmbedSource::LastMessages(n) => values::EmbedSource::LastMessages(*n),
        EmbedSource::Text(text) => values::EmbedSource::Text(text.clone()),
    }
}

fn freshness(freshness: Freshness) -> values::Freshness {
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    values::Freshness {
        ttl_s: seconds(freshness.ttl),
        stale_revalidate_s: seconds(freshness.stale_while_revalidate),
        stale_error_s: seconds(freshness.stale_if_error),
    }
}

fn lower_api(api: Api) -> types::Api {
    match api {
        Api::Chat => types::Api::Chat,
        Api::Responses => types::Api::Responses,
        Api::Messages => types::Api::Messages,
        Api::Completion => types::Api::Completion,
        Api::Embeddings => types::Api::Embeddings,
        Api::Other => types::Api::Other,
    }
}
