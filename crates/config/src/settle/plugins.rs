//! Cache policies: what there is, and what a route tells each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use refrain_core::PluginId;
use refrain_core::settings::{Grant, Isolation, OnError, Plugin, PluginHost, PluginLimits, RoutePlugin};
use serde_json::Value;

use super::{Context, process};
use crate::raw;

/// One page of WebAssembly memory.
const MEMORY_BYTES_MIN: usize = 64 * 1024;

/// What 32 bits address.
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;

/// Longest config of a plugin on a route, in bytes of its JSON.
const CONFIG_BYTES_MAX: usize = 256 * 1024;

/// The plugins, and their config for routes that give none.
#[derive(Default)]
pub(super) struct Plugins {
    /// Whole ones.
    pub(super) by_name: BTreeMap<PluginId, Arc<Plugin>>,
    configs: BTreeMap<PluginId, String>,
}

pub(super) fn host(context: &Context<'_>, raw: raw::PluginHost, store_dir: Option<&Path>) -> PluginHost {
    let default = PluginHost::default();
    PluginHost {
        code_dir: match raw.code_dir {
            Some(dir) => Some(context.source.resolve(&dir.0)),
            None => default_code_dir(context, store_dir),
        },
        instances_max: raw.instances.map_or(default.instances_max, |number| number as usize),
    }
}

/// Beside the answers, or where the user's caches are.
fn default_code_dir(context: &Context<'_>, store_dir: Option<&Path>) -> Option<PathBuf> {
    if let Some(dir) = store_dir {
        return Some(dir.join("code"));
    }
    // Relative ones are to be ignored, says the XDG base directory specification.
    let absolute =
        |name| context.source.environment.get(name).map(Path::new).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").map(Path::to_owned);
    caches
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|caches| caches.join("refrain/code"))
}

pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Plugin>,
    host: &PluginHost,
) -> Plugins {
    let mut plugins = Plugins::default();
    for (name, mut raw) in raw {
        let config = config(context, &["plugin", &name, "config"], raw.config.take());
        // None without a file, which is known already.
        let Some(plugin) = plugin(context, &name, raw, host) else { continue };
        plugins.configs.insert(plugin.id.clone(), config);
        plugins.by_name.insert(plugin.id.clone(), Arc::new(plugin));
    }
    plugins
}

fn plugin(context: &mut Context<'_>, name: &str, raw: raw::Plugin, host: &PluginHost) -> Option<Plugin> {
    let limits = limits(context, name, raw.limits, host);
    let file = context.watched(&raw.file?.0);
    let grants: BTreeSet<Grant> = raw.grants.into_iter().map(Grant::from).collect();
    let on_error = match raw.on_error {
        Some(raw::OnError::Bypass) => OnError::Bypass,
        Some(raw::OnError::Reject) => OnError::Reject,
        Some(raw::OnError::Static) => OnError::Static,
        None if grants.iter().any(|grant| grant.guards()) => OnError::Reject,
        None => OnError::Bypass,
    };
    let isolation = match raw.isolation {
        Some(raw::Isolation::Reuse) => Isolation::Reuse,
        Some(raw::Isolation::Request) => Isolation::Request,
        None => Isolation::default(),
    };
    let sha256 = raw.sha256.map(|digest| digest.0);
    Some(Plugin { id: PluginId::new(name), file, sha256, grants, on_error, isolation, limits })
}

impl From<raw::Grant> for Grant {
    fn from(raw: raw::Grant) -> Self {
        match raw {
            raw::Grant::SharedScope => Self::SharedScope,
            raw::Grant::Refuse => Self::Refuse,
            raw::Grant::KeyEdit => Self::KeyEdit,
            raw::Grant::Rewrite => Self::Rewrite,
            raw::Grant::Pool => Self::Pool,
            raw::Grant::State => Self::State,
            raw::Grant::Embed => Self::Embed,
        }
    }
}

