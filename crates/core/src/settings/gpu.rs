//! Where it is told how busy the GPUs of a pool's endpoints are.

use std::time::Duration;

/// A Prometheus exporter on the host of every endpoint of a pool, spoken to in plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuExporter {
    /// Its port.
    pub port: u16,
    /// The page with its metrics.
    pub path: String,
    /// The metric whose samples say how busy the GPUs are.
    pub metric: String,
    /// In what.
    pub unit: GpuUnit,
    /// Time between two readings, [`GpuExporter::INTERVAL_RANGE`].
    pub interval: Duration,
}

/// What a sample of a GPU's use is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuUnit {
    /// From 0 to 100.
    Percent,
    /// From 0 to 1.
    Ratio,
}

impl GpuUnit {
    /// What a metric of this name is in, if config doesn't say. Ratios are all of DCGM's profiling metrics, and what is named as
    /// Prometheus would have ratios named (NVIDIA's `nvidia_smi_utilization_gpu_ratio`).
    ///
    /// Source: <https://docs.nvidia.com/datacenter/dcgm/latest/user-guide/feature-overview.html#profiling-metrics>,
    /// <https://prometheus.io/docs/practices/naming/>.
    pub fn of_metric(name: &str) -> Self {
        if name.starts_with("DCGM_FI_PROF_") || name.ends_with("_ratio") {
            Self::Ratio
        } else {
            Self::Percent
        }
    }

    /// The sample of a GPU that is busy all the time.
    pub fn full(self) -> f64 {
        match self {
            Self::Percent => 100.0,
            Self::Ratio => 1.0,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metrics_name_tells_its_unit() {
        for name in
            ["DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE", "nvidia_smi_utilization_gpu_ratio"]
        {
            assert_eq!(GpuUnit::of_metric(name), GpuUnit::Ratio, "{name}");
        }
        for name in [GpuExporter::METRIC, "all_smi_gpu_utilization", "gpu_gfx_activity"] {
            assert_eq!(GpuUnit::of_metric(name), GpuUnit::Percent, "{name}");
        }
    }
}
