//! What the process tells about itself: log lines, and numbers for Prometheus.

mod cost;
mod discovery;
mod exposition;
mod gauges;
mod log;
mod pools;
mod recorder;

pub(crate) use gauges::pulled;
pub(crate) use log::{LinesDropped, LogFilter, Logs, parse};
#[cfg(test)]
pub(crate) use recorder::detached;
pub(crate) use recorder::{UPKEEP_INTERVAL, install};
