//! `refrain plugin new`: the folder of a policy that builds, decides something, and has cases that prove it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::build::{BINDINGS_STAMP, wit_hash};
use crate::cli::{Language, NewPluginArguments};

/// The interface as this Refrain speaks it.
const POLICY_WIT: &str = include_str!("../../../../wit/policy-0.1/policy.wit");

/// A file's path in the new folder, and its text with `{{name}}` where the policy's name belongs.
type File = (&'static str, &'static str);

const COMMON: [File; 4] = [
    (".gitignore", include_str!("new/common/gitignore")),
    ("cases.toml", include_str!("new/common/cases.toml")),
    ("wit/world.wit", include_str!("new/common/world.wit")),
    ("wit/deps/refrain-policy/policy.wit", POLICY_WIT),
];
const README: &str = include_str!("new/common/README.md");

const RUST: [File; 2] = [
    ("Cargo.toml", include_str!("new/rust/Cargo.toml")),
    ("src/lib.rs", include_str!("new/rust/src/lib.rs")),
];
const JS: [File; 2] =
    [("package.json", include_str!("new/js/package.json")), ("policy.js", include_str!("new/js/policy.js"))];
const PYTHON: [File; 1] = [("app.py", include_str!("new/python/app.py"))];
const C: [File; 3] = [
    ("policy.c", include_str!("new/c/policy.c")),
    ("bindings/policy.c", include_str!("new/c/bindings/policy.c")),
    ("bindings/policy.h", include_str!("new/c/bindings/policy.h")),
];

/// Writes it into a new folder of the policy's name, and says what comes next.
pub(super) fn new(arguments: &NewPluginArguments) -> Result<ExitCode> {
    let name = &arguments.name;
    write(Path::new(name), name, arguments.lang)?;
    writeln!(
        io::stdout(),
        "written: {name}/\n\nNext:\n  cd {name}\n  refrain plugin build\n  refrain plugin test {name}.wasm cases.toml\n\n\
         README.md says which tools building needs."
    )?;
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Path, name: &str, language: Language) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("can't create {}: choose another name", dir.display()))?;
    let (own, about) = of_language(language);
    let readme = README.replace("{{language}}", about.trim_end());
    for (path, text) in COMMON.iter().chain(own).copied().chain([("README.md", readme.as_str())]) {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap_or(dir))?;
        fs::write(&file, text.replace("{{name}}", name))
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    if language == Language::C {
        // The bindings above are this interface's: a test says so.
        fs::write(dir.join(BINDINGS_STAMP), wit_hash(&dir.join("wit"))? + "\n")?;
    }
    Ok(())
}

/// Its files, and what the README says of it.
fn of_language(language: Language) -> (&'static [File], &'static str) {
    match language {
        Language::Rust => (&RUST, include_str!("new/rust/README.md")),
        Language::Js => (&JS, include_str!("new/js/README.md")),
        Language::Python => (&PYTHON, include_str!("new/python/README.md")),
        Language::C => (&C, include_str!("new/c/README.md")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGUAGES: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

    #[test]
    fn every_language_has_its_code_the_interface_cases_and_a_readme() {
        for language in LANGUAGES {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("my-policy");
            write(&dir, "my-policy", language).unwrap();
            let (own, _) = of_language(language);
            for (path, _) in COMMON.iter().chain(own).chain(&[("README.md", "")]) {
                let text = fs::read_to_string(dir.join(path)).unwrap();
                assert!(!text.contains("{{"), "{path} of {language:?}");
            }
            let world = fs::read_to_string(dir.join("wit/world.wit")).unwrap();
            assert!(world.contains("package local:my-policy;"), "{world}");
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), "my-policy", Language::C).unwrap_err().to_string();
        assert!(error.contains("choose another name"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_c_bindings_are_generated_from_the_interface_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("policy");
        write(&dir, "policy", Language::C).unwrap();
        let generated_from = include_str!("new/c/bindings/wit.blake3").trim_end();
        assert_eq!(
            wit_hash(&dir.join("wit")).unwrap(),
            generated_from,
            "generate new/c/bindings/ anew: `refrain plugin new policy --lang c`, remove its bindings/wit.blake3, `refrain \
             plugin build policy` with wit-bindgen on PATH, and copy bindings/"
        );
    }
}
