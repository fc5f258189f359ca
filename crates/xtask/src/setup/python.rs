//! The developer's Python and its pip, used only to fetch packages and to convert the model; no virtual environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::site::Site;
use crate::command;

/// Names another Python.
const PYTHON_ENV: &str = "REFRAIN_PYTHON";
/// The pinned packages have wheels for these.
const VERSIONS: std::ops::RangeInclusive<(u32, u32)> = (3, 11)..=(3, 14);

pub(super) struct Python {
    pub(super) executable: PathBuf,
    pub(super) version: (u32, u32),
}

impl Python {
    /// `$REFRAIN_PYTHON`, else `python3`.
    pub(super) fn find() -> Result<Self> {
        let program = std::env::var_os(PYTHON_ENV).unwrap_or_else(|| "python3".into());
        let script = "import sys; print(*sys.version_info[:2]); print(sys.executable)";
        let answer = command::stdout(Command::new(&program).args(["-c", script])).with_context(|| {
            format!("Python 3.11 to 3.14 is needed: install it or name it in {PYTHON_ENV}")
        })?;
        let python = Self::parse(&answer).with_context(|| format!("odd answer of {program:?}: {answer}"))?;
        if !VERSIONS.contains(&python.version) {
            let (major, minor) = python.version;
            bail!(
                "Python 3.11 to 3.14 is needed, {program:?} is {major}.{minor}: name another in {PYTHON_ENV}"
            );
        }
        Ok(python)
    }

    fn parse(answer: &str) -> Option<Self> {
        let (version, executable) = answer.trim_end().split_once('\n')?;
        let (major, minor) = version.split_once(' ')?;
        Some(Self { executable: executable.into(), version: (major.parse().ok()?, minor.parse().ok()?) })
    }

    /// A Python process that sees the packages of one folder and leaves no byte code.
    pub(super) fn command(&self, packages: &Path) -> Command {
        let mut command = Command::new(&self.executable);
        command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
        command
    }
}

impl Site {
    /// Installs the packages of a requirements file, which states every version and hash, into a folder of their own.
    pub(super) fn pip_install(&self, requirements: &str, target: &Path) -> Result<()> {
        self.pip(&[], requirements, target)
    }

    /// The same with the wheels for another Python: for packages that hold programs and no Python.
    pub(super) fn pip_install_for(&self, version: &str, requirements: &str, target: &Path) -> Result<()> {
        self.pip(&["--python-version", version], requirements, target)
    }

    fn pip(&self, options: &[&str], requirements: &str, target: &Path) -> Result<()> {
        let file = target.join("requirements.txt");
        fs::write(&file, requirements).with_context(|| format!("can't write {}", file.display()))?;
        let mut pip = Command::new(&self.python.executable);
        pip.args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--no-cache-dir", "--no-compile", "--no-input", "--disable-pip-version-check"])
            .args(options)
            .args(["--progress-bar=off", "--target"])
            .arg(target)
            .arg("--requirement")
            .arg(file)
            // Both would forbid --target, which touches neither.
            .env("PIP_USER", "0")
            .env("PIP_REQUIRE_VIRTUALENV", "0");
        command::logged(&mut pip, &self.log())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_states_its_version_and_hash() {
        let files = ["model", "llm", "clients", "plugins", "redis"];
        let texts = files.map(|file| fs::read_to_string(format!("python/{file}.txt")).unwrap());
        for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
            let (package, hash) =
                (line.contains("==") && line.ends_with('\\'), line.contains("--hash=sha256:"));
            assert!(package || hash, "{line}");
        }
    }

    #[test]
    fn version_and_executable_are_read() {
        let python = Python::parse("3 11\n/usr/bin/python 3\n").unwrap();
        assert_eq!(python.version, (3, 11));
        assert_eq!(python.executable, Path::new("/usr/bin/python 3"));
        assert!(Python::parse("").is_none());
    }
}
