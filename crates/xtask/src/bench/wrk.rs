//! Load by wrk: one thread, 64 kept-alive connections, one prepared request or one of its own each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;

/// Connections: enough that the proxy is never idle for want of requests.
pub(super) const CONNECTIONS: usize = 64;

/// What wrk counted.
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) rate: f64,
    /// Half of the requests took less, in ms.
    pub(super) p50_ms: f64,
    /// 99 of 100 requests took less, in ms.
    pub(super) p99_ms: f64,
}

/// A request body of about 600 bytes; `%d` stands for a number that makes it unique, or is a constant.
const BODY: &str = r#"{"model":"bench","temperature":0,"messages":[{"role":"system","content":"You are a careful assistant who answers in a few plain sentences, names no source that you do not know, and says so when a question can not be answered from what is given. Keep to the language of the question. Do not repeat the question. Prefer short words. When a number is asked for, give it first and explain it after. When code is asked for, give only code."},{"role":"user","content":"Question %d: how do I keep a proxy from holding a request back while it reads the body?"}]}"#;

/// Writes the script of a case; `unique`: every request asks something new.
pub(super) fn script(dir: &Path, name: &str, header: &str, unique: Unique) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.lua"));
    let body = BODY.replace("%d", "@");
    // Requests of one run must differ from those of the run before: they start at the wall clock.
    let request = match unique {
        Unique::No => "local ready = wrk.format()\nrequest = function() return ready end".to_owned(),
        Unique::Yes => "local n = os.time() * 1000000\n\
             local head, tail = body:match('^(.*)@(.*)$')\n\
             request = function()\n  n = n + 1\n  return wrk.format(nil, nil, nil, head .. string.format('%.0f', n) .. tail)\nend"
            .to_owned(),
    };
    let text = format!(
        "local body = [==[{body}]==]\n\
         wrk.method = 'POST'\n\
         wrk.headers['content-type'] = 'application/json'\n\
         wrk.headers['x-bench'] = '{header}'\n\
         wrk.body = body\n\
         init = function()\n{}\nend\n",
        request.replace("request = function", "  _G.request = function")
    );
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

/// Writes the script of a case with a body of its own, always the same.
pub(super) fn plain(dir: &Path, name: &str, header: &str, body: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.lua"));
    let text = format!(
        "wrk.method = 'POST'\n\
         wrk.headers['content-type'] = 'application/json'\n\
         wrk.headers['x-bench'] = '{header}'\n\
         wrk.body = [==[{body}]==]\n"
    );
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

/// Whether every request asks something new.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unique {
    Yes,
    No,
}

/// Runs wrk on one core, over so many connections.
pub(super) fn run(
    (wrk, core): (&Path, usize),
    connections: usize,
    (script, url): (&Path, &str),
    time: Duration,
) -> Result<Counted> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(wrk);
    command.args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{}s", time.as_secs())]);
    command.arg("-s").arg(script).arg(url).stdin(Stdio::null());
    parse(&command::stdout(&mut command)?)
}

fn parse(output: &str) -> Result<Counted> {
    if let Some(line) = output.lines().find(|line| line.contains("Non-2xx")) {
        bail!("the load failed: {}", line.trim());
    }
    let requests = output.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    let under =
        |share: &str| output.lines().find_map(|line| milliseconds(line.trim().strip_prefix(share)?.trim()));
    match (requests, rate, under("50%"), under("99%")) {
        (Some(requests), Some(rate), Some(p50_ms), Some(p99_ms)) if requests > 0 => {
            Ok(Counted { requests, rate, p50_ms, p99_ms })
        }
        _ => bail!("wrk said something else:\n{output}"),
    }
}

/// A time as wrk writes it: `812.00us`, `1.25ms`, `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_words_are_understood_and_failed_requests_fail_the_bench() {
        let good = "Running 2s test\n     50%    1.10ms\n     99%  812.00us\n  12345 requests in 2.00s, 3MB read\nRequests/sec:   6172.5\n";
        let counted = parse(good).unwrap();
        assert_eq!((counted.requests, counted.rate), (12345, 6172.5));
        assert_eq!((counted.p50_ms, counted.p99_ms), (1.1, 0.812));
        assert_eq!(milliseconds("1.5s"), Some(1500.0));
        assert!(parse(&format!("{good}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(parse("unable to connect").is_err());
    }
}
