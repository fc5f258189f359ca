//! Durations and sizes.

use std::time::Duration;

use bytesize::ByteSize;

/// Longest duration, ten years: far from where adding it to a clock overflows.
const SPAN_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Longest text of a duration. `humantime` panics on sums just above `u64::MAX` seconds, which need more than this.
const SPAN_TEXT_MAX: usize = 20;

/// Largest size, one pebibyte: every use fits a `usize` and a file system.
const BYTES_MAX: u64 = 1 << 50;

/// Reads `250ms`, `1h30m`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration with a unit, like \"250ms\", \"30s\" or \"1h30m\"";
    if text.len() > SPAN_TEXT_MAX {
        return Err(expected.to_owned());
    }
    let span = humantime::parse_duration(text).map_err(|_| expected.to_owned())?;
    match span {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        span if span > SPAN_MAX => Err("must be at most ten years".to_owned()),
        span => Ok(span),
    }
}

/// Reads `8 MiB`, `1.5 GiB`, `64 kB`, `4096`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = text
        .trim()
        .parse::<ByteSize>()
        .map_err(|_| "expected a size with a unit, like \"64 KiB\", \"8 MiB\" or \"4 GiB\"".to_owned())?
        .as_u64();
    match bytes {
        0 => Err("must be more than zero".to_owned()),
        bytes if bytes > BYTES_MAX => Err("must be at most 1024 TiB".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Writes a duration as config has it: `1h30m`.
pub(crate) fn format_span(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}

/// Writes a size as config has it, exactly: `8 MiB`, `1000 B`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_written_back() {
        for (text, millis) in [("250ms", 250), ("1h30m", 5_400_000), ("2 s", 2_000), ("0.5s", 500)] {
            let span = parse_span(text).unwrap();
            assert_eq!(span, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_span(&format_span(span)), Ok(span));
        }
    }

    #[test]
    fn durations_that_no_clock_survives_are_refused() {
        let overflow = format!("{}s 1000ms", u64::MAX);
        for text in ["", "10", "-1s", "0s", "11y", "1 fortnight", overflow.as_str()] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit_and_written_back_exactly() {
        for (text, bytes) in [("8 MiB", 8 << 20), ("64KiB", 64 << 10), ("1.5 GiB", 3 << 29), ("5 kB", 5000)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        for text in ["", "0", "MiB", "-1 MiB", "8 Mibs", "2000000 TiB", "9 EiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
