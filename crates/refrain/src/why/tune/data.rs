//! Labels as files hold them: pairs of questions, or what was logged of similar ones.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use refrain_cache::{CandidateView, Decision, Embedder, decide};
use refrain_core::settings::RouteSemantic;
use refrain_core::{EmbedSource, SemanticPlan, Settings};
use serde::Deserialize;
use serde_json::Value;

/// For one vector: nobody waits for the command but who started it.
const EMBED_BUDGET: Duration = Duration::from_secs(60);

/// A pair of questions that somebody judged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    /// How similar they are; none: the answer of one is never served to the other, however low the threshold.
    pub(super) similarity: Option<f32>,
    /// Whether one answer serves both.
    pub(super) same: bool,
    /// Which half it belongs to: the same in every run.
    pub(super) half: Half,
}

/// One of two halves of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Chooses the threshold.
    Choosing,
    /// Says what to expect of it.
    HeldOut,
}

impl Half {
    /// By something that stands for the pair.
    fn of(name: &str) -> Self {
        if blake3::hash(name.as_bytes()).as_bytes()[0] & 1 == 0 { Self::Choosing } else { Self::HeldOut }
    }
}

/// Reads labelled pairs and compares them as the route would.
///
/// # Errors
/// The file is none such; there is no embedder.
pub(super) async fn of_pairs(
    file: &Path,
    settings: &Settings,
    semantic: &RouteSemantic,
) -> anyhow::Result<Vec<Judged>> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let pairs = pairs(&text).with_context(|| format!("{}", file.display()))?;
    let embedder = settings.embedder.clone().context("the config has no [embedder]")?;
    let embedder = Embedder::open(&refrain_core::settings::Embedder { budget: EMBED_BUDGET, ..embedder })?;
    let mut judged = Vec::with_capacity(pairs.len());
    for Pair { asked, stored, same } in pairs {
        let vectors = (embedder.embed(asked.to_owned()).await, embedder.embed(stored.to_owned()).await);
        // What can't be embedded is looked up exactly only.
        let cosine = match &vectors {
            (Ok(asked), Ok(stored)) => Some(asked.cosine(stored)),
            _ => None,
        };
        let similarity = cosine.filter(|cosine| is_served(asked, stored, (*cosine, semantic)));
        judged.push(Judged { similarity, same, half: Half::of(&format!("{asked}\t{stored}")) });
    }
    Ok(judged)
}

/// Whether nothing but the threshold stands between a question and a stored answer.
fn is_served(asked: &str, stored: &str, (similarity, semantic): (f32, &RouteSemantic)) -> bool {
    let plan = SemanticPlan {
        source: EmbedSource::default(),
        threshold: f32::MIN,
        candidates: semantic.candidates,
        vetoes: semantic.vetoes.clone(),
        shadow: false,
    };
    let candidate = CandidateView { similarity, text: stored };
    matches!(decide(asked, &[candidate], &plan), Decision::Serve { .. })
}

/// A pair of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair<'t> {
    asked: &'t str,
    stored: &'t str,
    same: bool,
}

fn pairs(text: &str) -> anyhow::Result<Vec<Pair<'_>>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (Some(a), Some(b), Some(label)) = (column("a"), column("b"), column("label").or(column("same")))
    else {
        bail!("the first line names tab-separated columns: a, b and label");
    };
    let mut pairs = Vec::new();
    for (nth, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (Some(asked), Some(stored), Some(label)) = (fields.get(a), fields.get(b), fields.get(label))
        else {
            bail!("line {}: {} columns of {}", nth + 2, fields.len(), header.len());
        };
        let same = match label.trim() {
            "1" | "true" => true,
            "0" | "false" => false,
            other => bail!("line {}: a label is 1 or 0, not {other:?}", nth + 2),
        };
        pairs.push(Pair { asked, stored, same });
    }
    Ok(pairs)
}

