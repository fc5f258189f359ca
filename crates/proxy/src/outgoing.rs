//! The body that goes upstream: the client's bytes, but for what has to be another on the way.

use refrain_llm::request::Rewrite;
use refrain_upstream::UpstreamBody;

use crate::plan::Planned;
use crate::request::Admitted;

/// What is asked for beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// As the client says.
    AsAsked,
    /// Also where the client didn't ask, so that a whole rendering of a streamed answer has it.
    Wanted,
}

/// The body of a planned request.
pub(crate) fn body(admitted: &Admitted, planned: &Planned, usage: Usage) -> UpstreamBody {
    let request = &planned.sent.request;
    UpstreamBody::Full(request.upstream_body(&rewrite(admitted, planned, usage)))
}

/// Whether an answer is asked for as a stream though the client wants it whole.
pub(crate) fn is_assembled(planned: &Planned) -> bool {
    let prompt = &planned.sent.request.prompt;
    planned.target.pool.config().assemble && !prompt.stream && prompt.api.streams()
}

pub(crate) fn rewrite(admitted: &Admitted, planned: &Planned, usage: Usage) -> Rewrite {
    let (target, prompt) = (&planned.target, &planned.sent.request.prompt);
    let assembled = is_assembled(planned);
    let wants_usage = usage == Usage::Wanted && prompt.stream && !prompt.include_usage;
    Rewrite {
        model: planned.sent.renamed(target),
        include_usage: wants_usage || assembled,
        stream: assembled,
        salt: admitted.state().salts.salt(&target.pool, prompt.api, &admitted.caller.identity.tenant),
    }
}
