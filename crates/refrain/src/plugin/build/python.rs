//! Python: the module `app`, with CPython.

use std::path::Path;

use anyhow::Result;

use super::tool::Tool;
use super::{Project, Steps, WORLD};

const MODULE: &str = "app";

pub(super) fn build(project: &Project, component: &Path) -> Result<()> {
    let mut tool = Tool::ComponentizePy.command()?;
    tool.current_dir(&project.dir)
        .args([
            "--wit-path",
            "wit",
            "--world",
            WORLD,
            "componentize",
            "--stub-wasi",
            "--python-path",
            ".",
            MODULE,
        ])
        .arg("--output")
        .arg(component)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Steps::of(1).run("componentize-py (about ten seconds)", &mut tool)
}
