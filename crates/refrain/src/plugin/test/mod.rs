//! `refrain plugin test`: is a policy what its cases say?

mod cases;
mod compare;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use refrain_plugin::{PluginError, PluginHost};
use refrain_proxy::rehearsal::RehearsalError;
use serde_json::{Map, Value};

use self::cases::{Case, Cases, Relation};
use self::compare::differences;
use super::rehearse::{Rehearsal, Rehearsed};
use super::trial::{self, Trial};
use crate::cli::TestPluginArguments;

/// Asks all cases, prints each, and fails if one is not as expected.
///
/// # Errors
/// The file of cases is wrong, or the component can't be used at all.
pub(super) async fn test(arguments: &TestPluginArguments) -> anyhow::Result<ExitCode> {
    let TestPluginArguments { file, cases } = arguments;
    let cases = cases::read(cases)?;
    let results = Bench::new(file, &cases.trial)?.ask_all(&cases).await?;
    let failed = results.iter().filter(|result| !result.differences.is_empty()).count();
    crate::print(&report(&results, failed))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A case, and what is not as expected.
#[derive(Debug)]
struct CaseResult<'c> {
    name: &'c str,
    differences: Vec<String>,
}

fn report(results: &[CaseResult<'_>], failed: usize) -> String {
    let mut text = String::new();
    for CaseResult { name, differences } in results {
        let word = if differences.is_empty() { "ok" } else { "FAILED" };
        // Writing to a `String` can't fail.
        let _ = writeln!(text, "{word:6}  {name}");
        for difference in differences {
            let _ = writeln!(text, "        {}", difference.replace('\n', "\n        "));
        }
    }
    let _ = writeln!(text, "\n{} cases, {failed} failed", results.len());
    text
}

/// A policy under test, with a rehearsal for each config that the cases give it.
struct Bench<'a> {
    file: &'a Path,
    trial: &'a Trial,
    host: Arc<PluginHost>,
    rehearsals: BTreeMap<String, Result<Rehearsal, String>>,
}

/// What became of a request.
struct Answer {
    /// What was said, or how it failed.
    told: Map<String, Value>,
    /// None: the policy never saw it.
    rehearsed: Option<Rehearsed>,
}

impl<'a> Bench<'a> {
    fn new(file: &'a Path, trial: &'a Trial) -> anyhow::Result<Self> {
        Ok(Self { file, trial, host: trial::host()?, rehearsals: BTreeMap::new() })
    }

    async fn ask_all<'c>(&mut self, cases: &'c Cases) -> anyhow::Result<Vec<CaseResult<'c>>> {
        let mut answers: BTreeMap<&str, Answer> = BTreeMap::new();
        for case in &cases.cases {
            let answer = self.ask(case).await.with_context(|| format!("case {:?}", case.name))?;
            answers.insert(&case.name, answer);
        }
        let mut results = Vec::with_capacity(cases.cases.len());
        for case in &cases.cases {
            let mut differences = compare_request(case, &answers);
            differences.extend(compare_later(case, &answers[case.name.as_str()]).await);
            results.push(CaseResult { name: &case.name, differences });
        }
        Ok(results)
    }

    /// The rehearsal with a case's config; the inner error is the policy's word against that config.
    async fn rehearsal(&mut self, case: &Case) -> anyhow::Result<&Result<Rehearsal, String>> {
        let config = case.config.clone().unwrap_or_default();
        let key = toml::to_string(&config)?;
        if !self.rehearsals.contains_key(&key) {
            let mut trial = self.trial.clone();
            trial.plugin.insert("config".to_owned(), toml::Value::Table(config));
            let made = match Rehearsal::new(&self.host, trial.route(self.file)?).await {
                Ok(rehearsal) => Ok(rehearsal),
                Err(RehearsalError::Plugin(PluginError::Config { message, .. })) => Err(message),
                Err(error) => return Err(error.into()),
            };
            self.rehearsals.insert(key.clone(), made);
        }
        self.rehearsals.get(&key).context("no rehearsal")
    }

    async fn ask(&mut self, case: &Case) -> anyhow::Result<Answer> {
        let rehearsal = match self.rehearsal(case).await? {
            Ok(rehearsal) => rehearsal,
            Err(message) => return Ok(Answer { told: error(message), rehearsed: None }),
        };
        Ok(match rehearsal.request(&case.request).await {
            Ok(rehearsed) => Answer { told: rehearsed.decision.clone(), rehearsed: Some(rehearsed) },
            Err(refused) => Answer { told: error(&refused.to_string()), rehearsed: None },
        })
    }
}

