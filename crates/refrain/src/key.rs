//! Makes API keys. The key is printed once; config holds its salted hash only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use refrain_core::settings::KeyHash;
use zeroize::Zeroizing;

use crate::cli::{Kind, NewKeyArguments};

/// What every key begins with, so that scanners for leaked secrets can find them.
const PREFIX: &str = "rfn_";

/// A new key, and the block of the config file that admits it, for the terminal.
pub(crate) fn new(arguments: &NewKeyArguments) -> String {
    let key = random_key();
    let block = block(arguments, &refrain_proxy::hash_key(rand::random(), &key));
    format!(
        "# The key, for its owner. It is shown this once and stored nowhere:\n{}\n\n\
         # For the config file:\n{block}",
        *key
    )
}

fn random_key() -> Zeroizing<String> {
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
    Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn block(arguments: &NewKeyArguments, hash: &KeyHash) -> String {
    let NewKeyArguments { tenant, kind, name } = arguments;
    let name = name.clone().unwrap_or_else(|| name_of(tenant));
    let tenant = toml::Value::from(tenant.as_str());
    format!(
        "[key.{name}]\ntenant = {tenant}\nkind = \"{}\"\nhash = \"blake3:{}:{}\"\n{}",
        kind.as_str(),
        refrain_core::hex(&hash.salt),
        refrain_core::hex(&hash.digest),
        hint(*kind)
    )
}

/// A name that TOML takes without quotes.
fn name_of(tenant: &str) -> String {
    let dashed =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = tenant.chars().map(dashed).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "key".to_owned() } else { name.to_owned() }
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Personal => "# user = \"...\"    # the person, if not named like the key\n",
        Kind::Service => {
            "# It has no user of its own: its routes cache with scope = \"tenant\" or wider only.\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use refrain_config::Source;
    use refrain_core::settings::KeyKind;

    use super::*;

    /// The key and its settings, as the config crate reads what was printed.
    fn made(tenant: &str, kind: Kind) -> (String, refrain_core::settings::ApiKey) {
        let printed = new(&NewKeyArguments { tenant: tenant.into(), kind, name: None });
        let key = printed.lines().find(|line| line.starts_with(PREFIX)).unwrap().to_owned();
        let block = &printed[printed.find("[key.").unwrap()..];
        let text = format!(
            "[listener.main]\naddress = \"127.0.0.1:0\"\n\
             [pool.p]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.r]\npool = \"p\"\n{block}"
        );
        let loaded = refrain_config::load(&Source::from_text("refrain.toml", text, [])).unwrap();
        (key, loaded.settings.keys[0].clone())
    }

    #[test]
    fn a_new_key_is_read_back_by_config_and_matches_its_hash_alone() {
        let (key, settings) = made("ac\"me\\", Kind::Personal);
        assert_eq!((key.len(), settings.tenant.as_str()), (PREFIX.len() + 43, "ac\"me\\"));
        assert_eq!((settings.kind, settings.id.as_str()), (KeyKind::Personal, "ac-me"));
        assert_eq!(refrain_proxy::hash_key(settings.hash.salt, &key), settings.hash);
        let (other, _) = made("acme", Kind::Personal);
        assert_ne!(refrain_proxy::hash_key(settings.hash.salt, &other), settings.hash);
    }

    #[test]
    fn a_service_key_has_no_user() {
        let (_, settings) = made("Acme", Kind::Service);
        assert_eq!((settings.kind, settings.user, settings.id.as_str()), (KeyKind::Service, None, "acme"));
    }
}
