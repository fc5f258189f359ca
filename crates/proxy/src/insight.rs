//! What is remembered of requests for operators who ask why. On the way of a hit it costs a comparison, on the way of a miss
//! a digest; only sampled misses, and answers served to somebody else, are noted.

use refrain_cache::{
    CacheKey, EntryMeta, MissReason, NotedMiss, Part, ServedAs, Serving, Shadowed, compare, unix_ms,
};
use refrain_core::{Identity, KeyPart};
use refrain_llm::answer::{Answer, Encoded};

use crate::cache_status::{CacheStatus, Tier};
use crate::key::Keyed;
use crate::lookup::{Hit, InShadow, Miss};
use crate::request::Admitted;
use crate::snapshot::AnswerCache;

/// Of two answers, what is compared.
const COMPARED_BYTES_MAX: usize = 4 * 1024;

/// What is to be remembered of a miss, if its question is of the sample: for a while, the same questions always are.
pub(crate) fn miss(cache: &AnswerCache, miss: &Miss) -> Option<NotedMiss> {
    let keyed = &miss.keyed;
    let state = keyed.admitted.state();
    let (share, now_ms) = (state.route.cache.miss_sample, unix_ms());
    if share <= 0.0 {
        return None;
    }
    let insight = &cache.insight;
    let question = of_question(keyed, |text| insight.question(text));
    if !insight.samples(question, share, now_ms) {
        return None;
    }
    let mut parts: Vec<Part> = Vec::with_capacity(32);
    keyed.dissect(cache, &mut |name, text| parts.push(insight.part(name, text))).ok()?;
    let when = (state.route.id.clone(), now_ms);
    Some(NotedMiss::new(when, (reason(miss.status), miss.refusal), (question, parts)))
}

fn reason(status: CacheStatus) -> MissReason {
    match status {
        CacheStatus::Stale => MissReason::Expired,
        CacheStatus::Request => MissReason::Forbidden,
        CacheStatus::Refused => MissReason::HeldBack,
        _ => MissReason::NothingStored,
    }
}

/// Stands for what is asked, where that may be shown.
pub(crate) fn question(cache: &AnswerCache, keyed: &Keyed) -> u64 {
    of_question(keyed, |text| cache.question(text))
}

/// A digest of the text that is compared, else of the last message whatever it is.
fn of_question(keyed: &Keyed, digest: impl FnOnce(&[u8]) -> u64) -> u64 {
    let request = &keyed.planned.asked.request;
    if let Ok(text) = &request.prompt.embed_text {
        return digest(text.as_bytes());
    }
    let last = KeyPart::Message(request.prompt.message_count.saturating_sub(1));
    digest(&request.key_part(&last, "").unwrap_or_default())
}

/// Whether a caller is known to be who asked first. Two that nobody has verified as users may be anybody.
pub(crate) fn is_asker(identity: &Identity, meta: &EntryMeta) -> bool {
    identity.user.is_some() && meta.user == identity.user && meta.tenant == identity.tenant
}

/// Remembers whom an answer is served to, unless it is who asked first.
pub(crate) fn note_hit(cache: &AnswerCache, admitted: &Admitted, hit: &Hit) {
    let meta = &hit.entry.meta;
    let served_as = match hit.tier {
        Tier::Exact if is_asker(&admitted.caller.identity, meta) => return,
        Tier::Exact => ServedAs::Exact,
        Tier::Semantic => ServedAs::Semantic,
    };
    let id = meta.tags.iter().find_map(|tag| tag.strip_prefix("id:")).map(Serving::of_id);
    let serving = serving(admitted, (hit.entry.key.key, id), served_as);
    let (similarity, question) = hit.similar.unzip();
    cache.insight.servings.note(Serving { similarity, question, ..serving });
}

/// Remembers for whom an answer was generated that is stored now. `question`: what was asked, as [`question`] tells.
pub(crate) fn note_stored(
    cache: &AnswerCache,
    (admitted, question): (&Admitted, u64),
    (key, id): ([u8; 32], Option<&str>),
) {
    let serving = serving(admitted, (key, id.map(Serving::of_id)), ServedAs::Generated);
    cache.insight.servings.note(Serving { question: Some(question), ..serving });
}

/// Remembers who joined the generation of an answer.
pub(crate) fn note_joined(cache: &AnswerCache, keyed: &Keyed) {
    let CacheKey { key, .. } = keyed.key;
    let serving = serving(&keyed.admitted, (key, None), ServedAs::Joined);
    cache.insight.servings.note(Serving { question: Some(question(cache, keyed)), ..serving });
}

fn serving(admitted: &Admitted, (key, id): ([u8; 32], Option<u64>), served_as: ServedAs) -> Serving {
    let identity = &admitted.caller.identity;
    Serving {
        key,
        id,
        at_ms: unix_ms(),
        route: admitted.state().route.id.clone(),
        tenant: identity.tenant.clone(),
        user: identity.user.clone(),
        served_as,
        similarity: None,
        question: None,
    }
}

/// Remembers a stored answer that shadow mode kept back, or that was served and is audited, and how it compares with what an
/// upstream says; tells it to the log, too. How alike they are; none if one of them can't be read.
pub(crate) fn note_shadowed(
    cache: &AnswerCache,
    keyed: &Keyed,
    (stored, fresh): (&InShadow, &Encoded),
) -> Option<f32> {
    let InShadow { entry, similarity, threshold } = stored;
    let (Ok(fresh), Ok(answer)) = (fresh.answer(), entry.answer()) else { return None };
    let shadowed = Shadowed {
        route: keyed.admitted.state().route.id.clone(),
        at_ms: unix_ms(),
        key: entry.key.key,
        question: question(cache, keyed),
        similarity: *similarity,
        threshold: *threshold,
        answers_alike: alike(&answer, &fresh),
    };
    tracing::info!(
        target: "refrain::shadow",
        at_ms = shadowed.at_ms,
        route = %shadowed.route,
        key = refrain_core::hex(&shadowed.key),
        question = format!("{:016x}", shadowed.question),
        similarity = shadowed.similarity,
        threshold = shadowed.threshold,
        would_serve = shadowed.would_serve(),
        answers_alike = shadowed.answers_alike,
        "shadow"
    );
    let alike = shadowed.answers_alike;
    cache.insight.shadowed.note(shadowed);
    Some(alike)
}

/// How alike two answers are: 1 if they say the same, else the part of their words that they share, below 1.
fn alike(a: &Answer, b: &Answer) -> f32 {
    /// What two texts have that share all words and don't say the same.
    const NEARLY: f32 = 0.999;
    let plain = |text: &str| {
        let text = text.to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").trim_end_matches(['.', '!', ' ']).to_owned()
    };
    let (a, b) = (a.text(), b.text());
    if plain(&a) == plain(&b) {
        return 1.0;
    }
    let start = |text: &str| text[..text.floor_char_boundary(COMPARED_BYTES_MAX)].to_owned();
    compare(&start(&a), &start(&b)).jaccard.min(NEARLY)
}
