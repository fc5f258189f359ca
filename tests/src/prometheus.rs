//! A real Prometheus: scrapes a Refrain, evaluates rules and queries.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::refrain::free_addresses;
use crate::{Ask, Client, Manifest, Refrain, eventually, within_time};

/// A start on a busy machine, and a tool's run.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running Prometheus, killed when dropped.
pub struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes Refrain as job `refrain` and evaluates these files of rules.
    pub async fn start(refrain: &Refrain, rules: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [address] = free_addresses().await;
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 200ms, evaluation_interval: 200ms }}\nrule_files: {rules:?}\n\
             scrape_configs:\n  - job_name: refrain\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
            refrain.admin_address()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(Manifest::load().prometheus())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Self { address, _child: child, _dir: dir };
        let ready = async || {
            let asked = Client::http(address).try_open(&Ask::get("/-/ready")).await;
            asked.ok().filter(|response| response.status == 200).map(drop)
        };
        within_time(DEADLINE, "Prometheus' readiness", eventually("Prometheus' readiness", ready)).await;
        started
    }

    /// What a query gives now.
    ///
    /// # Errors
    /// What Prometheus says is wrong with it.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply =
            Client::http(self.address).send(&Ask::get(&format!("/api/v1/query?query={encoded}"))).await;
        let body = reply.json();
        match body["status"].as_str() {
            Some("success") => Ok(body["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(body["error"].to_string()),
        }
    }

    /// Names of all metrics that it has, those of rules included.
    pub async fn names(&self) -> BTreeSet<String> {
        let reply = Client::http(self.address).send(&Ask::get("/api/v1/label/__name__/values")).await;
        let body = reply.json();
        let names = body["data"].as_array().into_iter().flatten();
        names.filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }

    /// Has promtool look at a scrape.
    ///
    /// # Errors
    /// What it says, if it is not content.
    pub async fn lint(scrape: &Path) -> Result<(), String> {
        let mut command = Command::new(Manifest::load().promtool());
        let stdin = Stdio::from(std::fs::File::open(scrape).unwrap());
        let run = command.args(["check", "metrics"]).stdin(stdin).kill_on_drop(true).output();
        let output = within_time(DEADLINE, "promtool", run).await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Runs promtool in a folder.
    ///
    /// # Errors
    /// What it says, if it is not content.
    pub async fn tool(dir: &Path, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(Manifest::load().promtool());
        let run = command.args(arguments).current_dir(dir).kill_on_drop(true).output();
        let output = within_time(DEADLINE, "promtool", run).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
    }
}
