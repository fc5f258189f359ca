//! What the process takes of its machine, as Linux tells it; elsewhere these numbers are not there.

use std::fs;

use super::exposition::Exposition;

/// Ticks a second in `/proc/self/stat`: fixed for programs on Linux, whatever the kernel's own clock (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/self/stat` after the program's name, which may hold blanks: user and system time, then threads.
const TICKS: [usize; 2] = [11, 12];
const THREADS: usize = 17;

pub(super) fn write(text: &mut Exposition) {
    if let Some(bytes) = resident_bytes() {
        text.gauge("refrain_process_resident_memory_bytes", "Memory in use.").sample(&[], bytes);
    }
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        times(text, &stat);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        text.gauge("refrain_process_open_fds", "Open files and sockets.").sample(&[], files.count());
    }
    if let Some(limit) = fds_max() {
        text.gauge("refrain_process_max_fds", "How many there may be.").sample(&[], limit);
    }
}

fn times(text: &mut Exposition, stat: &str) {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    if let [Some(user), Some(system)] = TICKS.map(number) {
        text.counter("refrain_process_cpu_seconds_total", "Computing time, of all threads.")
            .sample(&[], (user + system) as f64 / TICKS_PER_SECOND);
    }
    if let Some(threads) = number(THREADS) {
        text.gauge("refrain_process_threads", "Threads.").sample(&[], threads);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn fds_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_with_blanks_and_brackets() {
        let mut text = Exposition::default();
        times(&mut text, "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 0");
        let text = text.into_text();
        assert!(text.contains("refrain_process_cpu_seconds_total 2\n"), "{text}");
        assert!(text.contains("refrain_process_threads 9\n"), "{text}");
    }
}
