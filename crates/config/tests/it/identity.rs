//! Who may ask: mistakes are told where they were made, a file of keys has lines of its own.

use refrain_config::{Source, load};
use refrain_core::settings::{CertificateName, SigningKeys, TokenAlgorithm};

const BASE: &str = "[pool.p]\nendpoints = [\"http://a\"]\n[route.r]\npool = \"p\"\n";

fn hash(digit: u8) -> String {
    format!("blake3:{}:{}", "0".repeat(32), digit.to_string().repeat(64))
}

/// The only problem of a file with these lines.
#[track_caller]
fn refused(lines: &str, told: &str) {
    let errors = load(&Source::from_text("refrain.toml", format!("{BASE}{lines}"), [])).unwrap_err();
    let all = errors.to_string();
    assert!(errors.problems().len() == 1 && all.contains(told), "{lines}: {all}");
}

#[test]
fn a_token_issuer_must_say_whose_its_tokens_are_and_what_verifies_them() {
    let with = |lines: &str| format!("[jwt.j]\nissuer = \"i\"\n{lines}");
    let url = "jwks_url = \"https://a/k\"\n";
    refused(&with(&format!("{url}tenant = \"t\"")), "audience");
    refused(&with(&format!("{url}audience = [\"a\"]")), "say whose its callers are");
    refused(&with("audience = [\"a\"]\ntenant = \"t\""), "one of jwks_url, jwks_file and secret");
    let whole = format!("{url}audience = [\"a\"]\ntenant = \"t\"\n");
    refused(&with(&format!("{whole}algorithms = [\"HS256\"]")), "belong to secret");
    refused(&with(&format!("{whole}algorithms = [\"none\"]")), "none");
    refused(&with(&format!("{whole}secret = {{ value = \"x\" }}")), "one of jwks_url");
    refused(&with(&format!("{whole}tenants = [\"t\"]")), "belongs to tenant_claim");
    refused(&with("header = \"h\"\nsecret = { value = \"short\" }"), "shorter than 32 bytes");
    refused(&with(&format!("{url}audience = [\"a\"]\ntenant = \"anonymous\"")), "take another");
}

#[test]
fn defaults_of_an_issuer_are_the_careful_ones() {
    let text = format!(
        "{BASE}[jwt.j]\nissuer = \"i\"\njwks_url = \"https://a/k\"\naudience = [\"a\"]\ntenant = \"t\"\n"
    );
    let loaded = load(&Source::from_text("refrain.toml", text, [])).unwrap();
    let issuer = &loaded.settings.tokens[0];
    assert!(!issuer.algorithms.contains(&TokenAlgorithm::Hs256) && issuer.algorithms.len() == 9);
    assert_eq!((&*issuer.user_claim, &*issuer.user_prefix), ("sub", "j:"));
    assert!(matches!(&issuer.keys, SigningKeys::Url(url) if url.path == "/k"));
    assert!(!loaded.settings.listeners[0].allow_anonymous, "who asks for tokens wants nobody without one");
}

#[test]
fn names_that_nothing_has_are_told() {
    let key = format!("[key.k]\ntenant = \"t\"\nkind = \"service\"\nhash = \"{}\"\n", hash(1));
    refused(&format!("{key}user_from = \"webui\""), "unknown jwt \"webui\"");
    let issuer = "[jwt.j]\nissuer = \"i\"\njwks_url = \"https://a/k\"\naudience = [\"a\"]\ntenant = \"t\"\n";
    refused(&format!("{key}user_from = \"j\"\n{issuer}"), "say there which header");
    refused("[route.s]\npath = \"/s\"\npool = \"p\"\nauth = [\"jwt\"]", "there is no [jwt.NAME]");
    refused("[route.s]\npath = \"/s\"\npool = \"p\"\nauth = [\"basic\"]", "expected \"key\"");
    refused("[tenant.t]\npools = [\"q\"]", "unknown pool \"q\"");
    refused("[certificate.c]\ntenant = \"t\"\nkind = \"personal\"", "one of san, common_name and any");
    refused(
        "[listener.main.tls]\ncertificates = [{ chain = \"c\", key = \"k\" }]\nclient_auth = \"optional\"",
        "client_ca",
    );
}

#[test]
fn rules_for_one_name_go_before_those_for_many() {
    let rule = |name: &str, what: &str| {
        format!("[certificate.{name}]\n{what}\ntenant = \"t\"\nkind = \"personal\"\n")
    };
    let rules =
        [rule("a", "any = true"), rule("b", "san = \"*.x\""), rule("c", "common_name = \"n\"")].concat();
    let settings = load(&Source::from_text("refrain.toml", format!("{BASE}{rules}"), [])).unwrap().settings;
    let names: Vec<_> = settings.certificates.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
    assert_eq!(settings.certificates[2].subject, CertificateName::Any);
}

