//! One metric of a page in Prometheus' text format, as far as its mean goes: labels, types and times are passed over.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use refrain_core::settings::GpuUnit;

/// The mean of all samples of a metric, as a ratio from 0 to 1; none if no sample can be used. Lines that can't be read are left
/// out, and so is what is outside of the unit, instead of being cut off: an exporter that doesn't know a GPU's use says NaN or a
/// number of no meaning.
pub(super) fn mean_ratio(page: &[u8], (metric, unit): (&str, GpuUnit)) -> Option<f64> {
    let samples = page.split(|byte| *byte == b'\n').filter_map(|line| sample(line, metric));
    let (count, sum) = samples
        .filter(|sample| (0.0..=unit.full()).contains(sample))
        .fold((0_u32, 0.0), |(count, sum), sample| (count + 1, sum + sample));
    (count > 0).then(|| (sum / f64::from(count) / unit.full()).min(1.0))
}

/// The value of a line, if it is a sample of this metric.
fn sample(line: &[u8], metric: &str) -> Option<f64> {
    let after_name = line.trim_ascii_start().strip_prefix(metric.as_bytes())?;
    let values = match after_name.trim_ascii_start() {
        [b'{', labels @ ..] => after_labels(labels)?,
        values if values.len() < after_name.len() => values,
        // Of another metric, whose name begins so.
        _ => return None,
    };
    let mut words = std::str::from_utf8(values).ok()?.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    match words.next() {
        None => Some(value),
        // A time, or what OpenMetrics has behind a value.
        Some(word) if word.starts_with('#') || word.parse::<f64>().is_ok() => Some(value),
        Some(_) => None,
    }
}

