//! What is counted about a policy on a route. Handles are made once, so that a call pays for no look-up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Label, NoopRecorder, counter, gauge, histogram, with_local_recorder,
};
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
    /// Whether it counts for nobody.
    is_mute: bool,
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
    /// Of a policy that is only rehearsed: counts for nobody.
    pub(crate) fn mute(plugin: &PluginId, route: &RouteId) -> Self {
        let made = with_local_recorder(&NoopRecorder, || Self::new(plugin, route));
        Self { is_mute: true, ..made }
    }

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
            is_mute: false,
            labels,
        }
    }

    /// Takes what the policy says of itself; the first time counts.
    pub(crate) fn declare(&self, about: &About) {
        let declare = || Declared {
            metrics: about.metrics.iter().map(|name| self.declared_metric(name)).collect(),
            reasons: about.reasons.iter().map(|reason| self.reason_counters(reason)).collect(),
            undeclared: self.reason_counters(UNDECLARED),
            labels: about.labels.clone(),
        };
        self.declared.get_or_init(|| match self.is_mute {
            true => with_local_recorder(&NoopRecorder, declare),
            false => declare(),
        });
    }

    pub(crate) fn called(&self, hook: Hook, took: Duration) {
        self.call_seconds[hook as usize].record(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, hook: Hook, reason: Bypass) {
        if self.is_mute {
            return;
        }
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
        let Some(declared) = self.declared.get().filter(|_| !self.is_mute) else { return };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{CounterFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use parking_lot::Mutex;

    use super::*;

    /// Keeps the counters alone, by name and labels.
    #[derive(Default)]
    struct Counters(Mutex<BTreeMap<String, Arc<Count>>>);

    #[derive(Default)]
    struct Count(AtomicU64);

    impl CounterFn for Count {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    impl Recorder for Counters {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key.labels().skip(2).map(Label::value).collect();
            let name = format!("{} {}", key.name(), labels.join(" "));
            Counter::from_arc(self.0.lock().entry(name).or_default().clone())
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// What was counted, beside what stayed at zero.
    fn counted(work: impl FnOnce(&Meters)) -> Vec<(String, u64)> {
        let counters = Counters::default();
        with_local_recorder(&counters, || {
            let meters = Meters::new(&"p".into(), &"r".into());
            meters.declare(&About {
                metrics: vec!["seen".into()],
                reasons: vec!["personal".into()],
                labels: vec![("tier".into(), vec!["gold".into()])],
                ..About::default()
            });
            work(&meters);
        });
        let counts = counters.0.into_inner().into_iter();
        counts.map(|(name, count)| (name, count.0.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0).collect()
    }

    fn check(work: impl FnOnce(&Meters), expected: &[(&str, u64)]) {
        let counted = counted(work);
        let counted: Vec<_> = counted.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(counted, expected);
    }

    #[test]
    fn only_declared_names_are_counted() {
        let work = |meters: &Meters| {
            meters.count("seen", 3);
            (0..1000).for_each(|n| meters.count(&n.to_string(), 1));
            meters.observe("seen", f64::NAN);
        };
        check(work, &[("refrain_policy_count_total seen", 3), ("refrain_policy_dropped_total metric", 1001)]);
    }

    #[test]
    fn only_declared_reasons_become_labels() {
        let work = |meters: &Meters| {
            assert_eq!(&*meters.reason(Hook::OnRequest, "personal"), "personal");
            assert_eq!(&*meters.reason(Hook::OnResponse, "the user's prompt"), "undeclared");
        };
        let expected = [
            ("refrain_policy_reasons_total on_request personal", 1),
            ("refrain_policy_reasons_total on_response undeclared", 1),
        ];
        check(work, &expected);
    }

    #[test]
    fn outcomes_are_counted_by_declared_labels() {
        let labels = |tier: &str| vec![("tier".to_owned(), tier.to_owned()), ("user".into(), "ann".into())];
        let work = |meters: &Meters| {
            meters.outcome(&labels("gold"), "hit");
            meters.outcome(&labels("made up"), "miss");
            meters.outcome(&Labels::new(), "miss");
        };
        let expected = [
            ("refrain_policy_outcomes_total tier gold hit", 1),
            ("refrain_policy_outcomes_total tier other miss", 1),
        ];
        check(work, &expected);
    }
}
