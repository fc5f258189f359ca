//! The files that Refrain ships: the commented default, the examples and the schema.

use std::fs;
use std::path::{Path, PathBuf};

use refrain_config::{Loaded, Source, for_upstream, load, redacted, schema_json};
use refrain_core::settings::Store;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

fn load_file(file: &Path) -> Loaded {
    let environment = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("OPEN_WEBUI_JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("RUNPOD_API_KEY", "x"),
        ("VAST_API_KEY", "x"),
        ("VLLM_AUTHORIZATION", "Bearer x"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let source = Source::read(file, environment).unwrap();
    load(&source).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_written_schema_is_the_generated_one() {
    let written = fs::read_to_string(folder().join("refrain.schema.json")).unwrap();
    assert!(written == schema_json(), "run `cargo xtask schema`");
}

#[test]
fn every_example_loads_without_a_warning() {
    let mut count = 0;
    let paths = fs::read_dir(folder().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let loaded = load_file(&path);
        assert_eq!(loaded.warnings, []);
        count += 1;
    }
    assert!(count >= 4, "examples are missing");
}

#[test]
fn the_commented_default_is_the_default() {
    let loaded = load_file(&folder().join("refrain.toml"));
    assert_eq!(loaded.warnings, []);
    let bare = "[pool.ollama]\nkind = \"ollama\"\nendpoints = [\"http://127.0.0.1:11434\"]\n\
                [route.chat]\npool = \"ollama\"";
    let bare = load(&Source::from_text("bare.toml", bare, [])).unwrap();
    assert_eq!(redacted(&loaded.settings), redacted(&bare.settings));
}

/// Un-comments every option, so that the forms shown in comments are right too.
#[test]
fn every_commented_option_of_the_default_loads() {
    let text = fs::read_to_string(folder().join("refrain.toml")).unwrap();
    let shown: String = text.lines().map(|line| uncomment(line).to_owned() + "\n").collect();
    let (before, rest) = shown.split_once("secret_file = ").unwrap();
    let (_redis, after) = rest.split_once("\n# --- ").unwrap();
    let loaded = load_shown(&format!("{before}\n#{after}"));
    assert_eq!(loaded.settings.keys.len(), 1);
    assert!(loaded.settings.embedder.is_some() && loaded.settings.routes[0].cache.semantic.is_some());
    assert!(loaded.settings.listeners[0].tls.is_some());
    assert_eq!((loaded.settings.plugins.len(), loaded.settings.routes[0].plugins.len()), (1, 1));
    let pool = loaded.settings.pools.values().next().unwrap();
    assert_eq!((pool.endpoints.len(), pool.discover.len()), (2, 6));
}

#[test]
fn every_commented_option_of_redis_loads() {
    let text = fs::read_to_string(folder().join("refrain.toml")).unwrap();
    let shown: String = text.lines().map(|line| uncomment(line).to_owned() + "\n").collect();
    let shown = shown.replace("kind = \"embedded\"", "kind = \"redis\"").replace("disk = ", "# disk = ");
    let shown = shown.replace("when_locked = ", "# when_locked = ");
    let loaded = load_shown(&shown);
    let Store::Redis(store) = loaded.settings.store else { panic!("redis") };
    assert!(store.credentials.password.is_some() && store.tls.unwrap().client.is_some());
}

fn load_shown(text: &str) -> Loaded {
    let environment = [
        "GPU_B_AUTHORIZATION",
        "OTLP_AUTHORIZATION",
        "POOL_AUTHORIZATION",
        "POOL_API_KEY",
        "REDIS_PASSWORD",
        "VAST_API_KEY",
        "RUNPOD_API_KEY",
    ];
    let environment = environment.map(|name| (name.to_owned(), "x".to_owned()));
    load(&Source::from_text("refrain.toml", text, environment)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A line whose comment is an option or a table.
fn uncomment(line: &str) -> &str {
    let Some(option) = line.strip_prefix("# ") else { return line };
    let key = option.split(" = ").next().unwrap_or_default();
    let is_key = option.contains(" = ")
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"\"-_.".contains(&byte));
    // Need what the active lines don't have: a repeated request, another balance, keys, another pool.
    let is_conditional = ["regenerate_window", "hash_by", "fallback"].contains(&key);
    let is_option = (is_key && !is_conditional) || option.starts_with('[');
    if is_option { option } else { line }
}

#[test]
fn every_option_is_in_the_commented_default() {
    let text = fs::read_to_string(folder().join("refrain.toml")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    let mut properties = Vec::new();
    collect_properties(&schema, &mut properties);
    assert!(properties.len() > 70, "the schema has {} properties", properties.len());
    for property in properties {
        assert!(text.contains(&property), "{property} is missing in config/refrain.toml");
    }
}

fn collect_properties(schema: &serde_json::Value, into: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        into.extend(properties.keys().cloned());
    }
    for below in schema.as_object().into_iter().flat_map(|map| map.values()) {
        collect_properties(below, into);
    }
    for below in schema.as_array().into_iter().flatten() {
        collect_properties(below, into);
    }
}

#[test]
fn every_property_of_the_schema_is_described() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let tagged = definition["oneOf"].is_array();
            assert!(tagged || property["description"].is_string(), "{name}.{key}");
        }
    }
}

/// Descriptions say `Default 8.` for people; the `default` beside it comes from the settings themselves.
#[test]
fn every_default_in_a_description_is_the_real_one() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    let mut count = 0;
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let description = property["description"].as_str().unwrap_or_default();
            let Some((_, said)) = description.split_once("Default ") else { continue };
            if property["default"].is_null() {
                let depends = ["allow_anonymous", "anonymous_role", "cache", "regenerate"];
                assert!(depends.contains(&key.as_str()), "{name}.{key} has no default");
                continue;
            }
            assert!(said.starts_with(&property["default"].to_string()), "{name}.{key}: {description}");
            count += 1;
        }
    }
    assert!(count > 30, "only {count} defaults are compared");
}

#[test]
fn an_upstream_alone_is_a_whole_configuration() {
    let settings = for_upstream("http://127.0.0.1:11434", None).unwrap();
    let text = "[pool.upstream]\nkind = \"ollama\"\nendpoints = [\"http://127.0.0.1:11434\"]\n\
                [route.all]\npool = \"upstream\"";
    let same = load(&Source::from_text("same.toml", text, [])).unwrap().settings;
    assert_eq!(redacted(&settings), redacted(&same));
    let error = for_upstream("http://gpu:8000", Some("0.0.0.0:80".parse().unwrap())).unwrap_err();
    assert!(error.to_string().starts_with("--listen: 0.0.0.0:80 can be reached"), "{error}");
    let error = for_upstream("gpu", None).unwrap_err();
    assert!(error.to_string().starts_with("--upstream: not a URL"), "{error}");
}

#[test]
fn a_file_that_is_missing_is_told() {
    let error = Source::read("/nowhere/refrain.toml", []).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/refrain.toml: can't read it: "), "{error}");
}
