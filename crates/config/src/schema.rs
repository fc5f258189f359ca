//! The JSON schema of the config file, generated from the raw tables, and a reader of it.
//!
//! The reader knows only what the generator emits: types, properties, enums, ranges, formats, references, unions.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::load;
use crate::raw::{Config, KeysFile};
use crate::redacted::redacted;
use crate::source::Source;

/// A file that takes every default which doesn't depend on a name or the machine.
const DEFAULTS: &str = r#"
    store.dir = "."
    embedder = { model_dir = ".", runtime_library = "." }
    pool.a.endpoint = [{ url = "http://a" }]
    pool.a.gpu.port = 1
    pool.a.discover = [{ kind = "dns", host = "a", port = 1 }]
    route.a = { pool = "a", cache = { regenerate = "repeat", semantic = {} } }
    limit.a = { by = ["user"], requests_per_minute = 1 }
    plugin.a = { file = "a" }
    jwt.a = { issuer = "a", audience = ["a"], jwks_url = "https://a/", tenant = "a" }
    certificate.a = { san = "a", tenant = "a", kind = "service" }
    tenant.a = {}
    otlp.url = "http://a"
    key.a = { tenant = "a", kind = "service", hash = "blake3:00000000000000000000000000000000:0000000000000000000000000000000000000000000000000000000000000000" }
"#;

/// The same for tables that [`DEFAULTS`] has no room for.
const DEFAULTS_OF_REDIS: &str = r#"
    store = { kind = "redis", secret_file = "a", redis = { url = "redis://a" } }
    pool.a.endpoint = [{ url = "http://a" }]
    route.a = { pool = "a" }
"#;

/// Keys whose default depends on other keys or the machine, or that [`DEFAULTS`] had to set.
const NOT_FIXED: [&str; 29] = [
    "algorithms",
    "allow_anonymous",
    "anonymous_role",
    "audience",
    "by",
    "code_dir",
    "dir",
    "host",
    "http_version",
    "jwks_url",
    "name",
    "namespace",
    "on_error",
    "parallelism",
    "port",
    "regenerate",
    "requests_per_minute",
    "san",
    "shared",
    "tenancy",
    "tenant",
    "tenants",
    "threshold_floor",
    "ttl_max",
    "urls",
    "user",
    "user_prefix",
    "verify",
    "workers",
];

/// The JSON schema of the config file with its defaults: pretty, with sorted keys, ending in a newline.
pub fn schema_json() -> String {
    let mut root = Schema::of_config().root;
    if let Ok(loaded) = load(&Source::from_text("", DEFAULTS, [])) {
        add_defaults(&mut root, "", &redacted(&loaded.settings));
    }
    if let Ok(loaded) = load(&Source::from_text("", DEFAULTS_OF_REDIS, [])) {
        let dump = redacted(&loaded.settings);
        add_defaults(&mut root, "/properties/store", &json!({ "redis": dump["store"]["redis"] }));
    }
    // A `Value` always serialises.
    format!("{}\n", serde_json::to_string_pretty(&sort(root)).unwrap_or_default())
}

/// A whole schema.
pub(crate) struct Schema {
    root: Value,
}

/// One alternative of what may stand at a place.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'s> {
    schema: &'s Schema,
    node: &'s Value,
}

impl Schema {
    /// The schema of a config file.
    pub(crate) fn of_config() -> Self {
        Self::of::<Config>("Refrain configuration")
    }

    /// The schema of a file of API keys.
    pub(crate) fn of_keys_file() -> Self {
        Self::of::<KeysFile>("API keys of Refrain")
    }

    fn of<T: JsonSchema>(title: &str) -> Self {
        let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
        let mut root = without_null(schema.to_value());
        root["title"] = json!(title);
        Self { root }
    }

    /// What the document itself may be.
    pub(crate) fn shapes(&self) -> Vec<Shape<'_>> {
        Shape { schema: self, node: &self.root }.alternatives()
    }
}

