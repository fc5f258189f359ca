//! Where it is told how busy the GPUs of a pool's endpoints are.

use std::time::Duration;

/// A Prometheus exporter on the host of every endpoint of a pool, spoken to in plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuExporter {
    /// Its port.
    pub port: u16,
    /// The page with its metrics.
    pub path: String,
    /// The metric whose samples, in percent, say how busy the GPUs are.
    pub metric: String,
    /// Time between two readings, [`GpuExporter::INTERVAL_RANGE`].
    pub interval: Duration,
}

impl GpuExporter {
    /// The page, if config doesn't say.
    pub const PATH: &str = "/metrics";
    /// The metric, if config doesn't say: that of NVIDIA's DCGM exporter.
    pub const METRIC: &str = "DCGM_FI_DEV_GPU_UTIL";
    /// Time between two readings, if config doesn't say.
    pub const INTERVAL: Duration = Duration::from_secs(15);
    /// Shortest and longest time between two readings.
    pub const INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
}
