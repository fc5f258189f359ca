//! Counters of a running Refrain, as Prometheus would read them.

/// One scrape.
pub struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum over all series of a name whose labels include these; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        let matching = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            let all = labels.iter().all(|(key, value)| rest.contains(&format!("{key}=\"{value}\"")));
            (own == name && all).then(|| value.parse::<f64>().ok())?
        });
        matching.sum()
    }

    /// Whether a series of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| line.starts_with(name))
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }
}
