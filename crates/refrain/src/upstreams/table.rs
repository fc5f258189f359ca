//! The pools as a table, for people.

use super::wire::{EndpointReport, ErrorReport, PoolReport, SourceReport, UpstreamsReport};
use crate::columns::{columns, printable};

const HEAD: [&str; 8] = ["POOL", "ENDPOINT", "STATE", "LOAD", "MODELS", "PRICE", "UP", "LAST ERROR"];
/// Models that are named.
const MODELS_MAX: usize = 2;
/// Letters of an error that are shown: the JSON has all of them.
const ERROR_MAX: usize = 100;

/// All of it.
pub(super) fn page(report: &UpstreamsReport) -> String {
    let head = HEAD.map(str::to_owned).to_vec();
    let rows = report.pools.iter().flat_map(|pool| pool.endpoints.iter().map(|endpoint| row(pool, endpoint)));
    let table = columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    let pools: String = report.pools.iter().map(pool_lines).collect();
    let proxies = match report.proxies {
        1 => String::new(),
        count => format!("{count} proxies share these pools: load and limits are this one's.\n"),
    };
    format!("{table}\n{pools}{proxies}")
}

fn row(pool: &PoolReport, report: &EndpointReport) -> Vec<String> {
    let EndpointReport { endpoint, state, share, in_flight, models, .. } = report;
    let state = if *share < 1.0 && state == "healthy" {
        format!("{state}, {:.0} %", share * 100.0)
    } else {
        state.clone()
    };
    let tokens = match report.prompt_tokens {
        0 => String::new(),
        tokens => format!(", {} tokens", short(tokens)),
    };
    let gpu = report.gpu_utilization.map(|ratio| format!(", GPU {:.0} %", ratio * 100.0));
    let load = format!("{in_flight}/{}{tokens}{}", pool.limit, gpu.unwrap_or_default());
    let price = report.price_per_hour.map(|dollars| format!("${dollars:.2}/h"));
    let error = report.last_error.as_ref().map(error);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        printable(&pool.pool),
        printable(endpoint),
        state,
        load,
        self::models(models.as_deref()),
        or_none(price),
        or_none(report.uptime_seconds.map(age)),
        or_none(error),
    ]
}

fn models(models: Option<&[String]>) -> String {
    match models {
        None => "?".to_owned(),
        Some([]) => "none".to_owned(),
        Some(models) => {
            let named: Vec<String> = models.iter().take(MODELS_MAX).map(|model| printable(model)).collect();
            let more = models.len().saturating_sub(MODELS_MAX);
            let more = if more > 0 { format!(" +{more}") } else { String::new() };
            named.join(", ") + &more
        }
    }
}

fn error(ErrorReport { message, seconds_ago }: &ErrorReport) -> String {
    let mut shown: String = printable(message).chars().take(ERROR_MAX).collect();
    if message.chars().count() > ERROR_MAX {
        shown.push('…');
    }
    format!("{} ago: {shown}", age(*seconds_ago))
}

/// What a pool does, and what finds its endpoints.
fn pool_lines(pool: &PoolReport) -> String {
    let PoolReport { in_flight, capacity, queue, desired_replicas, .. } = pool;
    let name = printable(&pool.pool);
    let busy = match capacity {
        0 => "NO endpoint is in service".to_owned(),
        _ => format!("{in_flight} of {capacity} requests in flight"),
    };
    let refused = match queue.refused {
        0 => String::new(),
        count => format!(", {count} refused so far"),
    };
    let wanted = if *desired_replicas == 1 { "endpoint" } else { "endpoints" };
    let sources: String = pool.discovery.iter().map(|source| source_line(&name, source)).collect();
    format!("{name}: {busy}, {} waiting{refused}; {desired_replicas} {wanted} wanted\n{sources}", queue.depth)
}

