//! Labels as files hold them: pairs of questions, or what was logged of similar ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use refrain_cache::{CandidateView, Decision, Embedder, decide};
use refrain_core::settings::RouteSemantic;
use refrain_core::{EmbedSource, SemanticPlan, Settings};
use serde::Deserialize;
use serde_json::Value;

use super::halves::Said;

/// For one vector: nobody waits for the command but who started it.
const EMBED_BUDGET: Duration = Duration::from_secs(60);

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    /// What is sure.
    pub(super) said: Vec<Said>,
    /// Lines of which nobody can say whether they are right or wrong.
    pub(super) unsure: usize,
    /// Whether people said it, of answers that somebody looked at.
    pub(super) is_by_people: bool,
}

/// Reads labelled pairs and compares them as the route would.
///
/// # Errors
/// The file is none such; there is no embedder.
pub(super) async fn of_pairs(
    file: &Path,
    settings: &Settings,
    semantic: &RouteSemantic,
) -> anyhow::Result<Labelled> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let pairs = pairs(&text).with_context(|| format!("{}", file.display()))?;
    let embedder = settings.embedder.clone().context("the config has no [embedder]")?;
    let embedder = Embedder::open(&refrain_core::settings::Embedder { budget: EMBED_BUDGET, ..embedder })?;
    let mut said = Vec::with_capacity(pairs.len());
    for Pair { asked, stored, same } in pairs {
        let vectors = (embedder.embed(asked.to_owned()).await, embedder.embed(stored.to_owned()).await);
        // What can't be embedded is looked up exactly only.
        let cosine = match &vectors {
            (Ok(asked), Ok(stored)) => Some(asked.cosine(stored)),
            _ => None,
        };
        let similarity = cosine.filter(|cosine| is_served(asked, stored, (*cosine, semantic)));
        said.push(Said { similarity, same, names: [asked.to_owned(), stored.to_owned()] });
    }
    Ok(Labelled { said, ..Labelled::default() })
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

/// Reads a log of shadow mode, or labels.
///
/// # Errors
/// The file can't be read, holds no such line, or is of several routes.
pub(super) fn of_log(file: &Path, route: Option<&str>, alike: f64) -> anyhow::Result<Labelled> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let labelled = lines(&text, route, alike).with_context(|| format!("{}", file.display()))?;
    if labelled.said.is_empty() {
        bail!(
            "{}: no line has similarity, and same or answers_alike that say something{}",
            file.display(),
            route.map(|route| format!(", of route {route:?}")).unwrap_or_default()
        );
    }
    Ok(labelled)
}

fn lines(text: &str, route: Option<&str>, alike: f64) -> anyhow::Result<Labelled> {
    let mut labelled = Labelled::default();
    let mut routes = BTreeSet::new();
    for (nth, line) in text.lines().enumerate() {
        let Some(line) = read_line(line) else { continue };
        let of_other = route.is_some_and(|wanted| line.route.as_deref().is_some_and(|route| route != wanted));
        let (Some(similarity), false) = (line.similarity, of_other) else { continue };
        let Some(same) = verdict(&line, alike) else {
            labelled.unsure += usize::from(line.answers_alike.is_some());
            continue;
        };
        labelled.is_by_people |= line.same.is_some();
        let names = match (line.question, line.key) {
            (Some(question), Some(key)) => [format!("question {question}"), format!("key {key}")],
            _ => [format!("line {nth}"), format!("line {nth}")],
        };
        routes.extend(line.route);
        labelled.said.push(Said { similarity: Some(similarity), same, names });
    }
    if routes.len() > 1 {
        let routes: Vec<String> = routes.into_iter().collect();
        bail!("it has lines of routes {}: say which is meant, with --route", routes.join(", "));
    }
    Ok(labelled)
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
        let read = |route, alike| lines(text, route, alike).unwrap();
        let found: Vec<(Option<f32>, bool)> =
            read(Some("chat"), 0.3).said.iter().map(|one| (one.similarity, one.same)).collect();
        assert_eq!(found, [(Some(0.91), false), (Some(0.95), true), (Some(0.91), true)]);
        assert_eq!((read(Some("chat"), 0.3).unsure, read(Some("chat"), 0.6).unsure), (1, 0));
        assert!(read(Some("chat"), 0.3).is_by_people);
        let mixed = lines(text, None, 0.3).unwrap_err().to_string();
        assert!(mixed.contains("routes chat, other"), "{mixed}");
    }
}
