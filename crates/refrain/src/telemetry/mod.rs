//! What the process tells about itself: log lines, and numbers for Prometheus.

mod cost;
mod discovery;
mod exposition;
mod gauges;
mod gen_ai;
mod help;
mod log;
mod otlp;
mod pools;
mod process;
mod recorder;
mod scraped;

pub(crate) use log::{LinesDropped, LogFilter, Logs, parse};
pub(crate) use otlp::Exporter;
#[cfg(test)]
pub(crate) use recorder::detached;
pub(crate) use recorder::{UPKEEP_INTERVAL, install};

use crate::control::Control;

/// All numbers as of now, in the Prometheus text format.
pub(crate) fn scrape(control: &Control) -> String {
    control.recorder.render() + &gauges::pulled(control)
}