/// What follows the brace that closes labels: those in quotes close nothing.
fn after_labels(text: &[u8]) -> Option<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.iter().position(|byte| {
        let is_plain = !std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && is_plain => is_escaped = true,
            b'"' if is_plain => is_quoted = !is_quoted,
            b'}' => return !is_quoted,
            _ => {}
        }
        false
    });
    end.map(|end| &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METRIC: &str = "DCGM_FI_DEV_GPU_UTIL";

    fn mean(page: &str) -> Option<f64> {
        mean_ratio(page.as_bytes(), (METRIC, GpuUnit::Percent))
    }

    #[test]
    fn gpu_use_is_the_mean_over_all_gpus_of_a_page() {
        let page = "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n\
                    # TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
                    DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-1\",modelName=\"NVIDIA H100\"} 90\n\
                    DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",UUID=\"GPU-2\",modelName=\"NVIDIA H100\"} 40\n\
                    # TYPE DCGM_FI_DEV_MEM_COPY_UTIL gauge\n\
                    DCGM_FI_DEV_MEM_COPY_UTIL{gpu=\"0\"} 7\n";
        assert_eq!(mean(page), Some(0.65));
    }

    #[test]
    fn gpu_use_in_ratios_is_taken_as_it_is() {
        let metric = "DCGM_FI_PROF_GR_ENGINE_ACTIVE";
        let page = "DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu=\"0\",GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"7\"} 1.000000\n\
                    DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu=\"0\",GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"8\"} 0.500000\n\
                    DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu=\"0\",GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"9\"} 50\n";
        assert_eq!(mean_ratio(page.as_bytes(), (metric, GpuUnit::Ratio)), Some(0.75));
    }

    #[test]
    fn a_line_counts_in_every_form_that_the_format_allows() {
        for line in [
            "DCGM_FI_DEV_GPU_UTIL 50",
            "  DCGM_FI_DEV_GPU_UTIL\t 5e1\r",
            "DCGM_FI_DEV_GPU_UTIL{} +50.0 1700000000000",
            "DCGM_FI_DEV_GPU_UTIL {gpu=\"0\",} 50 -1",
            "DCGM_FI_DEV_GPU_UTIL{a=\"} 7\",b=\"\\\"} 8\",c=\"\\\\\"}50",
            "DCGM_FI_DEV_GPU_UTIL{a=\"x\"} 50 # {trace_id=\"y\"} 1",
            "DCGM_FI_DEV_GPU_UTIL{a=\"ü\\n{\"} 50",
        ] {
            assert_eq!(mean(line), Some(0.5), "{line}");
        }
    }

    #[test]
    fn what_is_no_sample_of_the_metric_and_no_percentage_is_left_out() {
        for line in [
            "",
            "DCGM_FI_DEV_GPU_UTIL",
            "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"}",
            "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\" 50",
            "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\\\"} 50",
            "DCGM_FI_DEV_GPU_UTIL_TOTAL 50",
            "DCGM_FI_DEV_GPU_UTIL50",
            "XDCGM_FI_DEV_GPU_UTIL 50",
            "dcgm_fi_dev_gpu_util 50",
            "# DCGM_FI_DEV_GPU_UTIL 50",
            "DCGM_FI_DEV_GPU_UTIL fifty",
            "DCGM_FI_DEV_GPU_UTIL 50 soon",
            "DCGM_FI_DEV_GPU_UTIL NaN",
            "DCGM_FI_DEV_GPU_UTIL +Inf",
            "DCGM_FI_DEV_GPU_UTIL -Inf",
            "DCGM_FI_DEV_GPU_UTIL -0.5",
            "DCGM_FI_DEV_GPU_UTIL 100.5",
            // What DCGM says of a GPU that doesn't tell.
            "DCGM_FI_DEV_GPU_UTIL 9223372036854775794",
        ] {
            assert_eq!(mean(line), None, "{line}");
            assert_eq!(mean(&format!("{line}\nDCGM_FI_DEV_GPU_UTIL 50\n")), Some(0.5), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_spoil_their_line_alone() {
        let page = b"DCGM_FI_DEV_GPU_UTIL \xff\nDCGM_FI_DEV_GPU_UTIL{a=\"\xff\"} 30\nDCGM_FI_DEV_GPU_UTIL 50";
        assert_eq!(mean_ratio(page, (METRIC, GpuUnit::Percent)), Some(0.4));
    }

    fn escaped(text: &str) -> String {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn whatever_a_page_holds_its_use_is_a_ratio(page in any::<Vec<u8>>()) {
            for unit in [GpuUnit::Percent, GpuUnit::Ratio] {
                let mean = mean_ratio(&page, (METRIC, unit));
                prop_assert!(mean.is_none_or(|ratio| (0.0..=1.0).contains(&ratio)));
            }
        }

        #[test]
        fn pieces_of_the_format_in_any_order_give_a_ratio_or_nothing(
            pieces in prop::collection::vec(prop::sample::select(vec![
                METRIC, "{", "}", "\"", "\\", "a=", ",", " ", "\n", "#", "50", "NaN", "1e400", "-", "\t", "\r", "ü",
            ]), 0..60),
        ) {
            prop_assert!(mean(&pieces.concat()).is_none_or(|ratio| (0.0..=1.0).contains(&ratio)));
        }

        #[test]
        fn samples_count_whatever_their_labels_say(
            samples in prop::collection::vec((0.0..=100.0, "\\PC{0,8}", prop::option::of(any::<i64>())), 1..20),
        ) {
            let lines = samples.iter().map(|(percent, label, at)| {
                // A label's text that looks like all that could end it.
                let label = escaped(&format!("{label}\"}} 1\n{METRIC} 2\\"));
                let at = at.map(|at| format!(" {at}")).unwrap_or_default();
                format!("{METRIC}{{x=\"0\",y=\"{label}\"}} {percent}{at}\n{METRIC}_TOTAL{{y=\"{label}\"}} 3\n")
            });
            let page: String = lines.collect();
            let expected: f64 = samples.iter().map(|(percent, ..)| percent).sum::<f64>() / samples.len() as f64;
            let found = mean(&page).unwrap() * 100.0;
            prop_assert!((found - expected).abs() < 1e-9, "{found} and not {expected}");
        }
    }
}
