//! `cases.toml`: requests, and what a policy is expected to say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use crate::plugin::decision;
use crate::plugin::request::{self, Head, StoredAnswer, TrialRequest, UpstreamAnswer};
use crate::plugin::trial::Trial;

/// Computing time that a policy has here, where it isn't written: machines that run tests are busy with other things.
const BUDGET: &str = "500ms";

/// A file of cases.
#[derive(Debug)]
pub(super) struct Cases {
    /// What config would say, without the policy's config.
    pub(super) trial: Trial,
    /// In the order of the file.
    pub(super) cases: Vec<Case>,
}

/// A request, and what is expected.
#[derive(Debug)]
pub(super) struct Case {
    /// The sentence that it proves.
    pub(super) name: String,
    /// What the policy is told.
    pub(super) config: Option<Table>,
    /// What it is asked about.
    pub(super) request: TrialRequest,
    /// What is expected of its decision.
    pub(super) expect: Option<Table>,
    /// Relations to other cases: which, and their names.
    pub(super) relations: Vec<(Relation, String)>,
    /// What the upstream would be sent, as JSON.
    pub(super) upstream_body: Option<serde_json::Value>,
    /// Stored answers that it is shown.
    pub(super) candidates: Vec<StoredAnswer>,
    /// What is expected of its verdict.
    pub(super) expect_verdict: Option<Table>,
    /// The upstream's answer that it is shown.
    pub(super) response: Option<UpstreamAnswer>,
    /// What is expected of its outcome.
    pub(super) expect_outcome: Option<Table>,
}

/// How a request's keys are to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The same cache key.
    SameKey,
    /// Another.
    OtherKey,
    /// The same routing key.
    SameRouting,
    /// Another.
    OtherRouting,
}

impl Relation {
    /// The key in the file.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::SameKey => "same_key_as",
            Self::OtherKey => "other_key_than",
            Self::SameRouting => "same_routing_as",
            Self::OtherRouting => "other_routing_than",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    plugin: Plugin,
    #[serde(default)]
    route: Route,
    #[serde(default)]
    case: Vec<Written>,
}

/// `[plugin]`: what stands in `[plugin.NAME]`, but for what belongs to a process that serves.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plugin {
    grants: Vec<String>,
    config: Option<Table>,
    on_error: Option<String>,
    limits: Table,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Route {
    name: String,
    cache: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    config: Option<Table>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    caller: request::Caller,
    body: Option<String>,
    user: Option<String>,
    expect: Option<Table>,
    same_key_as: Option<String>,
    other_key_than: Option<String>,
    same_routing_as: Option<String>,
    other_routing_than: Option<String>,
    upstream_body: Option<String>,
    #[serde(default)]
    candidates: Vec<StoredAnswer>,
    expect_verdict: Option<Table>,
    response: Option<UpstreamAnswer>,
    expect_outcome: Option<Table>,
}

/// Reads and checks a file of cases.
///
/// # Errors
/// What is wrong, with its line or with the case's name.
pub(super) fn read(file: &Path) -> anyhow::Result<Cases> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Cases> {
    let File { plugin, route, case } = toml::from_str(text)?;
    ensure!(!case.is_empty(), "no [[case]]: a test that asks nothing shows nothing");
    let config = plugin.config.clone();
    let trial = trial(plugin, route);
    let mut cases = Vec::with_capacity(case.len());
    for written in case {
        let name = written.name.clone();
        cases.push(settle(written, config.as_ref()).with_context(|| format!("case {name:?}"))?);
    }
    check_names(&cases)?;
    Ok(Cases { trial, cases })
}

fn trial(plugin: Plugin, route: Route) -> Trial {
    let Plugin { grants, config: _, on_error, mut limits } = plugin;
    for budget in ["decide", "store"] {
        limits.entry(budget).or_insert_with(|| BUDGET.into());
    }
    let mut table = Table::from_iter([
        ("grants".to_owned(), Value::Array(grants.into_iter().map(Value::from).collect())),
        ("limits".to_owned(), Value::Table(limits)),
    ]);
    if let Some(on_error) = on_error {
        table.insert("on_error".to_owned(), on_error.into());
    }
    let Route { name, cache } = route;
    let route = cache.map(|cache| ("cache".to_owned(), cache)).into_iter().collect();
    Trial { plugin: table, route, route_name: name }
}