/// Asks the hooks that come after the decision.
async fn compare_later(case: &Case, answer: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expected) = &case.expect_verdict {
        let found = match &answer.rehearsed {
            Some(rehearsed) => rehearsed.candidates(&case.candidates).await,
            None => None,
        };
        lines.extend(compare_hook("on-candidates", expected, found, answer));
    }
    if let (Some(expected), Some(response)) = (&case.expect_outcome, &case.response) {
        let found = match &answer.rehearsed {
            Some(rehearsed) => rehearsed.response(response).await,
            None => None,
        };
        lines.extend(compare_hook("on-response", expected, found, answer));
    }
    lines
}

fn compare_hook(
    hook: &str,
    expected: &toml::Table,
    found: Option<Map<String, Value>>,
    answer: &Answer,
) -> Vec<String> {
    match found {
        Some(found) => {
            differences(expected, &found).into_iter().map(|line| format!("{hook}: {line}")).collect()
        }
        None => vec![format!("{hook} is never asked: {}", Value::Object(answer.told.clone()))],
    }
}

fn error(message: &str) -> Map<String, Value> {
    Map::from_iter([
        ("decision".to_owned(), Value::from("error")),
        ("error".to_owned(), Value::from(message)),
    ])
}

fn compare_request(case: &Case, answers: &BTreeMap<&str, Answer>) -> Vec<String> {
    let answer = &answers[case.name.as_str()];
    let mut lines = match &case.expect {
        Some(expected) => differences(expected, &answer.told),
        None => Vec::new(),
    };
    for (relation, other) in &case.relations {
        lines.extend(compare_keys(*relation, answer, other, &answers[other.as_str()]));
    }
    if let Some(expected) = &case.upstream_body {
        lines.extend(compare_body(expected, answer));
    }
    lines
}

fn compare_keys(relation: Relation, answer: &Answer, name: &str, other: &Answer) -> Option<String> {
    let is_routing = matches!(relation, Relation::SameRouting | Relation::OtherRouting);
    let key = |answer: &Answer| {
        let rehearsed = answer.rehearsed.as_ref()?;
        if is_routing { rehearsed.routing_key.clone() } else { rehearsed.key.clone() }
    };
    let line = match (relation, key(answer), key(other)) {
        (_, None, _) => format!("there is no key: {}", Value::Object(answer.told.clone())),
        (_, _, None) => format!("there is no key of {name:?}: {}", Value::Object(other.told.clone())),
        (Relation::SameKey | Relation::SameRouting, Some(own), Some(other)) if own != other => {
            format!("the keys differ: {own} and {other}")
        }
        (Relation::OtherKey | Relation::OtherRouting, Some(own), Some(other)) if own == other => {
            format!("the keys are the same: {own}")
        }
        _ => return None,
    };
    Some(format!("{} {name:?}: {line}", relation.as_str()))
}

fn compare_body(expected: &Value, answer: &Answer) -> Option<String> {
    let sent = answer.rehearsed.as_ref().and_then(|rehearsed| rehearsed.upstream_body.as_deref());
    let found = sent.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    if found.as_ref() == Some(expected) {
        return None;
    }
    let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
    Some(format!("upstream_body:\n  expected {expected}\n  found    {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_case_and_shows_what_differs() {
        let results = [
            CaseResult { name: "it caches", differences: Vec::new() },
            CaseResult {
                name: "it waits",
                differences: vec!["ttl: expected 1, found 2".into(), "a\nb".into()],
            },
        ];
        let expected = "ok      it caches\nFAILED  it waits\n        ttl: expected 1, found 2\n        a\n        b\n\n\
                        2 cases, 1 failed\n";
        assert_eq!(report(&results, 1), expected);
    }
}
