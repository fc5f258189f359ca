//! What is counted about a policy on a route. Handles are made once, so that a call pays for no look-up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};
use refrain_core::{Bypass, PluginId, RouteId};

use crate::answer::About;
use crate::hook::Hook;
use crate::merge::Clamps;
use crate::verdict::Labels;

/// What stands for a reason that a policy did not declare.
const UNDECLARED: &str = "undeclared";
/// What stands for a label's value that a policy did not declare.
const OTHER: &str = "other";

/// Handles of a policy on a route.
#[derive(Debug)]
pub(crate) struct Meters {
    labels: [Label; 2],
    call_seconds: [Histogram; Hook::ALL.len()],
    clamps: [Counter; 3],
    pub(crate) instances: Gauge,
    dropped_lines: Counter,
    dropped_values: Counter,
    declared: OnceLock<Declared>,
}

/// What the policy declared when it was configured.
#[derive(Debug)]
struct Declared {
    metrics: Vec<(String, Counter, Histogram)>,
    reasons: Vec<(Arc<str>, [Counter; Hook::ALL.len()])>,
    undeclared: (Arc<str>, [Counter; Hook::ALL.len()]),
    labels: Vec<(String, Vec<String>)>,
}

impl Meters {
    pub(crate) fn new(plugin: &PluginId, route: &RouteId) -> Self {
        let labels = [
            Label::new("plugin", plugin.as_str().to_owned()),
            Label::new("route", route.as_str().to_owned()),
        ];
        let with = |name: &'static str, value: &'static str| {
            let [plugin, route] = labels.clone();
            vec![plugin, route, Label::new(name, value)]
        };
        Self {
            call_seconds: Hook::ALL
                .map(|hook| histogram!("refrain_policy_call_seconds", with("hook", hook.as_str()))),
            clamps: ["scope", "threshold", "freshness"]
                .map(|bound| counter!("refrain_policy_clamps_total", with("bound", bound))),
            instances: gauge!("refrain_policy_instances", labels.to_vec()),
            dropped_lines: counter!("refrain_policy_dropped_total", with("what", "log_line")),
            dropped_values: counter!("refrain_policy_dropped_total", with("what", "metric")),
            declared: OnceLock::new(),
            labels,
        }
    }

    /// Takes what the policy says of itself; the first time counts.
    pub(crate) fn declare(&self, about: &About) {
        self.declared.get_or_init(|| Declared {
            metrics: about.metrics.iter().map(|name| self.declared_metric(name)).collect(),
            reasons: about.reasons.iter().map(|reason| self.reason_counters(reason)).collect(),
            undeclared: self.reason_counters(UNDECLARED),
            labels: about.labels.clone(),
        });
    }

    pub(crate) fn called(&self, hook: Hook, took: Duration) {
        self.call_seconds[hook as usize].record(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, hook: Hook, reason: Bypass) {
        let mut labels = self.labels.to_vec();
        labels.extend([Label::new("hook", hook.as_str()), Label::new("reason", reason.as_str())]);
        counter!("refrain_policy_failures_total", labels).increment(1);
    }

    pub(crate) fn clamped(&self, clamps: Clamps) {
        let Clamps { scope, threshold, freshness } = clamps;
        for (counter, was) in self.clamps.iter().zip([scope, threshold, freshness]) {
            if was {
                counter.increment(1);
            }
        }
    }

    pub(crate) fn line_dropped(&self) {
        self.dropped_lines.increment(1);
    }

    /// A reason as it may be told: the declared one, or "undeclared". Counts it.
    pub(crate) fn reason(&self, hook: Hook, said: &str) -> Arc<str> {
        let Some(declared) = self.declared.get() else {
            return UNDECLARED.into();
        };
        let found = declared.reasons.iter().find(|(reason, _)| &**reason == said);
        let (reason, counters) = found.unwrap_or(&declared.undeclared);
        counters[hook as usize].increment(1);
        reason.clone()
    }

    pub(crate) fn count(&self, name: &str, by: u32) {
        match self.find(name) {
            Some((_, counter, _)) => counter.increment(u64::from(by)),
            None => self.dropped_values.increment(1),
        }
    }

    pub(crate) fn observe(&self, name: &str, value: f64) {
        match self.find(name).filter(|_| value.is_finite()) {
            Some((_, _, histogram)) => histogram.record(value),
            None => self.dropped_values.increment(1),
        }
    }

    /// Counts an outcome by those labels that the policy declared.
    pub(crate) fn outcome(&self, labels: &Labels, outcome: &'static str) {
        let Some(declared) = self.declared.get() else { return };
        for (name, values) in &declared.labels {
            let Some((_, value)) = labels.iter().find(|(label, _)| label == name) else { continue };
            let value = if values.contains(value) { value.clone() } else { OTHER.to_owned() };
            let mut all = self.labels.to_vec();
            all.extend([
                Label::new("label", name.clone()),
                Label::new("value", value),
                Label::new("outcome", outcome),
            ]);
            counter!("refrain_policy_outcomes_total", all).increment(1);
        }
    }

    fn find(&self, name: &str) -> Option<&(String, Counter, Histogram)> {
        self.declared.get()?.metrics.iter().find(|(declared, ..)| declared == name)
    }

    fn declared_metric(&self, name: &str) -> (String, Counter, Histogram) {
        let mut labels = self.labels.to_vec();
        labels.push(Label::new("name", name.to_owned()));
        let counter = counter!("refrain_policy_count_total", labels.clone());
        (name.to_owned(), counter, histogram!("refrain_policy_observed", labels))
    }

    fn reason_counters(&self, reason: &str) -> (Arc<str>, [Counter; Hook::ALL.len()]) {
        let counters = Hook::ALL.map(|hook| {
            let mut labels = self.labels.to_vec();
            labels.extend([Label::new("hook", hook.as_str()), Label::new("reason", reason.to_owned())]);
            counter!("refrain_policy_reasons_total", labels)
        });
        (reason.into(), counters)
    }
}