#[test]
fn a_file_of_keys_is_watched_and_its_mistakes_have_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (file, keys) = (folder.path().join("refrain.toml"), folder.path().join("keys.toml"));
    let load = || load(&Source::from_text(file.clone(), format!("keys_file = \"keys.toml\"\n{BASE}"), []));
    assert!(load().unwrap_err().to_string().contains("refrain key new --file"));
    let key = |name: &str, digit| {
        format!("[key.{name}]\ntenant = \"t\"\nkind = \"personal\"\nhash = \"{}\"\n", hash(digit))
    };
    std::fs::write(&keys, key("ann", 1) + &key("bob", 2)).unwrap();
    let loaded = load().unwrap();
    assert_eq!(loaded.settings.keys.len(), 2);
    assert!(loaded.files.contains(&keys) && !loaded.settings.listeners[0].allow_anonymous);
    std::fs::write(&keys, key("ann", 1) + "\nrole = \"root\"\nsecret = 1\n").unwrap();
    let told = load().unwrap_err().to_string();
    assert!(
        told.contains("keys.toml:6:") && told.contains("key.ann.role") && told.contains("secret"),
        "{told}"
    );
    std::fs::write(&keys, "[route.x]\npool = \"p\"\n").unwrap();
    assert!(load().unwrap_err().to_string().contains("keys.toml:1:"));
    std::fs::write(&keys, "[key.ann").unwrap();
    assert!(load().is_err());
}

#[test]
fn a_revoked_key_of_the_file_is_gone_whatever_else_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, keys) = (folder.path().join("refrain.toml"), folder.path().join("keys.toml"));
    let text = format!(
        "keys_file = \"keys.toml\"\n{BASE}limits = [\"l\"]\n[limit.l]\nby = [\"key\"]\n[limit.l.keys.ann]\nconcurrency = 9\n\
         [pool.own]\nendpoints = [\"http://b\"]\ntenancy = \"dedicated\"\ntenant = \"t\"\n"
    );
    let load = || load(&Source::from_text(file.clone(), text.clone(), [])).unwrap();
    let ann = format!("[key.ann]\ntenant = \"t\"\nkind = \"personal\"\nhash = \"{}\"\n", hash(1));
    std::fs::write(&keys, ann).unwrap();
    assert!(load().settings.rate_limits[&"l".into()].keys.contains_key(&"ann".into()));
    let warned = |what: &str| load().warnings.iter().any(|warning| warning.to_string().contains(what));
    assert!(!warned("\"ann\"") && !warned("\"t\""));
    std::fs::write(&keys, "").unwrap();
    assert!(load().settings.keys.is_empty());
    assert!(warned("\"ann\"") && warned("\"t\""));
}

#[test]
fn tokens_are_bounded_in_what_they_may_be_late_and_how_often_their_keys_are_read() {
    let jwt = |lines: &str| format!("[jwt.sso]\nissuer = \"i\"\naudience = [\"a\"]\ntenant = \"t\"\n{lines}");
    refused(&jwt("jwks_url = \"https://sso/keys\"\nleeway = \"1h\""), "at most 5m");
    refused(&jwt("jwks_url = \"https://sso/keys\"\nrefresh = \"10ms\""), "at least 5s");
}

#[test]
fn a_signed_header_can_not_be_given_rights_that_nobody_would_have() {
    for right in [
        "role = \"admin\"",
        "models = [\"m\"]",
        "pools = [\"p\"]",
        "admins = { claim = \"c\", value = \"v\" }",
    ] {
        let secret = "0123456789abcdef0123456789abcdef";
        let table = format!(
            "[jwt.ui]\nissuer = \"i\"\nheader = \"x-user\"\nsecret = {{ value = \"{secret}\" }}\n{right}"
        );
        refused(&table, "has no effect beside header");
    }
}

#[test]
fn an_admin_listener_that_others_can_reach_needs_a_token() {
    refused("[admin]\naddress = \"0.0.0.0:9090\"", "refrain key new --operator");
    let token = format!("[admin.token.t]\nrole = \"read\"\nhash = \"{}\"\n", hash(1));
    let text = format!("{BASE}[admin]\naddress = \"0.0.0.0:9090\"\n{token}");
    assert_eq!(load(&Source::from_text("refrain.toml", text, [])).unwrap().warnings, []);
    refused(&format!("[admin]\nallow_anonymous = true\n{token}"), "keep one of the two");
}
