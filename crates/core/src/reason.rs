//! Why something was not looked up, not compared or not stored.
//!
//! Each reason is at once the log field, the metric label and the `detail` token of `Cache-Status`.

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every reason, for metrics that list them all from the start.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The token in logs, metrics and headers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a request was neither looked up nor stored.
    Bypass {
        /// The route doesn't cache.
        CacheOff = "cache_off",
        /// The scope is `user` (or within it) and no user is verified.
        NoUser = "no_user",
        /// The scope is a claim that the caller lacks.
        NoClaim = "no_claim",
        /// The API is passed through.
        ApiNotCached = "api_not_cached",
        /// Media are named by URL, so what they show isn't known.
        MediaByUrl = "media_by_url",
        /// The request refers to state that the upstream keeps.
        Stateful = "stateful",
        /// Ollama's load or unload call: it asks nothing.
        LoadUnload = "load_unload",
        /// Sampled requests are not cached on this route.
        Sampled = "sampled",
        /// The upstream model's identity (digest, revision) isn't known yet.
        ModelUnknown = "model_unknown",
        /// The user asked the same again: a wish for another answer.
        Regenerate = "regenerate",
        /// The same question lately had an answer that could not be stored: waiting for it would help nobody.
        HitForPass = "hit_for_pass",
        /// A policy said so.
        Policy = "policy",
        /// A policy trapped.
        PolicyTrapped = "policy_trapped",
        /// A policy took more than its budget.
        PolicyTimedOut = "policy_timed_out",
        /// A policy wanted more memory than its limit.
        PolicyOutOfMemory = "policy_out_of_memory",
        /// A policy answered with what is no valid answer.
        PolicyInvalid = "policy_invalid",
        /// A policy did what it has no grant for.
        PolicyNotGranted = "policy_not_granted",
        /// No instance of a policy was free in time.
        PolicyBusy = "policy_busy",
        /// A policy failed too often and rests.
        PolicyQuarantined = "policy_quarantined",
        /// Two policies of the route contradict each other.
        PolicyConflict = "policy_conflict",
    }
}

reasons! {
    /// Why only the exact tier was asked.
    ExactOnly {
        /// Semantic look-up isn't defined for this API.
        Api = "api",
        /// The request offers tools.
        Tools = "tools",
        /// The conversation holds tool calls or results.
        ToolMessages = "tool_messages",
        /// A structured output is asked for.
        StructuredOutput = "structured_output",
        /// Log probabilities are asked for.
        Logprobs = "logprobs",
        /// More than one choice is asked for.
        Choices = "choices",
        /// The last message is not the user's (assistant prefill included).
        LastNotUser = "last_not_user",
        /// The last message isn't plain text.
        NotText = "not_text",
        /// The last message is empty.
        Empty = "empty",
        /// The last message is longer than the embedder's window.
        TooLong = "too_long",
        /// The embedder's queue was full.
        EmbedderBusy = "embedder_busy",
        /// The embedder took longer than its budget.
        EmbedderSlow = "embedder_slow",
        /// No embedder is loaded.
        EmbedderDown = "embedder_down",
    }
}

reasons! {
    /// Why an answer was not stored.
    Skip {
        /// The plan or the client forbade it.
        NoStore = "no_store",
        /// The status was not 200.
        Status = "status",
        /// The answer ended without the dialect's terminator.
        Incomplete = "incomplete",
        /// The answer was not what the dialect says.
        Malformed = "malformed",
        /// Cut by a token limit.
        Length = "length",
        /// It ended for another reason than a natural stop.
        FinishReason = "finish_reason",
        /// It holds tool calls.
        ToolCalls = "tool_calls",
        /// Tools were offered and the route doesn't store such answers.
        ToolsOffered = "tools_offered",
        /// Larger than the route's or the store's limit.
        TooLarge = "too_large",
        /// The endpoint that answered has another build of the model than the one the key names.
        ModelChanged = "model_changed",
        /// A policy said so.
        Policy = "policy",
        /// A policy failed.
        PolicyFailed = "policy_failed",
        /// It was purged while it was generated.
        Purged = "purged",
        /// Everybody who waited for it left.
        Cancelled = "cancelled",
        /// The store's write queue was full.
        StoreBusy = "store_busy",
        /// The store refused or failed.
        StoreDown = "store_down",
    }
}
