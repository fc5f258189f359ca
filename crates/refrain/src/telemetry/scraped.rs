//! A scrape, read back: what another exporter is told is what Prometheus reads. Our own text only, not whatever the format allows.

/// One metric.
#[derive(Debug, Default)]
pub(crate) struct Family<'t> {
    /// Its name.
    pub(crate) name: &'t str,
    /// What it means.
    pub(crate) help: &'t str,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: &'t str,
    /// Its lines.
    pub(crate) samples: Vec<Sample<'t>>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Sample<'t> {
    /// The metric's name; a histogram's lines have three.
    pub(crate) name: &'t str,
    /// In their order.
    pub(crate) labels: Vec<(&'t str, String)>,
    /// The number.
    pub(crate) value: f64,
}

/// The metrics of a scrape. Lines that can't be read are left out.
pub(crate) fn families(text: &str) -> Vec<Family<'_>> {
    let mut all: Vec<Family<'_>> = Vec::new();
    let mut help = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let help = if help.0 == name { help.1 } else { "" };
            all.push(Family { name, help, kind, samples: Vec::new() });
        } else if let (Some(family), Some(sample)) = (all.last_mut(), sample(line)) {
            family.samples.push(sample);
        }
    }
    all
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series, labels: Vec::new(), value });
    };
    Some(Sample { name, labels: labels_of(labels.strip_suffix('}')?)?, value })
}

fn labels_of(mut text: &str) -> Option<Vec<(&str, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (value, length) = quoted(rest)?;
        labels.push((name, value));
        text = rest[length..].trim_start_matches(',');
    }
    Some(labels)
}

/// A value up to its closing quote, and how many bytes it took with that.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (escaped, character) {
            (true, 'n') => value.push('\n'),
            (true, other) => value.push(other),
            (false, '"') => return Some((value, at + 1)),
            (false, '\\') => {}
            (false, other) => value.push(other),
        }
        escaped = !escaped && character == '\\';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_quotes_commas_and_braces() {
        let text = "# HELP a An a.\n# TYPE a gauge\na{x=\"1\\\"\\\\\\n\",y=\"2,}\"} 2.5\n# TYPE b counter\nb 3\nnonsense\n";
        let all = families(text);
        let [a, b] = &all[..] else { panic!("{all:?}") };
        assert_eq!((a.name, a.help, a.kind), ("a", "An a.", "gauge"));
        let expected = [("x", "1\"\\\n".to_owned()), ("y", "2,}".to_owned())];
        assert_eq!((a.samples[0].labels.as_slice(), a.samples[0].value), (&expected[..], 2.5));
        assert_eq!((b.help, b.samples.len(), b.samples[0].value), ("", 1, 3.0));
    }
}
