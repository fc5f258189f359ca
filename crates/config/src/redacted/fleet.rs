//! How pools are balanced and bounded.

use refrain_core::settings::{Admission, Balance, Fleet, GpuExporter, GpuUnit, HashBy, Health, Tenancy};
use serde_json::{Value, json};

use crate::text::format_span;

pub(super) fn fleet(fleet: &Fleet) -> Value {
    let Fleet { proxies } = fleet;
    json!({ "proxies": proxies })
}

pub(super) fn balance(balance: &Balance, pool: &mut Value) {
    let (name, by) = match balance {
        Balance::Prefix => ("prefix", None),
        Balance::LeastLoad => ("least-load", None),
        Balance::RoundRobin => ("round-robin", None),
        Balance::Hash(by) => ("hash", Some(by)),
    };
    pool["balance"] = json!(name);
    if let Some(by) = by {
        pool["hash_by"] = match by {
            HashBy::User => json!("user"),
            HashBy::Session => json!("session"),
            HashBy::Header(name) => json!({ "header": name }),
            HashBy::Field(pointer) => json!({ "field": pointer }),
        };
    }
}

pub(super) fn admission(admission: &Admission) -> Value {
    let Admission { concurrency, parallelism, queue_max, queue_timeout } = admission;
    json!({
        "concurrency": concurrency,
        "parallelism": parallelism,
        "queue": queue_max,
        "queue_timeout": format_span(*queue_timeout),
    })
}

pub(super) fn health(health: &Health) -> Value {
    let Health { interval, ejection, slow_start } = health;
    let mut table = json!({
        "active": interval.is_some(),
        "ejection": format_span(*ejection),
        "slow_start": format_span(*slow_start),
    });
    if let Some(interval) = interval {
        table["interval"] = json!(format_span(*interval));
    }
    table
}

pub(super) fn gpu(exporter: &GpuExporter) -> Value {
    let GpuExporter { port, path, metric, unit, interval } = exporter;
    let unit = match unit {
        GpuUnit::Percent => "percent",
        GpuUnit::Ratio => "ratio",
    };
    json!({ "port": port, "path": path, "metric": metric, "unit": unit, "interval": format_span(*interval) })
}

pub(super) fn tenancy(tenancy: &Tenancy, pool: &mut Value) {
    pool["tenancy"] = json!(match tenancy {
        Tenancy::Salted => "salted",
        Tenancy::Dedicated(_) => "dedicated",
        Tenancy::Shared => "shared",
    });
    if let Tenancy::Dedicated(tenant) = tenancy {
        pool["tenant"] = json!(tenant.as_str());
    }
}