/// A line of a log, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    similarity: Option<f32>,
    same: Option<Value>,
    answers_alike: Option<f64>,
    route: Option<String>,
    key: Option<String>,
    question: Option<String>,
}

/// Reads a log of shadow mode, or labels. A question counts once with an answer: what is said of it last.
///
/// # Errors
/// The file can't be read, or holds no such line.
pub(super) fn of_log(file: &Path, route: Option<&str>, alike: f64) -> anyhow::Result<Vec<Judged>> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let judged = lines(&text, route, alike);
    if judged.is_empty() {
        bail!(
            "{}: no line has similarity, and same or answers_alike{}",
            file.display(),
            route.map(|route| format!(", of route {route:?}")).unwrap_or_default()
        );
    }
    Ok(judged)
}

fn lines(text: &str, route: Option<&str>, alike: f64) -> Vec<Judged> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut judged: Vec<Judged> = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let Some(line) = read_line(line) else { continue };
        let of_other = route.is_some_and(|wanted| line.route.as_deref().is_some_and(|route| route != wanted));
        let (Some(similarity), Some(same), false) = (line.similarity, verdict(&line, alike), of_other) else {
            continue;
        };
        let name = match (&line.key, &line.question) {
            (Some(key), Some(question)) => format!("{key} {question}"),
            _ => format!("line {nth}"),
        };
        let one = Judged { similarity: Some(similarity), same, half: Half::of(&name) };
        match places.get(&name) {
            Some(at) => judged[*at] = one,
            None => {
                places.insert(name, judged.len());
                judged.push(one);
            }
        }
    }
    judged
}

/// A JSON object, or one of the log with its fields within.
fn read_line(line: &str) -> Option<Line> {
    let mut value: Value = serde_json::from_str(line.trim()).ok()?;
    if let Some(fields) = value.get_mut("fields") {
        value = fields.take();
    }
    serde_json::from_value(value).ok()
}

/// What the line says, if it is sure.
fn verdict(line: &Line, alike: f64) -> Option<bool> {
    match (&line.same, line.answers_alike) {
        (Some(Value::Bool(same)), _) => Some(*same),
        (Some(Value::Number(same)), _) => Some(same.as_f64()? > 0.5),
        (Some(_), _) => None,
        (None, Some(answers)) if answers >= 1.0 => Some(true),
        (None, Some(answers)) if answers < alike => Some(false),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_by_the_names_of_their_columns() {
        let text = "category\ta\tb\tlabel\nx\tHow?\tIn which way?\t1\n\ny\tOn?\tOff?\t0\n";
        assert_eq!(
            pairs(text).unwrap(),
            [
                Pair { asked: "How?", stored: "In which way?", same: true },
                Pair { asked: "On?", stored: "Off?", same: false }
            ]
        );
        for wrong in ["", "a\tb\n", "a\tb\tlabel\nx\n", "a\tb\tlabel\nx\ty\tmaybe\n"] {
            assert!(pairs(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn logs_are_read_as_lines_of_labels_or_of_the_proxys_own_log() {
        let text = concat!(
            r#"{"similarity":0.91,"same":false,"route":"chat","key":"k","question":"q"}"#,
            "\n",
            r#"{"timestamp":"t","fields":{"similarity":0.95,"answers_alike":1.0,"route":"chat","key":"k","question":"r"},"target":"refrain::shadow"}"#,
            "\n",
            r#"{"similarity":0.92,"answers_alike":0.5,"key":"k","question":"s"}"#,
            "\n",
            r#"{"similarity":0.97,"same":1,"route":"other"}"#,
            "\n",
            "not json\n",
            r#"{"similarity":0.91,"same":true,"route":"chat","key":"k","question":"q"}"#,
            "\n",
        );
        let found: Vec<(Option<f32>, bool)> =
            lines(text, Some("chat"), 0.3).iter().map(|one| (one.similarity, one.same)).collect();
        assert_eq!(found, [(Some(0.91), true), (Some(0.95), true)]);
        assert_eq!(lines(text, None, 0.6).len(), 4);
    }
}
