//! The Prometheus text format, as far as it is needed for numbers that are pulled at a scrape.
//!
//! Such numbers are not registered with the recorder, so that what a reload removed is gone from the next scrape.
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};

/// Text under construction.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

/// One metric, whose samples differ by labels.
pub(crate) struct Family<'e> {
    text: &'e mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a value that may fall.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a value that only grows.
    pub(crate) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Begins a distribution.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // Writing to a `String` can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// Adds a distribution: upper bounds with how many were up to each, how many there were, and their sum.
    pub(crate) fn distribution(&mut self, label: (&str, &str), up_to: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, below) in up_to {
            self.line("_bucket", &[label, ("le", &bound.to_string())], below);
        }
        self.line("_bucket", &[label, ("le", "+Inf")], count);
        self.line("_sum", &[label], sum);
        self.line("_count", &[label], count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_its_buckets_sum_and_count() {
        let mut exposition = Exposition::default();
        exposition.histogram("h", "An h.").distribution(("r", "x"), &[(0.5, 2), (1.0, 3)], 4, 7.5);
        let expected = "# HELP h An h.\n# TYPE h histogram\nh_bucket{r=\"x\",le=\"0.5\"} 2\n\
                        h_bucket{r=\"x\",le=\"1\"} 3\nh_bucket{r=\"x\",le=\"+Inf\"} 4\n\
                        h_sum{r=\"x\"} 7.5\nh_count{r=\"x\"} 4\n";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    fn samples_follow_the_text_format() {
        let mut exposition = Exposition::default();
        exposition.gauge("a", "An a.").sample(&[], 1);
        exposition.counter("b_total", "Bs.").sample(&[("x", "1\"\\\n"), ("y", "2")], 2.5);
        let expected = "# HELP a An a.\n# TYPE a gauge\na 1\n\
                        # HELP b_total Bs.\n# TYPE b_total counter\nb_total{x=\"1\\\"\\\\\\n\",y=\"2\"} 2.5\n";
        assert_eq!(exposition.into_text(), expected);
    }
}
