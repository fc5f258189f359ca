//! What the kernel says of a process: time on the CPU and resident memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Time on the CPU of all threads of a process and of its children that are processes of their own.
///
/// From `schedstat` (nanoseconds), since `stat` counts in ticks of 10 ms. A thread that has ended is not counted, so compare
/// only while the same threads run.
pub(super) fn on_cpu(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for process in family(pid)? {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let path = thread?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
            let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
            total += Duration::from_nanos(nanoseconds.context("schedstat has no number")?);
        }
    }
    Ok(total)
}

/// Resident memory of a process and its children, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<u64> {
    let mut kib = 0;
    for process in family(pid)? {
        let text = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        kib += line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(kib / 1024)
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    Ok(std::iter::once(pid).chain(children).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let pid = std::process::id();
        assert!(on_cpu(pid).unwrap() > Duration::ZERO);
        assert!(resident_mib(pid).unwrap() > 0);
    }
}