fn source_line(pool: &str, source: &SourceReport) -> String {
    let SourceReport { kind, members, held_back, unusable, last_success_seconds_ago, last_error, .. } =
        source;
    let name = printable(&source.source);
    let looked = match last_success_seconds_ago {
        Some(seconds) => format!("seen {} ago", age(*seconds)),
        None => "never seen".to_owned(),
    };
    let odd = [(*held_back, "no longer listed, kept"), (*unusable, "unusable")];
    let odd = odd.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    let trouble = last_error.as_ref().map(|error| format!(" FAILS: {}", printable(error)));
    format!(
        "{pool}: {name} ({kind}) stands for {members}, {looked}{}{}\n",
        odd.collect::<String>(),
        trouble.unwrap_or_default()
    )
}

/// `12s`, `3m`, `5h`, `9d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `950`, `12k`.
fn short(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1_000) }
}

#[cfg(test)]
mod tests {
    use super::super::wire::QueueReport;
    use super::*;

    fn endpoint(name: &str) -> EndpointReport {
        EndpointReport {
            endpoint: name.to_owned(),
            url: None,
            state: "healthy".to_owned(),
            share: 1.0,
            in_flight: 0,
            prompt_tokens: 0,
            requests: 0,
            failures: 0,
            models: None,
            price_per_hour: None,
            uptime_seconds: None,
            gpu_utilization: None,
            last_error: None,
        }
    }

    fn pool(endpoints: Vec<EndpointReport>) -> PoolReport {
        PoolReport {
            pool: "gpu".to_owned(),
            in_flight: 3,
            prompt_tokens: 40_000,
            limit: 4,
            capacity: 8,
            queue: QueueReport { depth: 2, waits: 9, wait_seconds: 1.5, refused: 0 },
            desired_replicas: 3,
            endpoints,
            discovery: Vec::new(),
        }
    }

    #[test]
    fn fleet_table_shows_each_endpoint_and_what_its_pool_needs() {
        let names = ["qwen3:32b", "gemma3:4b", "phi4"];
        let rented = EndpointReport {
            share: 0.4,
            in_flight: 3,
            prompt_tokens: 40_000,
            models: Some(names.map(str::to_owned).to_vec()),
            price_per_hour: Some(0.515),
            uptime_seconds: Some(7_300),
            gpu_utilization: Some(0.874),
            ..endpoint("rented")
        };
        let message = "can't connect:\u{1b}[2J refused".to_owned();
        let lost = EndpointReport {
            state: "down".to_owned(),
            last_error: Some(ErrorReport { message, seconds_ago: 130 }),
            ..endpoint("10.0.0.2:8000")
        };
        let report = UpstreamsReport { proxies: 2, pools: vec![pool(vec![rented, lost])] };
        let expected = "\
POOL  ENDPOINT       STATE          LOAD                       MODELS                   PRICE    UP  LAST ERROR
gpu   rented         healthy, 40 %  3/4, 40k tokens, GPU 87 %  qwen3:32b, gemma3:4b +1  $0.52/h  2h  -
gpu   10.0.0.2:8000  down           0/4                        ?                        -        -   2m ago: can't connect: [2J refused

gpu: 3 of 8 requests in flight, 2 waiting; 3 endpoints wanted
2 proxies share these pools: load and limits are this one's.
";
        assert_eq!(page(&report), expected);
    }

    #[test]
    fn fleet_table_says_what_finds_endpoints_and_that_none_is_left() {
        let source = SourceReport {
            source: "rented".to_owned(),
            kind: "vast".to_owned(),
            members: 2,
            held_back: 1,
            unusable: 0,
            last_success_seconds_ago: Some(60),
            last_error: Some("answered 401".to_owned()),
        };
        let lost = PoolReport { capacity: 0, discovery: vec![source], ..pool(Vec::new()) };
        let shown = page(&UpstreamsReport { proxies: 1, pools: vec![lost] });
        assert!(shown.contains("gpu: NO endpoint is in service, 2 waiting"), "{shown}");
        let line =
            "gpu: rented (vast) stands for 2, seen 60s ago, 1 no longer listed, kept FAILS: answered 401\n";
        assert!(shown.contains(line), "{shown}");
    }
}
