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
        self.text.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
        self
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
