//! Licenses and sources of everything that Refrain is built from.

use spdx::{Expression, LicenseReq, ParseMode};

use super::metadata::{Metadata, Package};
use crate::workspace;

/// Permissive licenses whose terms a binary distribution with the license texts fulfils.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// Packages accepted in spite of their license expression: name, expression, reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// One line a package with a license or a source that is not allowed.
pub(super) fn violations(everything: &Metadata) -> Vec<String> {
    everything.packages.iter().flat_map(|package| [license(package), source(package)]).flatten().collect()
}

fn license(package: &Package) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    let Some(text) = package.license.as_deref() else {
        return Some(format!("{named} states no license"));
    };
    if EXCEPTIONS.iter().any(|(name, license, _)| (*name, *license) == (package.name.as_str(), text)) {
        return None;
    }
    match Expression::parse_mode(text, ParseMode::LAX) {
        Err(error) => Some(format!("{named}: `{text}` is no license expression: {}", error.reason)),
        Ok(expression) if !expression.evaluate(is_allowed) => {
            Some(format!("{named}: license `{text}` is not allowed (list in lint/dependencies.rs)"))
        }
        Ok(_) => None,
    }
}

fn is_allowed(required: &LicenseReq) -> bool {
    ALLOWED.contains(&required.to_string().as_str())
}

/// The default registry and folders of this repository; cargo checks the registry's hashes against Cargo.lock.
fn source(package: &Package) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    if let Some(registry) = package.dependencies.iter().find_map(|dependency| dependency.registry.as_ref()) {
        return Some(format!("{named} takes dependencies from another registry: {registry}"));
    }
    match &package.source {
        Some(source) if source.starts_with("registry+") => None,
        Some(source) => Some(format!("{named} comes from {source}: only the default registry is allowed")),
        None if package.manifest_path.starts_with(workspace::root()) => None,
        None => Some(format!("{named} is outside of the repository: {}", package.manifest_path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Dependency;
    use super::*;

    fn package(license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: "other".into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
            manifest_path: "/elsewhere/Cargo.toml".into(),
            dependencies: vec![],
        }
    }

    fn check(license: Option<&str>, source: Option<&str>, expected: usize) {
        let found = violations(&Metadata { packages: vec![package(license, source)] });
        assert_eq!(found.len(), expected, "{license:?} {source:?}: {found:?}");
    }

    #[test]
    fn permissive_licenses_pass_and_others_do_not() {
        let registry = Some("registry+index");
        for license in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "ISC AND (MIT OR Apache-2.0)"] {
            check(Some(license), registry, 0);
        }
        for license in
            ["GPL-3.0-only", "MIT AND MPL-2.0", "Apache-2.0 WITH Classpath-exception-2.0", "no such"]
        {
            check(Some(license), registry, 1);
        }
        check(None, registry, 1);
    }

    #[test]
    fn only_the_default_registry_and_own_folders_pass() {
        check(Some("MIT"), Some("git+ssh://host/repo"), 1);
        check(Some("MIT"), None, 1);
        let own = Package { manifest_path: workspace::root().join("crates/x"), ..package(Some("MIT"), None) };
        assert!(source(&own).is_none());
        let dependency =
            Dependency { name: "x".into(), registry: Some("other".into()), kind: Default::default() };
        let foreign = Package { dependencies: vec![dependency], ..own };
        assert!(source(&foreign).is_some());
    }
}
