//! What the kernel knows of a process: CPU time and memory. Linux only; elsewhere nothing is known.

use std::time::Duration;

/// Ticks of `/proc`: the kernel's interface has had this one for every architecture that Refrain is built for.
const TICKS_PER_SECOND: u32 = 100;

/// CPU time since a process began.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuTime(Duration);

impl CpuTime {
    /// Of this process, all threads.
    pub(super) fn of_this_process() -> Option<Self> {
        Self::read("self")
    }

    /// Of another one.
    pub(super) fn of(process: u32) -> Option<Self> {
        Self::read(&process.to_string())
    }

    /// The time between two looks.
    pub(super) fn since(self, before: Self) -> Duration {
        self.0.saturating_sub(before.0)
    }

    fn read(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        parse(&stat)
    }
}

/// Fields 14 and 15 (proc_pid_stat(5)); the name before them is in parentheses and may hold anything.
fn parse(stat: &str) -> Option<CpuTime> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(CpuTime(Duration::from_secs(ticks.into()) / TICKS_PER_SECOND))
}

/// Most memory that a process ever held, in KiB.
pub(super) fn peak_memory_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(parse(stat).unwrap().0, Duration::from_secs(2));
    }
}
