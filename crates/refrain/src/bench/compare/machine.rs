//! The machine that was measured on.

use std::fs::read_to_string;

/// What is worth knowing of it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory: String,
    pub(super) kernel: String,
    /// Before anything was started.
    pub(super) load: String,
    /// Upstreams and Redis with their versions.
    pub(super) servers: Vec<String>,
}

impl Machine {
    /// This one. What the system doesn't tell is `unknown`.
    pub(super) fn here(servers: Vec<String>) -> Self {
        let field = |file: &str, name: &str| {
            let text = read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        let gibibytes = |text: String| {
            let kibibytes: u64 = text.trim_end_matches("kB").trim().parse().ok()?;
            Some(format!("{} GiB", (kibibytes + (1 << 19)) >> 20))
        };
        let first_words = |file: &str| read_to_string(file).ok().map(|text| text.trim().to_owned());
        let load =
            first_words("/proc/loadavg").map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" "));
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory: field("/proc/meminfo", "MemTotal").and_then(gibibytes).unwrap_or_else(unknown),
            kernel: first_words("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            load: load.unwrap_or_else(unknown),
            servers,
        }
    }
}
