use refrain_config::Source;
use refrain_core::settings::{ApiKey, KeyKind};

use super::*;
use crate::cli::{KeyPlace, Operator};

fn arguments(tenant: &str, kind: Kind) -> NewKeyArguments {
    let tenant = Some(tenant.into());
    NewKeyArguments { tenant, operator: None, kind, user: None, name: None, expires: None, file: None }
}

/// The keys of a config file with these lines.
fn keys(lines: &str) -> Vec<ApiKey> {
    let text = format!(
        "[listener.main]\naddress = \"127.0.0.1:0\"\n\
         [pool.p]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.r]\npool = \"p\"\n{lines}"
    );
    refrain_config::load(&Source::from_text("refrain.toml", text, [])).unwrap().settings.keys
}

fn key_in(printed: &str) -> String {
    printed.lines().find(|line| line.starts_with(PREFIX)).unwrap().to_owned()
}

/// The key and its settings, as the config crate reads what was printed.
fn made(tenant: &str, kind: Kind) -> (String, ApiKey) {
    let printed = new(&arguments(tenant, kind)).unwrap();
    (key_in(&printed), keys(&printed[printed.find("[key.").unwrap()..]).remove(0))
}

#[test]
fn a_new_key_is_read_back_by_config_and_matches_its_hash_alone() {
    let (key, settings) = made("ac\"me\\", Kind::Personal);
    assert_eq!((key.len(), settings.tenant.as_str()), (PREFIX.len() + 43, "ac\"me\\"));
    assert_eq!((settings.kind, settings.id.as_str()), (KeyKind::Personal, "ac-me"));
    assert_eq!(refrain_proxy::hash_key(settings.hash.salt, &key), settings.hash);
    assert!(settings.created.is_some_and(|created| created <= SystemTime::now()));
    let (other, _) = made("acme", Kind::Personal);
    assert_ne!(refrain_proxy::hash_key(settings.hash.salt, &other), settings.hash);
}

#[test]
fn a_service_key_has_no_user() {
    let (_, settings) = made("Acme", Kind::Service);
    assert_eq!((settings.kind, settings.user, settings.id.as_str()), (KeyKind::Service, None, "acme"));
}

#[test]
fn a_token_for_operators_is_read_back_by_config() {
    let operator = Some(Operator::Read);
    let printed = new(&NewKeyArguments { tenant: None, operator, ..arguments("", Kind::Personal) }).unwrap();
    let block = &printed[printed.find("[admin.").unwrap()..];
    let text = format!("[pool.p]\nendpoints = [\"http://a\"]\n[route.r]\npool = \"p\"\n{block}");
    let settings = refrain_config::load(&Source::from_text("refrain.toml", text, [])).unwrap().settings;
    let token = settings.admin.unwrap().tokens.remove(0);
    let key = printed.lines().find(|line| line.starts_with(OPERATOR_PREFIX)).unwrap();
    assert!(token.id.as_str() == "read" && refrain_proxy::is_key(&token.hash, key));
}

#[test]
fn a_file_keeps_what_people_wrote_while_keys_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let add = |user: &str| {
        let file = Some(path.clone());
        key_in(
            &new(&NewKeyArguments { user: Some(user.into()), file, ..arguments("acme", Kind::Personal) })
                .unwrap(),
        )
    };
    let (ann, bob, second) = (add("ann"), add("bob"), add("ann"));
    let text =
        std::fs::read_to_string(&path).unwrap().replace("[key.bob]", "# Bob left us.\n[key.bob] # or so");
    std::fs::write(&path, &text).unwrap();
    let all = keys(&text);
    assert_eq!(all.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["ann", "ann-2", "bob"]);
    for (key, secret) in all.iter().zip([&ann, &second, &bob]) {
        assert!(refrain_proxy::is_key(&key.hash, secret) && key.hash.salt == all[0].hash.salt);
        assert!(!text.contains(secret.as_str()));
    }
    let place = KeyPlace { file: Some(path.clone()), config: None };
    let shown = list::page(&place).unwrap();
    assert_eq!(shown.lines().count(), 4);
    assert!(shown.contains("ann-2") && !shown.contains(&ann) && !shown.contains("blake3"), "{shown}");
    revoke(&RevokeKeyArguments { name: "ann".into(), place: place.clone() }).unwrap();
    let left = std::fs::read_to_string(&path).unwrap();
    assert!(
        left.contains("# Bob left us.\n[key.bob] # or so") && left.starts_with("# API keys of Refrain"),
        "{left}"
    );
    assert_eq!(keys(&left).len(), 2);
    assert!(revoke(&RevokeKeyArguments { name: "ann".into(), place }).is_err());
}

#[test]
fn revoking_the_last_key_of_a_config_says_that_none_is_asked_for_then() {
    let dir = tempfile::tempdir().unwrap();
    let revoked = |name: &str, rest: &str| {
        let path = dir.path().join(name);
        let made = new(&NewKeyArguments { file: Some(path.clone()), ..arguments("acme", Kind::Personal) });
        made.unwrap();
        let text = format!("{rest}{}", std::fs::read_to_string(&path).unwrap());
        let key = keys(&text)[0].id.to_string();
        std::fs::write(&path, text).unwrap();
        let place = KeyPlace { file: Some(path), config: None };
        revoke(&RevokeKeyArguments { name: key, place }).unwrap()
    };
    let pool = "[pool.up]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    assert!(revoked("refrain.toml", pool).contains("takes its holder for anybody"));
    assert!(revoked("keys.toml", "").contains("refuses the key within a second"));
}

#[cfg(unix)]
#[test]
fn a_new_file_is_for_its_owner_alone_and_a_link_stays_a_link() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("keys.toml"), dir.path().join("link.toml"));
    let add = |file: &Path| {
        new(&NewKeyArguments { file: Some(file.to_owned()), ..arguments("acme", Kind::Personal) }).unwrap()
    };
    add(&path);
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    symlink(&path, &link).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    add(&link);
    assert!(link.is_symlink() && mode() == 0o640);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn keys_that_are_made_at_one_moment_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let (makers, begin) = (8, std::sync::Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..makers {
            scope.spawn(|| {
                begin.wait();
                new(&NewKeyArguments { file: Some(path.clone()), ..arguments("acme", Kind::Personal) })
                    .unwrap()
            });
        }
    });
    assert_eq!(keys(&std::fs::read_to_string(&path).unwrap()).len(), makers);
}

#[cfg(unix)]
#[test]
fn a_file_stays_its_owners_whoever_changes_it() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let add =
        || new(&NewKeyArguments { file: Some(path.clone()), ..arguments("acme", Kind::Personal) }).unwrap();
    let owner = || std::fs::metadata(&path).map(|file| (file.uid(), file.gid())).unwrap();
    add();
    // Only root can give a file away; for everybody else it is theirs before and after.
    let _ = chown(&path, Some(1), Some(1));
    let before = owner();
    add();
    assert_eq!(owner(), before);
}
