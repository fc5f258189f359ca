//! What is left of a prompt before it is logged, on routes that say so: its beginning, without what looks like a mail address, a
//! long number or a key. A sieve, not a wall: who may not read prompts must not read such a log.

use std::sync::LazyLock;

use refrain_core::settings::PromptLog;
use regex::{NoExpand, Regex};

/// What of a prompt is looked at, in bytes: patterns are searched for in time that grows with it.
const READ_BYTES_MAX: usize = 4096;
/// What of it is logged, in bytes.
const SHOWN_BYTES_MAX: usize = 1024;
const LEFT_OUT: &str = "[redacted]";

/// Credentials in URLs; mail addresses; words of keys and tokens, quoted or not; what begins like a known kind of key; digits of phones, cards and accounts.
static BUILT_IN: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns = [
        r"://[^\s/@]+@",
        r"[\w.+-]+@[\w-]+(\.[\w-]+)+",
        r"(?i)\b(bearer|basic)\s+\S+",
        r#"(?i)\b(password|passwd|secret|token|api[_-]?key)["']?\s*[:=]\s*("(\\.|[^"\\])*"?|'[^']*'?|\S+)"#,
        r"\b(sk|pk|rk|ghp|gho|ghs|glpat|hf|xox[abprs]|AKIA|ASIA|eyJ)[\w-]{8,}(\.[\w-]+)*",
        r"\b[A-Za-z0-9+/_-]{32,}={0,2}",
        r"\+?\d[\d ()./-]{6,}\d",
    ];
    patterns.into_iter().filter_map(|pattern| Regex::new(pattern).ok()).collect()
});

/// Leaves out what a route's operator and everybody else would.
pub(crate) struct Redaction(Vec<Regex>);

impl Redaction {
    /// Of a route. Config has made sure that its patterns are valid.
    pub(crate) fn new(log: &PromptLog) -> Self {
        Self(log.redact.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect())
    }

    /// What is kept of a prompt until its line is written.
    pub(crate) fn keep(prompt: &str) -> Box<str> {
        cut(prompt, READ_BYTES_MAX).into()
    }

    /// What may be shown of what was kept.
    pub(crate) fn show(&self, kept: &str) -> String {
        // A word that was cut is no longer like itself.
        let whole = if kept.len() < READ_BYTES_MAX - 3 {
            kept
        } else {
            kept.rsplit_once(char::is_whitespace).map_or("", |(whole, _)| whole)
        };
        let mut text = whole.to_owned();
        for pattern in self.0.iter().chain(BUILT_IN.iter()) {
            text = pattern.replace_all(&text, NoExpand(LEFT_OUT)).into_owned();
        }
        cut(&text, SHOWN_BYTES_MAX).to_owned()
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(prompt: &str, own: &[&str]) -> String {
        let redact = own.iter().map(ToString::to_string).collect();
        Redaction::new(&PromptLog { redact }).show(&Redaction::keep(prompt))
    }

    #[test]
    fn addresses_numbers_and_keys_are_left_out() {
        for (prompt, secret) in [
            ("write to ann.b+c@mail.example.com please", "example"),
            ("my card is 4111 1111 1111 1111, thanks", "1111"),
            ("call +49 (30) 1234-5678", "1234"),
            ("use sk-proj_abcdefgh12345678", "abcdefgh"),
            ("Authorization: Bearer abc.def", "abc.def"),
            ("password = hunter2!", "hunter2"),
            (r#"{"password": "hunter2 and more", "a": 1}"#, "hunter2"),
            (r#"{"password": "hunter2 and more", "a": 1}"#, "more"),
            ("'api_key':'short'", "short"),
            ("psql postgres://ann:hunter2@localhost/db", "hunter2"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.sig", "sdWI"),
            ("hash 0123456789abcdef0123456789abcdef", "0123456789"),
        ] {
            let text = shown(prompt, &[]);
            assert!(text.contains(LEFT_OUT) && !text.contains(secret), "{text}");
        }
        assert_eq!(BUILT_IN.len(), 7);
        assert_eq!(shown("In 2026, 12 apples cost 30 cents?", &[]), "In 2026, 12 apples cost 30 cents?");
    }

    #[test]
    fn operators_leave_out_more_and_length_is_bounded() {
        assert_eq!(shown("project Zebra is late", &["(?i)zebra"]), "project [redacted] is late");
        assert_eq!(shown(&"a b ".repeat(2000), &[]).len(), SHOWN_BYTES_MAX);
        let at_the_cut = format!("{} ann@mail.example.com", "x ".repeat(2040));
        assert!(!shown(&at_the_cut, &[]).contains("ann"));
    }
}
