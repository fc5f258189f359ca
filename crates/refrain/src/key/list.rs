//! `refrain key list`: who has keys. Shows no key, and of a hash only what tells two apart.

use std::path::PathBuf;

use toml_edit::Item;

use super::file::{KeysFile, text};
use crate::cli::KeyPlace;
use crate::columns::columns;

/// Last characters of a digest that are shown.
const DIGEST_SHOWN: usize = 8;

/// The table, for people.
///
/// # Errors
/// A file can't be read.
pub(super) fn page(place: &KeyPlace) -> anyhow::Result<String> {
    let head = ["NAME", "TENANT", "KIND", "USER", "ROLE", "CREATED", "EXPIRES", "DIGEST"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for path in files(place)? {
        let file = KeysFile::open(&path)?;
        rows.extend(file.keys().map(|(name, key)| row(name, key)));
    }
    if rows.len() == 1 {
        return Ok("There are no keys; `refrain key new` makes one.\n".to_owned());
    }
    Ok(columns(&rows))
}

/// The files that may have keys.
///
/// # Errors
/// The config file can't be read.
pub(super) fn files(place: &KeyPlace) -> anyhow::Result<Vec<PathBuf>> {
    let KeyPlace { file, config } = place;
    let mut files: Vec<PathBuf> = file.iter().chain(config).cloned().collect();
    if let Some(config) = config {
        files.extend(KeysFile::open(config)?.keys_file());
    }
    Ok(files)
}

fn row(name: &str, key: &Item) -> Vec<String> {
    let kind = text(key, "kind");
    let user = match (text(key, "user"), kind) {
        ("", "personal") => name,
        ("", _) => "-",
        (user, _) => user,
    };
    let or =
        |value: &str, otherwise: &str| if value.is_empty() { otherwise.to_owned() } else { value.to_owned() };
    let hash = text(key, "hash");
    let digest = hash.len().checked_sub(DIGEST_SHOWN).and_then(|from| hash.get(from..)).unwrap_or_default();
    vec![
        name.to_owned(),
        text(key, "tenant").to_owned(),
        kind.to_owned(),
        user.to_owned(),
        or(text(key, "role"), "caller"),
        or(text(key, "created"), "-"),
        or(text(key, "expires"), "never"),
        format!("..{digest}"),
    ]
}
