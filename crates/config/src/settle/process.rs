//! Tables about the process as a whole.

use refrain_core::settings::{Embedder, Limits, Log, LogFormat, Runtime};

use super::Context;
use crate::raw;
use crate::text::{Bytes, TimeSpan};

/// Smallest head limit: hyper takes no smaller buffer.
const HEAD_BYTES_MIN: usize = 8 * 1024;

pub(super) fn runtime(raw: raw::Runtime) -> Runtime {
    let default = Runtime::default();
    Runtime {
        workers: raw.workers.map_or(default.workers, |workers| workers as usize),
        shutdown_delay: raw.shutdown_delay.map_or(default.shutdown_delay, |span| span.0),
        drain_timeout: raw.drain_timeout.map_or(default.drain_timeout, |span| span.0),
    }
}

pub(super) fn limits(context: &mut Context<'_>, raw: raw::Limits) -> Limits {
    let default = Limits::default();
    let time = |raw: Option<TimeSpan>, default| raw.map_or(default, |span| span.0);
    let number = |raw: Option<u32>, default| raw.map_or(default, |number| number as usize);
    let trusted = raw.trusted_proxies.map(|networks| networks.into_iter().map(|network| network.0).collect());
    let body_bytes_max = bytes(raw.body, default.body_bytes_max);
    let limits = Limits {
        head_bytes_max: bytes(raw.head, default.head_bytes_max),
        headers_max: number(raw.headers, default.headers_max),
        body_bytes_max,
        bodies_bytes_max: bytes(raw.bodies, default.bodies_bytes_max.max(body_bytes_max)),
        json_depth_max: number(raw.json_depth, default.json_depth_max),
        head_timeout: time(raw.head_timeout, default.head_timeout),
        idle_timeout: time(raw.idle_timeout, default.idle_timeout),
        body_timeout: time(raw.body_timeout, default.body_timeout),
        upload_timeout: time(raw.upload_timeout, default.upload_timeout),
        write_timeout: time(raw.write_timeout, default.write_timeout),
        connections_max: number(raw.connections, default.connections_max),
        connections_per_address_max: number(raw.connections_per_address, default.connections_per_address_max),
        trusted_proxies: trusted.unwrap_or(default.trusted_proxies),
        h2_streams_max: raw.h2_streams.unwrap_or(default.h2_streams_max),
        waiters_max: number(raw.waiters, default.waiters_max),
    };
    if limits.head_bytes_max < HEAD_BYTES_MIN {
        context.refuse(&["limits", "head"], "must be at least \"8 KiB\"", None);
    }
    if limits.bodies_bytes_max < limits.body_bytes_max {
        context.refuse(
            &["limits", "bodies"],
            "must be at least as large as `body`: else no such body ever fits",
            None,
        );
    }
    limits
}

/// None if a required part is missing or wrong, which is known already.
pub(super) fn embedder(context: &Context<'_>, raw: raw::Embedder) -> Option<Embedder> {
    Some(Embedder {
        model_dir: context.source.resolve(&raw.model_dir?.0),
        runtime_library: context.source.resolve(&raw.runtime_library?.0),
        threads: raw.threads.map_or(Embedder::THREADS, |number| number as usize),
        queue_max: raw.queue.map_or(Embedder::QUEUE_MAX, |number| number as usize),
        budget: raw.budget.map_or(Embedder::BUDGET, |span| span.0),
        window_tokens: raw.window_tokens.map_or(Embedder::WINDOW_TOKENS, |number| number as usize),
    })
}

pub(super) fn log(raw: raw::Log) -> Log {
    let default = Log::default();
    Log {
        filter: raw.filter.unwrap_or(default.filter),
        format: match raw.format {
            Some(raw::LogFormat::Text) => LogFormat::Text,
            Some(raw::LogFormat::Json) => LogFormat::Json,
            None => default.format,
        },
        access_sample: raw.access_sample.unwrap_or(default.access_sample),
    }
}

/// A size that fits memory: [`Bytes`] are bounded far below a 64-bit `usize`, and clamped on smaller machines.
pub(super) fn bytes(raw: Option<Bytes>, default: usize) -> usize {
    raw.map_or(default, |bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX))
}
