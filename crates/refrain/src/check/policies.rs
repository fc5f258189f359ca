//! Whether the policies of each route load, and take their config.

use std::sync::Arc;
use std::time::Instant;

use refrain_core::Settings;
use refrain_core::settings::{self, Route};
use refrain_plugin::PluginHost;

use super::{Failed, Finding, Well};

/// One finding a route that has policies.
pub(super) async fn all(configured: &Settings) -> Vec<Finding> {
    let mut routes = configured.routes.iter().filter(|route| !route.plugins.is_empty()).peekable();
    if routes.peek().is_none() {
        return Vec::new();
    }
    // Compiled code is kept nowhere: a check changes nothing, and may be made by another user than the one who serves.
    let host = settings::PluginHost { code_dir: None, ..configured.plugin_host.clone() };
    let host = match PluginHost::start(&host) {
        Ok(host) => host,
        Err(error) => {
            let result = Err(Failed { hint: error.to_string() });
            return vec![Finding { name: "plugin_host".to_owned(), what: "start".to_owned(), result }];
        }
    };
    let mut findings = Vec::new();
    for route in routes {
        findings.push(load(&host, route).await);
    }
    findings
}

async fn load(host: &Arc<PluginHost>, route: &Route) -> Finding {
    let names: Vec<&str> = route.plugins.iter().map(|on_route| on_route.plugin.id.as_str()).collect();
    let started = Instant::now();
    let result = match host.chain(route).await {
        Ok(_) => Ok(Well { latency: Some(started.elapsed()), note: String::new() }),
        Err(error) => Err(Failed { hint: error.to_string() }),
    };
    Finding { name: format!("route.{}", route.id), what: format!("load {}", names.join(", ")), result }
}

#[cfg(test)]
mod tests {
    use refrain_config::{Source, load};

    use super::*;

    #[tokio::test]
    async fn a_policy_that_does_not_load_is_a_finding_of_its_route() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.wasm"), "no component").unwrap();
        let text = "[pool.p]\nendpoints = [\"http://a\"]\n[route.r]\npool = \"p\"\nplugins = [\"p\"]\n\
                    [route.none]\npath = \"/none\"\npool = \"p\"\n[plugin.p]\nfile = \"p.wasm\"\n";
        let settings = load(&Source::from_text(dir.path().join("refrain.toml"), text, [])).unwrap().settings;
        let findings = all(&settings).await;
        let [Finding { name, what, result: Err(Failed { hint }) }] = findings.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!((name.as_str(), what.as_str()), ("route.r", "load p"));
        assert!(hint.contains("\"p\""), "{hint}");
    }
}
