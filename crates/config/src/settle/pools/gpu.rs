//! Who tells how busy a pool's GPUs are.

use refrain_core::settings::{GpuExporter, GpuUnit};

use super::super::Context;
use crate::raw;
use crate::text::format_span;

/// None without a port, which is known already.
pub(super) fn settle(context: &mut Context<'_>, pool: &str, raw: raw::Gpu) -> Option<GpuExporter> {
    let raw::Gpu { port, path, metric, unit, interval } = raw;
    let interval = interval.map_or(GpuExporter::INTERVAL, |span| span.0);
    let (least, most) = GpuExporter::INTERVAL_RANGE;
    if !(least..=most).contains(&interval) {
        let message = format!("must be from {:?} to {:?}", format_span(least), format_span(most));
        context.refuse(&["pool", pool, "gpu", "interval"], message, None);
    }
    let metric = metric.map_or_else(|| GpuExporter::METRIC.to_owned(), |metric| metric.0);
    let unit = match unit {
        Some(raw::GpuUnit::Percent) => GpuUnit::Percent,
        Some(raw::GpuUnit::Ratio) => GpuUnit::Ratio,
        None => GpuUnit::of_metric(&metric),
    };
    Some(GpuExporter {
        port: port?,
        path: path.map_or_else(|| GpuExporter::PATH.to_owned(), |path| path.0),
        metric,
        unit,
        interval,
    })
}