fn settle(written: Written, config: Option<&Table>) -> anyhow::Result<Case> {
    let Written { name, config: own, method, path, headers, caller, body, user, .. } = written;
    let body = match (body, user) {
        (Some(body), None) => body,
        (None, Some(user)) => request::chat(&user),
        (Some(_), Some(_)) => {
            bail!("`user` is short for a body with one message of the user: give one of them")
        }
        (None, None) => bail!("no `body`, and no `user` as a short form of one"),
    };
    check_keys("expect", written.expect.as_ref(), &decision::KEYS)?;
    check_keys("expect_verdict", written.expect_verdict.as_ref(), &decision::VERDICT_KEYS)?;
    check_keys("expect_outcome", written.expect_outcome.as_ref(), &decision::OUTCOME_KEYS)?;
    ensure!(
        written.expect_verdict.is_some() != written.candidates.is_empty(),
        "`candidates` and `expect_verdict` belong together"
    );
    ensure!(
        written.expect_outcome.is_some() == written.response.is_some(),
        "`response` and `expect_outcome` belong together"
    );
    let relations = [
        (Relation::SameKey, written.same_key_as),
        (Relation::OtherKey, written.other_key_than),
        (Relation::SameRouting, written.same_routing_as),
        (Relation::OtherRouting, written.other_routing_than),
    ];
    let relations = relations.into_iter().filter_map(|(relation, name)| Some((relation, name?)));
    let upstream_body = written.upstream_body.as_deref().map(serde_json::from_str).transpose();
    let case = Case {
        name,
        config: own.or_else(|| config.cloned()),
        request: Head { method, path, headers, caller }.with_body(body),
        expect: written.expect,
        relations: relations.collect(),
        upstream_body: upstream_body.context("`upstream_body` is no JSON")?,
        candidates: written.candidates,
        expect_verdict: written.expect_verdict,
        response: written.response,
        expect_outcome: written.expect_outcome,
    };
    Ok(case)
}

fn check_keys(what: &str, table: Option<&Table>, known: &[&str]) -> anyhow::Result<()> {
    let unknown = table.into_iter().flat_map(Table::keys).find(|key| !known.contains(&key.as_str()));
    match unknown {
        Some(key) => bail!("{what}: unknown key {key:?}; known: {}", known.join(", ")),
        None => Ok(()),
    }
}

/// Each case has a name of its own, refers to known ones, and asks something.
fn check_names(cases: &[Case]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for case in cases {
        ensure!(seen.insert(case.name.as_str()), "two cases are named {:?}", case.name);
    }
    for case in cases {
        let name = &case.name;
        for (relation, other) in &case.relations {
            let word = relation.as_str();
            ensure!(seen.contains(other.as_str()), "case {name:?}: {word}: no case is named {other:?}");
            ensure!(other != name, "case {name:?}: {word}: that is the case itself");
        }
        // One that others refer to need expect nothing itself.
        let is_asked = case.expect.is_some()
            || !case.relations.is_empty()
            || case.upstream_body.is_some()
            || case.expect_verdict.is_some()
            || case.expect_outcome.is_some()
            || cases.iter().any(|other| other.relations.iter().any(|(_, other)| other == name));
        ensure!(is_asked, "case {name:?} expects nothing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_case_is_a_chat_with_the_files_config() {
        let text = "[plugin]\ngrants = [\"pool\"]\nconfig = { floor = 0.9 }\n[route.cache]\nttl = \"2h\"\n\
                    [[case]]\nname = \"a\"\nuser = \"hi\"\nexpect = { decision = \"cache\" }\n\
                    [[case]]\nname = \"b\"\nbody = '{}'\nconfig = {}\nother_key_than = \"a\"";
        let Cases { trial, cases } = parse(text).unwrap();
        assert_eq!(cases[0].request.body, request::chat("hi"));
        assert_eq!(cases[0].config.as_ref().unwrap().len(), 1);
        assert_eq!(cases[1].config.as_ref().unwrap().len(), 0);
        assert_eq!(cases[1].relations, [(Relation::OtherKey, "a".to_owned())]);
        let route = trial.route(Path::new("p.wasm")).unwrap();
        assert_eq!(route.cache.freshness.ttl.as_secs(), 7200);
        assert_eq!(route.plugins[0].plugin.limits.decide_budget.as_millis(), 500);
    }

    #[test]
    fn a_case_that_shows_nothing_is_refused_with_its_name() {
        let case = |rest: &str| format!("[[case]]\nname = \"a\"\n{rest}");
        let user = "user = \"x\"\n";
        for (text, expected) in [
            (String::new(), "no [[case]]"),
            (case("user = \"x\""), "case \"a\" expects nothing"),
            (case("expect = {}"), "no `body`"),
            (case("user = \"x\"\nbody = \"{}\""), "give one of them"),
            (case(&format!("{user}expect = {{ tll = \"1s\" }}")), "unknown key \"tll\""),
            (case(&format!("{user}same_key_as = \"b\"")), "no case is named \"b\""),
            (case(&format!("{user}same_key_as = \"a\"")), "that is the case itself"),
            (case(&format!("{user}expect_verdict = {{ accept = 0 }}")), "belong together"),
            (case(&format!("{user}response = {{ text = \"x\" }}")), "belong together"),
            (case(&format!("{user}expcet = {{}}")), "unknown field `expcet`"),
            (case(&format!("{user}upstream_body = '{{'")), "`upstream_body` is no JSON"),
            (case(&format!("{user}expect = {{}}\n[[case]]\nname = \"a\"\n{user}expect = {{}}")), "two cases"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(expected), "{error}\nin\n{text}");
        }
    }
}
