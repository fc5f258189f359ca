//! `refrain plugin build`: the folder of a policy becomes a component.
//!
//! The compilers are upstream's own tools, on PATH or named in the environment; nothing is downloaded here but what cargo
//! fetches for a policy in Rust. Whether the host takes the component is `refrain plugin inspect`'s to say.

mod c;
mod javascript;
mod python;
mod rust;
mod steps;
mod tool;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cli::{BuildPluginArguments, Language};
pub(super) use c::{STAMP_FILE as BINDINGS_STAMP, hash as wit_hash};
use steps::Steps;

/// A policy's WIT world has this name in every language.
const WORLD: &str = "policy";

/// Builds it and says where it is.
pub(super) fn build(arguments: &BuildPluginArguments) -> Result<ExitCode> {
    let project = Project::open(&arguments.dir)?;
    let output = match &arguments.output {
        Some(file) => std::path::absolute(file)?,
        None => project.dir.join(format!("{}.wasm", project.name)),
    };
    let bytes = project.build(&output)?;
    writeln!(io::stdout(), "written: {}, {} KiB", output.display(), bytes.div_ceil(1024))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder of a policy.
struct Project {
    /// Absolute.
    dir: PathBuf,
    name: String,
    language: Language,
}

impl Project {
    fn open(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("no folder {}", dir.display()))?;
        let name = dir.file_name().context("a policy needs a folder with a name")?;
        let name = name.to_string_lossy().into_owned();
        let language = detect(&dir)?;
        if !dir.join("wit").is_dir() {
            bail!(
                "{} has no folder wit/ with the interface that the policy is for: `refrain plugin new` writes one",
                dir.display()
            );
        }
        Ok(Self { dir, name, language })
    }

    /// Writes the component, all or nothing, and gives its size.
    fn build(&self, output: &Path) -> Result<u64> {
        let staging = Staging::beside(output)?;
        let component = staging.0.join("component.wasm");
        match self.language {
            Language::Rust => rust::build(self, &component),
            Language::Js => javascript::build(self, &component),
            Language::Python => python::build(self, &component),
            Language::C => c::build(self, &staging.0, &component),
        }?;
        let bytes = fs::metadata(&component).context("the last step left no component")?.len();
        fs::rename(&component, output).with_context(|| format!("can't write {}", output.display()))?;
        Ok(bytes)
    }

    fn wit(&self) -> PathBuf {
        self.dir.join("wit")
    }
}

/// By the file that every project of the language has.
fn detect(dir: &Path) -> Result<Language> {
    let signs = [
        ("Cargo.toml", Language::Rust),
        ("package.json", Language::Js),
        ("pyproject.toml", Language::Python),
        ("app.py", Language::Python),
        ("policy.c", Language::C),
    ];
    let found = signs.iter().find(|(file, _)| dir.join(file).is_file());
    found.map(|(_, language)| *language).with_context(|| {
        format!(
            "{} is no policy's folder: Cargo.toml (Rust), package.json (JavaScript), app.py (Python) or policy.c (C) \
             tells what it is written in; `refrain plugin new` begins one",
            dir.display()
        )
    })
}

/// A folder for what is in the making, on the file system of the result; removed when dropped.
struct Staging(PathBuf);

impl Staging {
    fn beside(output: &Path) -> Result<Self> {
        let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
        let dir = output.with_file_name(format!(".{}.build", name.to_string_lossy()));
        // What an interrupted build left.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
