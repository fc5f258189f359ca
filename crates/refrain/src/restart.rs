//! What of a new configuration can't be applied while the process runs.
//!
//! Such settings keep their old value in the new settings, so that what a request sees is what really runs.

use refrain_core::Settings;
use refrain_core::settings::{Admin, Limits, Listener, Log, Runtime};

use crate::store_change;

/// Puts old values where a restart is needed, and names those settings as config does.
pub(crate) fn keep_running(old: &Settings, new: &mut Settings) -> Vec<String> {
    // Taken apart without `..`: whoever adds a setting decides here whether it can be applied live.
    let Settings {
        listeners,
        admin,
        runtime,
        limits,
        store,
        embedder,
        plugin_host,
        log,
        rate_limits: _,
        keys: _,
        tokens: _,
        certificates: _,
        tenants: _,
        plugins: _,
        pools: _,
        fleet: _,
        cost: _,
        routes: _,
        otlp: _,
        has_keys_file: _,
    } = new;
    let Runtime { workers, shutdown_delay: _, drain_timeout: _ } = runtime;
    let Limits {
        connections_max,
        waiters_max,
        head_bytes_max: _,
        headers_max: _,
        body_bytes_max: _,
        bodies_bytes_max: _,
        json_depth_max: _,
        head_timeout: _,
        idle_timeout: _,
        body_timeout: _,
        upload_timeout: _,
        write_timeout: _,
        connections_per_address_max: _,
        trusted_proxies: _,
        h2_streams_max: _,
    } = limits;
    let Log { format, filter: _, access_sample: _ } = log;

    let mut kept = Kept::default();
    kept.listeners(&old.listeners, listeners);
    kept.admin(old.admin.as_ref(), admin);
    kept.value("runtime.workers", &old.runtime.workers, workers);
    kept.value("limits.connections", &old.limits.connections_max, connections_max);
    kept.value("limits.waiters", &old.limits.waiters_max, waiters_max);
    if !store_change::can_follow(&old.store, store) {
        kept.value("store", &old.store, store);
    }
    kept.value("embedder", &old.embedder, embedder);
    kept.value("plugin_host", &old.plugin_host, plugin_host);
    kept.value("log.format", &old.log.format, format);
    kept.0
}

/// Names of the settings that were kept.
#[derive(Default)]
struct Kept(Vec<String>);

impl Kept {
    fn value<T: Clone + PartialEq>(&mut self, name: &str, old: &T, new: &mut T) {
        if old != new {
            self.0.push(name.to_owned());
            new.clone_from(old);
        }
    }

    /// Whether there is an admin listener, and where: not whom it lets in.
    fn admin(&mut self, old: Option<&Admin>, new: &mut Option<Admin>) {
        let place = |admin: &Admin| admin.address;
        if old.map(place) != new.as_ref().map(place) {
            self.0.push("admin".to_owned());
            *new = old.cloned();
        }
    }

    /// A listener whose address changed stays as it was altogether: who may come in without a key can follow from the
    /// address. One that is new is left out; one that is gone is gone, and refuses requests until its socket closes.
    fn listeners(&mut self, old: &[Listener], new: &mut Vec<Listener>) {
        for was in old {
            match new.iter_mut().find(|listener| listener.id == was.id) {
                Some(listener) if listener.address != was.address => {
                    self.0.push(format!("listener.{}.address", was.id));
                    listener.clone_from(was);
                }
                Some(_) => {}
                None => self.0.push(format!("listener.{} (gone)", was.id)),
            }
        }
        new.retain(|listener| {
            let runs = old.iter().any(|was| was.id == listener.id);
            if !runs {
                self.0.push(format!("listener.{} (new)", listener.id));
            }
            runs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use refrain_core::settings::{EmbeddedStore, Embedder, LogFormat, Store};
    use refrain_core::{ListenerId, Role};

    use super::*;

    fn settings() -> Settings {
        refrain_config::for_upstream("http://127.0.0.1:1", None).unwrap()
    }

    fn embedder() -> Embedder {
        Embedder {
            model_dir: "/model".into(),
            runtime_library: "/library.so".into(),
            threads: 1,
            queue_max: 1,
            budget: Duration::from_secs(1),
            window_tokens: 256,
        }
    }

    #[test]
    fn what_can_be_applied_is() {
        let mut new = settings();
        new.limits.body_bytes_max = 1;
        new.log.filter = "debug".into();
        new.routes.clear();
        assert_eq!(keep_running(&settings(), &mut new), [""; 0]);
        assert_eq!((new.limits.body_bytes_max, new.routes.len()), (1, 0));
    }

    #[test]
    fn what_needs_a_restart_is_named_and_keeps_its_value() {
        let mut new = settings();
        new.admin = None;
        new.runtime.workers += 1;
        new.embedder = Some(embedder());
        new.plugin_host.instances_max += 1;
        new.log.format = LogFormat::Json;
        let named = keep_running(&settings(), &mut new);
        assert_eq!(named, ["admin", "runtime.workers", "embedder", "plugin_host", "log.format"]);
        assert_eq!(new.admin, settings().admin);
        assert_eq!(new.runtime, settings().runtime);
        assert_eq!(new.embedder, None);
        assert_eq!(new.plugin_host, settings().plugin_host);
    }

    #[test]
    fn a_store_is_changed_live_unless_it_stays_in_its_directory() {
        let mut new = settings();
        new.store = Store::Off;
        assert_eq!(keep_running(&settings(), &mut new), [""; 0]);
        let in_dir = |memory_bytes_max| {
            let dir = Some("/var/lib/refrain".into());
            let store = EmbeddedStore { dir, memory_bytes_max, ..EmbeddedStore::default() };
            Settings { store: Store::Embedded(store), ..settings() }
        };
        let mut new = in_dir(1);
        assert_eq!(keep_running(&in_dir(2), &mut new), ["store"]);
        assert_eq!(new.store, in_dir(2).store);
    }

    #[test]
    fn a_listener_that_moves_keeps_its_old_access_rules() {
        let mut old = settings();
        old.listeners[0].address = ([0, 0, 0, 0], 8080).into();
        old.listeners[0].allow_anonymous = false;
        let mut new = settings();
        new.listeners[0].anonymous_role = Role::Admin;
        assert_eq!(keep_running(&old, &mut new), ["listener.main.address"]);
        assert_eq!(new.listeners, old.listeners);
    }

    #[test]
    fn new_listeners_wait_and_removed_ones_are_gone() {
        let mut new = settings();
        new.listeners[0].id = ListenerId::new("other");
        assert_eq!(keep_running(&settings(), &mut new), ["listener.main (gone)", "listener.other (new)"]);
        assert!(new.listeners.is_empty());
    }
}
