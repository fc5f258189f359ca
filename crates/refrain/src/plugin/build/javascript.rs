//! JavaScript: the module that `package.json` names, with QuickJS.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::tool::Tool;
use super::{Project, Steps, WORLD};

/// Where `package.json` names none.
const MAIN: &str = "policy.js";

pub(super) fn build(project: &Project, component: &Path) -> Result<()> {
    let mut tool = Tool::ComponentizeQjs.command()?;
    tool.current_dir(&project.dir)
        .args(["--wit", "wit", "--world", WORLD, "--stub-wasi", "--sync", "--module-root", "."])
        .arg("--js")
        .arg(main(&project.dir)?)
        .arg("--output")
        .arg(component);
    Steps::of(1).run("componentize-qjs", &mut tool)
}

fn main(dir: &Path) -> Result<String> {
    let file = dir.join("package.json");
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    let package: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    Ok(package["main"].as_str().unwrap_or(MAIN).to_owned())
}