impl<'s> Shape<'s> {
    /// What may stand here, with references and unions resolved.
    fn alternatives(self) -> Vec<Self> {
        let of = |node| Shape { schema: self.schema, node };
        if let Some(target) = self.node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            return self.schema.root.pointer(target).map(|node| of(node).alternatives()).unwrap_or_default();
        }
        match self.node["anyOf"].as_array().or_else(|| self.node["oneOf"].as_array()) {
            Some(union) => union.iter().flat_map(|node| of(node).alternatives()).collect(),
            None => vec![self],
        }
    }

    fn below(self, node: Option<&'s Value>) -> Vec<Self> {
        node.map(|node| Shape { schema: self.schema, node }.alternatives()).unwrap_or_default()
    }

    /// The type's name in JSON schema.
    pub(crate) fn kind(self) -> &'s str {
        self.node["type"].as_str().unwrap_or_default()
    }

    /// What a key of a table may hold, if the key is known; every key is, where names are the user's.
    pub(crate) fn property(self, key: &str) -> Vec<Self> {
        let named = self.node["properties"].get(key);
        self.below(named.or_else(|| Some(&self.node["additionalProperties"]).filter(|node| node.is_object())))
    }

    /// The known keys of a table.
    pub(crate) fn property_names(self) -> impl Iterator<Item = &'s str> {
        self.node["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// Keys that a table must have.
    pub(crate) fn required(self) -> impl Iterator<Item = &'s str> {
        self.node["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it is one way of a choice: a table of exactly one, required key.
    pub(crate) fn is_tagged(self) -> bool {
        self.kind() == "object" && self.required().count() == 1 && self.property_names().eq(self.required())
    }

    /// Whether a table's keys are none of ours.
    pub(crate) fn is_free(self) -> bool {
        self.node["additionalProperties"] == true
    }

    /// What an array's items may be.
    pub(crate) fn items(self) -> Vec<Self> {
        self.below(self.node.get("items"))
    }

    /// The words that a string is chosen from; none: any.
    pub(crate) fn words(self) -> Option<Vec<&'s str>> {
        match (self.node.get("const"), &self.node["enum"]) {
            (Some(word), _) => Some(word.as_str().into_iter().collect()),
            (None, Value::Array(words)) => Some(words.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }

    /// The form of a string.
    pub(crate) fn format(self) -> Option<&'s str> {
        self.node["format"].as_str()
    }

    /// A string that would do.
    pub(crate) fn example(self) -> Option<&'s str> {
        self.node["examples"][0].as_str()
    }

    /// The smallest and the largest number.
    pub(crate) fn range(self) -> (Option<f64>, Option<f64>) {
        (self.node["minimum"].as_f64(), self.node["maximum"].as_f64())
    }
}

/// Writes the values of a dump as defaults into the schema at a JSON pointer.
fn add_defaults(root: &mut Value, pointer: &str, dump: &Value) {
    let Some(node) = root.pointer(pointer) else { return };
    if let Some(target) = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        let target = target.to_owned();
        return add_defaults(root, &target, dump);
    }
    if node["anyOf"].is_array() {
        // A switch: its table is the second alternative.
        return add_defaults(root, &format!("{pointer}/anyOf/1"), dump);
    }
    let required: Vec<Value> = node["required"].as_array().cloned().unwrap_or_default();
    for (key, value) in dump.as_object().into_iter().flatten() {
        let named = format!("{pointer}/properties/{key}");
        if root.pointer(&named).is_none() {
            add_defaults(root, &format!("{pointer}/additionalProperties"), value);
        } else if value.is_object() || ["endpoint", "discover"].contains(&key.as_str()) {
            let item = value.get(0);
            let below = if item.is_some() { format!("{named}/items") } else { named };
            add_defaults(root, &below, item.unwrap_or(value));
        } else if !NOT_FIXED.contains(&key.as_str())
            && !required.contains(&json!(key))
            && let Some(property) = root.pointer_mut(&named)
        {
            property["default"] = value.clone();
        }
    }
}

/// TOML has no null: an optional key is left out.
fn without_null(value: Value) -> Value {
    let is_null = |node: &Value| node["type"] == "null";
    match value {
        Value::Object(map) => {
            let mut map: Map<String, Value> = map
                .into_iter()
                .filter(|(key, value)| !(key == "default" && value.is_null()))
                .map(|(key, value)| (key, without_null(value)))
                .collect();
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    map.insert("type".to_owned(), single);
                }
            }
            if let Some(Value::Array(union)) = map.get_mut("anyOf") {
                union.retain(|node| !is_null(node));
                if let [Value::Object(single)] = union.as_slice() {
                    let single = single.clone();
                    map.remove("anyOf");
                    map.extend(single);
                }
            }
            Value::Object(map)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_null).collect()),
        other => other,
    }
}

/// Sorted keys, whatever map `serde_json` was built with.
pub(crate) fn sort(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sort(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sort).collect()),
        other => other,
    }
}
