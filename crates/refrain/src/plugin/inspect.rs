//! `refrain plugin inspect`: what is this component, and what would config say of it?

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use refrain_core::settings::Grant;
use refrain_plugin::{Hooks, Inspection, PluginError, PluginHost};
use serde_json::json;

use super::trial::{self, Trial};
use crate::cli::InspectPluginArguments;
use crate::columns::columns;

/// Prints what it is.
///
/// # Errors
/// It is no component that this version can run.
pub(super) async fn inspect(arguments: &InspectPluginArguments) -> anyhow::Result<ExitCode> {
    let InspectPluginArguments { file, json } = arguments;
    let bytes = trial::read(file)?;
    let host = trial::host()?;
    let inspection = host.inspect(bytes.into()).await?;
    let needs = needs(&host, file).await?;
    crate::print(&if *json { in_json(&inspection, &needs) } else { in_text(file, &inspection, &needs) })
}

/// What a policy wants before it runs, as far as it says so without a config.
struct Needs {
    grants: Vec<Grant>,
    /// Why it doesn't run with an empty config.
    refusal: Option<String>,
}

/// Loads it with no grants, and with each that it asks for, until it asks for none.
async fn needs(host: &Arc<PluginHost>, file: &Path) -> anyhow::Result<Needs> {
    let mut grants: Vec<Grant> = Vec::new();
    loop {
        match host.chain(&Trial::with_grants(&grants).route(file)?).await {
            Ok(_) => return Ok(Needs { grants, refusal: None }),
            Err(PluginError::Grant { grant, .. }) if !grants.contains(&grant) => grants.push(grant),
            Err(PluginError::Config { message, .. }) => return Ok(Needs { grants, refusal: Some(message) }),
            Err(error) => return Err(error.into()),
        }
    }
}

fn hooks(hooks: Hooks) -> Vec<&'static str> {
    let Hooks { validate, store } = hooks;
    let all = [("on-request", true), ("on-candidates", validate), ("on-response", store)];
    all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

fn in_json(inspection: &Inspection, needs: &Needs) -> String {
    let Inspection { sha256, bytes, imports, exports, hooks, compile_time } = inspection;
    let told = json!({
        "sha256": refrain_core::hex(sha256),
        "bytes": bytes,
        "hooks": self::hooks(*hooks),
        "imports": imports,
        "exports": exports,
        "compile_ms": compile_time.as_secs_f64() * 1e3,
        "grants": needs.grants.iter().map(|grant| grant.as_str()).collect::<Vec<_>>(),
        "refuses_empty_config": needs.refusal,
    });
    format!("{told}\n")
}

fn in_text(file: &Path, inspection: &Inspection, needs: &Needs) -> String {
    let Inspection { sha256: _, bytes, imports, exports, hooks, compile_time } = inspection;
    let compiled = match compile_time.as_millis() {
        0 => "kept from before".to_owned(),
        milliseconds => format!("{milliseconds} ms"),
    };
    let mut rows = vec![
        vec!["file".to_owned(), file.display().to_string()],
        vec!["size".to_owned(), format!("{bytes} bytes")],
        vec!["hooks".to_owned(), self::hooks(*hooks).join(", ")],
        vec!["compiled".to_owned(), compiled],
    ];
    rows.extend(list("imports", imports));
    rows.extend(list("exports", exports));
    if let Some(message) = &needs.refusal {
        rows.push(vec!["config".to_owned(), format!("it refuses an empty one: {message}")]);
    }
    format!("{}\n# For the config file:\n{}", columns(&rows), snippet(file, inspection, needs))
}

/// A row an item, the name in front of the first.
fn list(name: &str, items: &[String]) -> Vec<Vec<String>> {
    let row = |(index, item): (usize, &String)| {
        vec![if index == 0 { name.to_owned() } else { String::new() }, item.clone()]
    };
    items.iter().enumerate().map(row).collect()
}

fn snippet(file: &Path, inspection: &Inspection, needs: &Needs) -> String {
    let name = trial::name_of(file);
    let text = |text: String| toml::Value::from(text).to_string();
    let grants: Vec<&str> = needs.grants.iter().map(|grant| grant.as_str()).collect();
    let config = match &needs.refusal {
        Some(_) => "config = {}  # it wants one: see above\n",
        None => "",
    };
    format!(
        "[plugin.{name}]\nfile = {}\nsha256 = \"{}\"\ngrants = {grants:?}\n{config}\n\
         # [route.NAME]\n# plugins = [\"{name}\"]\n",
        text(file.display().to_string()),
        refrain_core::hex(&inspection.sha256),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_block_for_config_loads() {
        let inspection = Inspection {
            sha256: [0xab; 32],
            bytes: 1,
            imports: vec!["a".into(), "b".into()],
            exports: Vec::new(),
            hooks: Hooks { validate: true, store: false },
            compile_time: Duration::ZERO,
        };
        let needs = Needs { grants: vec![Grant::Pool, Grant::State], refusal: None };
        let text = in_text(Path::new("x/tenant \"scope.wasm"), &inspection, &needs);
        let block = text[text.find("[plugin.").unwrap()..].replace("# ", "").replace("NAME", "r");
        let text = format!("[pool.p]\nendpoints = [\"http://a\"]\n{block}pool = \"p\"\n");
        let source = refrain_config::Source::from_text("refrain.toml", text, []);
        let loaded = refrain_config::load(&source).unwrap_or_else(|errors| panic!("{errors}"));
        let plugin = &loaded.settings.routes[0].plugins[0].plugin;
        assert_eq!((plugin.sha256, plugin.grants.len()), (Some([0xab; 32]), 2));
    }
}
