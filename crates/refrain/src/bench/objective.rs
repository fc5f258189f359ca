//! What makes a request good enough.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::outcome::Answered;

/// Upper bounds that a request must all keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objective {
    /// To the first text.
    pub(crate) ttft: Option<Duration>,
    /// To the end.
    pub(crate) e2e: Option<Duration>,
    /// The longest time between two chunks of text.
    pub(crate) gap: Option<Duration>,
}

impl Objective {
    /// Whether an answer keeps all bounds.
    pub(super) fn is_met(&self, answered: &Answered, ttft: Option<Duration>, e2e: Duration) -> bool {
        let keeps = |bound: Option<Duration>, time: Duration| bound.is_none_or(|bound| time <= bound);
        let longest = answered.gaps.iter().max().copied().unwrap_or_default();
        keeps(self.ttft, ttft.unwrap_or(e2e)) && keeps(self.e2e, e2e) && keeps(self.gap, longest)
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut objective = Self::default();
        for bound in text.split(',') {
            let (name, time) = bound.split_once('=').unwrap_or((bound, ""));
            let time = humantime::parse_duration(time)
                .map_err(|_| format!("{name:?} needs a time, such as {name}=500ms"))?;
            let place = match name.trim() {
                "ttft" => &mut objective.ttft,
                "e2e" => &mut objective.e2e,
                "gap" => &mut objective.gap,
                other => return Err(format!("unknown bound {other:?}; known: ttft, e2e, gap")),
            };
            if place.replace(time).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(objective)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("ttft", self.ttft), ("e2e", self.e2e), ("gap", self.gap)];
        let bounds = named.iter().filter_map(|(name, bound)| {
            bound.map(|bound| format!("{name}={}", humantime::format_duration(bound)))
        });
        f.write_str(&bounds.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_written() {
        let objective: Objective = "ttft=500ms,e2e=3s".parse().unwrap();
        assert_eq!(objective.to_string(), "ttft=500ms,e2e=3s");
        assert!("ttft=500ms,ttft=1s".parse::<Objective>().unwrap_err().contains("twice"));
        assert!("tpot=5ms".parse::<Objective>().unwrap_err().contains("known: ttft, e2e, gap"));
        assert!("ttft".parse::<Objective>().unwrap_err().contains("ttft=500ms"));
    }

    #[test]
    fn the_longest_gap_counts() {
        let objective: Objective = "gap=10ms".parse().unwrap();
        let millis = Duration::from_millis;
        let gaps = |longest| Answered { gaps: vec![millis(1), millis(longest)], ..Answered::default() };
        assert!(objective.is_met(&gaps(10), None, millis(100)));
        assert!(!objective.is_met(&gaps(11), None, millis(100)));
    }
}
