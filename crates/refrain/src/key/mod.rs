//! `refrain key`: makes, shows and revokes API keys. A key is printed once; files hold its salted hash only.

mod file;
mod list;

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use refrain_core::settings::KeyHash;
use zeroize::Zeroizing;

use crate::cli::{KeyCommand, Kind, NewKeyArguments, RevokeKeyArguments};
use file::KeysFile;

/// What every key begins with, so that scanners for leaked secrets can find them.
const PREFIX: &str = "rfn_";

/// The same of tokens for operators.
const OPERATOR_PREFIX: &str = "rfnop_";

/// Does it, and gives what to print.
///
/// # Errors
/// A file can't be read or written, or has no such key.
pub(crate) fn run(command: &KeyCommand) -> anyhow::Result<String> {
    match command {
        KeyCommand::New(arguments) => new(arguments),
        KeyCommand::List(place) => list::page(place),
        KeyCommand::Revoke(arguments) => revoke(arguments),
    }
}

/// A new key, and the block of the config file that admits it, for the terminal; or the key alone, if the block went into a
/// file.
fn new(arguments: &NewKeyArguments) -> anyhow::Result<String> {
    if let Some(file) = &arguments.file {
        return new_in_file(arguments, file);
    }
    let key = random_key(if arguments.operator.is_some() { OPERATOR_PREFIX } else { PREFIX });
    let name = arguments.name.clone().unwrap_or_else(|| default_name(arguments));
    let block = block(arguments, &name, &refrain_proxy::hash_key(rand::random(), &key));
    Ok(format!("{}\n# For the config file:\n{block}", shown(&key)))
}

fn new_in_file(arguments: &NewKeyArguments, path: &Path) -> anyhow::Result<String> {
    let mut file = KeysFile::open_or_new(path)?;
    let name = match &arguments.name {
        Some(name) if file.has(name) => bail!("{} has a key {name:?}; take another --name", path.display()),
        Some(name) => name.clone(),
        None => file.free_name(&default_name(arguments)),
    };
    let key = random_key(PREFIX);
    let salt = file.salt().unwrap_or_else(rand::random);
    file.add(&block(arguments, &name, &refrain_proxy::hash_key(salt, &key)))?;
    file.save()?;
    Ok(format!("{}\n# {name:?} was added to {}.\n", shown(&key), path.display()))
}

fn revoke(arguments: &RevokeKeyArguments) -> anyhow::Result<String> {
    let RevokeKeyArguments { name, place } = arguments;
    for path in list::files(place)? {
        let mut file = KeysFile::open(&path)?;
        if file.remove(name) {
            file.save()?;
            let then = if file.asks_for_no_key() {
                "it was the last: a config without keys and without a keys_file looks at none, and takes its holder for anybody"
            } else {
                "a refrain that runs with it refuses the key within a second"
            };
            return Ok(format!("{name:?} was removed from {}; {then}.\n", path.display()));
        }
    }
    bail!("there is no key {name:?}; `refrain key list` shows those that there are")
}

fn shown(key: &str) -> String {
    format!("# The key, for its owner. It is shown this once and stored nowhere:\n{key}\n")
}

fn random_key(prefix: &str) -> Zeroizing<String> {
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
    Zeroizing::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn block(arguments: &NewKeyArguments, name: &str, hash: &KeyHash) -> String {
    let NewKeyArguments { tenant, kind, user, expires, operator, name: _, file: _ } = arguments;
    let hash = format!("\"blake3:{}:{}\"", refrain_core::hex(&hash.salt), refrain_core::hex(&hash.digest));
    if let Some(operator) = operator {
        return format!("[admin.token.{name}]\nrole = \"{}\"\nhash = {hash}\n", operator.as_str());
    }
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut block = format!(
        "[key.{name}]\ntenant = {}\nkind = \"{}\"\n",
        text(tenant.as_deref().unwrap_or_default()),
        kind.as_str()
    );
    if let Some(user) = user {
        block += &format!("user = {}\n", text(user));
    }
    block += &format!("created = \"{}\"\n", moment(SystemTime::now()));
    if let Some(expires) = expires {
        block += &format!("expires = \"{}\"\n", moment(*expires));
    }
    block + &format!("hash = {hash}\n") + hint(*kind, user.as_deref())
}

/// To the second.
fn moment(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// A name that TOML takes without quotes.
fn default_name(arguments: &NewKeyArguments) -> String {
    let NewKeyArguments { tenant, user, operator, .. } = arguments;
    let from = match operator {
        Some(operator) => operator.as_str(),
        None => user.as_deref().or(tenant.as_deref()).unwrap_or_default(),
    };
    let dashed =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = from.chars().map(dashed).take(48).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "key".to_owned() } else { name.to_owned() }
}

fn hint(kind: Kind, user: Option<&str>) -> &'static str {
    match (kind, user) {
        (Kind::Personal, None) => "# user = \"...\"    # the person, if not named like the key\n",
        (Kind::Personal, Some(_)) => "",
        (Kind::Service, _) => {
            "# It has no user of its own: say user_from, or its routes cache with scope = \"tenant\" or wider only.\n"
        }
    }
}

#[cfg(test)]
mod tests;
