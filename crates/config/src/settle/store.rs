//! Where answers are kept.

mod redis;

use refrain_core::settings::{EmbeddedStore, Store, WhenLocked};

use super::{Context, process::bytes};
use crate::raw::{self, StoreKind};

pub(super) fn settle(context: &mut Context<'_>, raw: raw::Store) -> Store {
    let kind = raw.kind.unwrap_or(StoreKind::Embedded);
    if kind != StoreKind::Redis && !context.is_wrong(&["store", "kind"]) {
        refuse_redis(context, &raw);
    }
    match kind {
        StoreKind::Off => Store::Off,
        StoreKind::Embedded => Store::Embedded(embedded(context, raw)),
        StoreKind::Redis => Store::Redis(redis::settle(context, raw)),
    }
}

/// Whoever writes of Redis believes that answers are shared.
fn refuse_redis(context: &mut Context<'_>, raw: &raw::Store) {
    if raw.redis.is_some() {
        let message = "has no effect: say store.kind = \"redis\", or leave this out";
        context.refuse(&["store", "redis"], message, None);
    }
    if raw.secret_file.is_some() {
        let message = "only with store.kind = \"redis\": the embedded store has its secret in store.dir";
        context.refuse(&["store", "secret_file"], message, None);
    }
}

fn embedded(context: &mut Context<'_>, raw: raw::Store) -> EmbeddedStore {
    let default = EmbeddedStore::default();
    let store = EmbeddedStore {
        memory_bytes_max: bytes(raw.memory, default.memory_bytes_max),
        dir: raw.dir.map(|dir| context.source.resolve(&dir.0)),
        disk_bytes_max: raw.disk.as_ref().map_or(default.disk_bytes_max, |bytes| bytes.0),
        entry_bytes_max: bytes(raw.entry_max, default.entry_bytes_max),
        when_locked: match raw.when_locked {
            Some(raw::WhenLocked::Refuse) => WhenLocked::Refuse,
            Some(raw::WhenLocked::Wait) => WhenLocked::Wait,
            None => default.when_locked,
        },
    };
    if store.dir.is_none() && raw.when_locked.is_some() {
        context.refuse(&["store", "when_locked"], "without store.dir there is nothing to lock", None);
    }
    check_entry(context, store.entry_bytes_max, store.memory_bytes_max);
    if store.dir.is_none() && raw.disk.is_some() {
        context.refuse(&["store", "disk"], "without store.dir nothing is on disk", None);
    }
    store
}

fn check_entry(context: &mut Context<'_>, entry_bytes_max: usize, memory_bytes_max: usize) {
    if entry_bytes_max > memory_bytes_max {
        context.refuse(&["store", "entry_max"], "an entry can't be larger than store.memory", None);
    }
}