fn limits(context: &mut Context<'_>, name: &str, raw: raw::PluginLimits, host: &PluginHost) -> PluginLimits {
    let default = PluginLimits::default();
    let span = |raw: Option<crate::text::TimeSpan>, default| raw.map_or(default, |span| span.0);
    let limits = PluginLimits {
        memory_bytes_max: process::bytes(raw.memory, default.memory_bytes_max),
        instances_max: raw
            .instances
            .map_or(default.instances_max.min(host.instances_max), |number| number as usize),
        instance_wait: span(raw.instance_wait, default.instance_wait),
        calls_max: raw.calls.map_or(default.calls_max, u64::from),
        age_max: span(raw.age, default.age_max),
        decide_budget: span(raw.decide, default.decide_budget),
        store_budget: span(raw.store, default.store_budget),
        configure_budget: span(raw.configure, default.configure_budget),
    };
    if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&limits.memory_bytes_max) {
        let path = ["plugin", name, "limits", "memory"];
        context.refuse(&path, "must be from \"64 KiB\" to \"4 GiB\"", None);
    }
    if limits.instances_max > host.instances_max {
        let message = format!("can't be more than plugin_host.instances, {}", host.instances_max);
        context.refuse(&["plugin", name, "limits", "instances"], message, None);
    }
    limits
}

/// What a route runs, in its order.
pub(super) fn on_route(
    context: &mut Context<'_>,
    route: &str,
    raw: Vec<raw::RoutePlugin>,
    plugins: &Plugins,
) -> Vec<RoutePlugin> {
    let mut on_route: Vec<RoutePlugin> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let index = index.to_string();
        let path = ["route", route, "plugins", &index];
        let (name, own) = match raw {
            raw::RoutePlugin::Name(name) => (name, None),
            raw::RoutePlugin::Table(table) => {
                let own =
                    table.config.map(|raw| config(context, &[&path[..], &["config"]].concat(), Some(raw)));
                // Without a name, which is known already.
                let Some(name) = table.plugin else { continue };
                (name.0, own)
            }
        };
        let known = context.names("plugin");
        if !known.contains(&name.as_str()) {
            context.refuse_unknown(&path, "plugin", &name, &known);
            continue;
        }
        let id = PluginId::new(name);
        if on_route.iter().any(|other| other.plugin.id == id) {
            context.refuse(&path, format!("{:?} is on this route already", id.as_str()), None);
        }
        // A plugin that is wrong in itself is known already.
        let Some(plugin) = plugins.by_name.get(&id) else { continue };
        let config = own.or_else(|| plugins.configs.get(&id).cloned()).unwrap_or_else(|| "{}".to_owned());
        on_route.push(RoutePlugin { plugin: plugin.clone(), config });
    }
    on_route
}

/// Whether a policy of some route may send requests to a pool that is no route's.
pub(super) fn may_choose_pools<'a>(mut plugins: impl Iterator<Item = &'a RoutePlugin>) -> bool {
    plugins.any(|on_route| on_route.plugin.grants.contains(&Grant::Pool))
}

pub(super) fn warn_of_idle<'a>(
    context: &mut Context<'_>,
    plugins: &Plugins,
    used: impl Iterator<Item = &'a RoutePlugin> + Clone,
) {
    for id in plugins.by_name.keys() {
        if !used.clone().any(|on_route| on_route.plugin.id == *id) {
            context.warn(&["plugin", id.as_str()], "no route uses it");
        }
    }
}

/// A config as the plugin is told it: a JSON object with sorted keys, so that the same config is the same text.
fn config(context: &mut Context<'_>, path: &[&str], raw: Option<raw::PluginConfig>) -> String {
    let Some(raw::PluginConfig(table)) = raw else { return "{}".to_owned() };
    let text = crate::schema::sort(json(toml::Value::Table(table))).to_string();
    if text.len() > CONFIG_BYTES_MAX {
        context.refuse(path, "larger than \"256 KiB\" of JSON", None);
    }
    text
}

/// Infinities, NaN and dates are none of JSON's: the walk has refused the first two and written dates as strings.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(json).collect()),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
    }
}
