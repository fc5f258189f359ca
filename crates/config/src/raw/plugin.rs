//! `[plugin.NAME]`, `[plugin_host]`, and how a route names a plugin.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::text::{Bytes, FilePath, NonEmpty, Sha256, TimeSpan};

/// What runs cache policies.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginHost {
    /// Folder for compiled policies, so that a start need not compile them. Only the user who runs Refrain may be able
    /// to write there. Default: "code" in `store.dir`, else "refrain/code" in the user's cache folder.
    pub(crate) code_dir: Option<FilePath>,
    /// Instances of all policies together. Default 128.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) instances: Option<u32>,
}

/// A cache policy: a WebAssembly component that decides, on the routes that name it, about caching.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plugin {
    /// The component. A changed file is loaded anew.
    #[schemars(required)]
    pub(crate) file: Option<FilePath>,
    /// SHA-256 that the file must have, in hex. Default: any.
    pub(crate) sha256: Option<Sha256>,
    /// What it may do beside tightening. Default: nothing.
    #[serde(default)]
    pub(crate) grants: Vec<Grant>,
    /// What becomes of a request where it fails. Default: "reject" with any grant but "state" and "embed", else "bypass".
    pub(crate) on_error: Option<OnError>,
    /// How long an instance lives. Default "reuse".
    pub(crate) isolation: Option<Isolation>,
    /// What it is told on routes that give it no config of their own; its keys are the policy's. Default: an empty table.
    pub(crate) config: Option<PluginConfig>,
    /// Its bounds.
    #[serde(default)]
    pub(crate) limits: PluginLimits,
}

/// What a policy may do beside tightening.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grant {
    /// Scopes wider than the route's.
    SharedScope,
    /// Refusing requests.
    Refuse,
    /// Leaving things out of the key, and comparing less exactly.
    KeyEdit,
    /// Sending edited requests upstream.
    Rewrite,
    /// Choosing a pool.
    Pool,
    /// Small state that outlives a call.
    State,
    /// The embedding model.
    Embed,
}

/// What becomes of a request whose policy fails.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnError {
    /// It is passed through: neither looked up nor stored.
    Bypass,
    /// It is refused with 503.
    Reject,
    /// The route's own settings hold, as if the policy were not there.
    Static,
}

/// How long an instance lives.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Isolation {
    /// Over many requests.
    Reuse,
    /// For one request: nothing that it leaves in memory is there for the next.
    Request,
}

/// Bounds of a policy.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginLimits {
    /// Memory of an instance, from 64 KiB to 4 GiB. Default "64 MiB".
    pub(crate) memory: Option<Bytes>,
    /// Instances on one route. Default 16.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) instances: Option<u32>,
    /// How long a request waits for a free instance. Default "20ms".
    pub(crate) instance_wait: Option<TimeSpan>,
    /// Calls after which an instance is replaced. Default 100000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) calls: Option<u32>,
    /// Age at which an instance is replaced. Default "10m".
    pub(crate) age: Option<TimeSpan>,
    /// Computing time of `on-request` and of `on-candidates`. Default "5ms".
    pub(crate) decide: Option<TimeSpan>,
    /// Computing time of `on-response`. Default "50ms".
    pub(crate) store: Option<TimeSpan>,
    /// Computing time of `configure`. Default "1s".
    pub(crate) configure: Option<TimeSpan>,
}

/// A plugin on a route: by its name alone, or with a config of its own.
pub(crate) enum RoutePlugin {
    /// With the plugin's default config.
    Name(String),
    /// With another.
    Table(RoutePluginTable),
}

/// A plugin on a route, with a config of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoutePluginTable {
    /// Its name.
    #[schemars(required)]
    pub(crate) plugin: Option<NonEmpty>,
    /// What it is told, in place of its default config.
    pub(crate) config: Option<PluginConfig>,
}

/// A table whose keys are the plugin's business. The walk has refused what JSON can't hold.
#[derive(Clone)]
pub(crate) struct PluginConfig(pub(crate) toml::Table);

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        toml::Table::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for PluginConfig {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PluginConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": true })
    }
}

impl<'de> Deserialize<'de> for RoutePlugin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoutePluginVisitor;

        impl<'de> Visitor<'de> for RoutePluginVisitor {
            type Value = RoutePlugin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a table")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(RoutePlugin::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                RoutePluginTable::deserialize(MapAccessDeserializer::new(map)).map(RoutePlugin::Table)
            }
        }

        deserializer.deserialize_any(RoutePluginVisitor)
    }
}

impl JsonSchema for RoutePlugin {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RoutePlugin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<RoutePluginTable>()] })
    }
}
