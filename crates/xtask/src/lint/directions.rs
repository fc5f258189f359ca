//! Which crate of ours may use which. Development dependencies are exempt.
//!
//! The order of the table is the order of the layers: a crate uses only crates above itself.

use super::metadata::{Kind, Metadata, Package};

/// Crate -> what it may use.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("refrain-core", &[]),
    ("refrain-llm", &["refrain-core"]),
    ("refrain-config", &["refrain-core"]),
    ("refrain-plugin", &["refrain-core"]),
    ("refrain-cache", &["refrain-core", "refrain-llm"]),
    ("refrain-upstream", &["refrain-core"]),
    (
        "refrain-proxy",
        &["refrain-core", "refrain-llm", "refrain-plugin", "refrain-cache", "refrain-upstream"],
    ),
    (
        "refrain",
        &[
            "refrain-core",
            "refrain-llm",
            "refrain-config",
            "refrain-plugin",
            "refrain-cache",
            "refrain-upstream",
            "refrain-proxy",
        ],
    ),
    ("xtask", &["refrain-config"]),
    (
        "refrain-tests",
        &[
            "refrain-core",
            "refrain-llm",
            "refrain-config",
            "refrain-plugin",
            "refrain-cache",
            "refrain-upstream",
            "refrain-proxy",
            "refrain",
        ],
    ),
];

/// One line a wrong edge or unknown crate.
pub(super) fn violations(workspace: &Metadata) -> Vec<String> {
    workspace.packages.iter().flat_map(|package| violations_of(package, workspace)).collect()
}

fn violations_of(package: &Package, workspace: &Metadata) -> Vec<String> {
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{}: a new crate: say in lint/directions.rs what it may use", package.name)];
    };
    let is_ours = |name: &str| workspace.packages.iter().any(|other| other.name == name);
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != Kind::Dev && is_ours(&dependency.name))
        .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| {
            let allowed = if allowed.is_empty() { "nothing of ours".into() } else { allowed.join(", ") };
            format!("{} uses {}, but may use only: {allowed}", package.name, dependency.name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Dependency;
    use super::*;

    fn package(name: &str, uses: &[(&str, Kind)]) -> Package {
        let dependency =
            |&(name, kind): &(&str, Kind)| Dependency { name: name.into(), registry: None, kind };
        Package {
            name: name.into(),
            version: "0.1.0".into(),
            license: None,
            source: None,
            manifest_path: "Cargo.toml".into(),
            dependencies: uses.iter().map(dependency).collect(),
        }
    }

    fn check(uses: &[(&str, Kind)], expected: &[&str]) {
        let packages =
            vec![package("refrain-core", &[]), package("refrain-cache", &[]), package("refrain-llm", uses)];
        assert_eq!(violations(&Metadata { packages }), expected);
    }

    #[test]
    fn a_crate_uses_only_what_the_table_allows() {
        check(&[("refrain-core", Kind::Normal), ("serde", Kind::Normal)], &[]);
        check(&[("refrain-cache", Kind::Dev)], &[]);
        let wrong = ["refrain-llm uses refrain-cache, but may use only: refrain-core"];
        check(&[("refrain-cache", Kind::Normal)], &wrong);
        check(&[("refrain-cache", Kind::Build)], &wrong);
    }

    #[test]
    fn a_new_crate_must_enter_the_table() {
        let found = violations(&Metadata { packages: vec![package("refrain-new", &[])] });
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("refrain-new"), "{found:?}");
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (index, (name, uses)) in MAY_USE.iter().enumerate() {
            for used in *uses {
                let place = MAY_USE.iter().position(|(other, _)| other == used);
                assert!(
                    place.is_some_and(|place| place < index),
                    "{name} uses {used}, which is not above it"
                );
            }
        }
    }
}
