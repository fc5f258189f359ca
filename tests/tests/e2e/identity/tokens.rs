//! Tokens: of an issuer whose keys a server gives out, and in the header by which a front end names its users.

use parking_lot::Mutex;
use refrain_tests::fake::{Answer, FakeUpstream};
use refrain_tests::{
    Ask, Authority, Config, Person, Refrain, Reply, Signer, TlsFront, eventually, python, seconds_from_now,
    shared_secret_token,
};
use serde_json::{Value, json};
use std::sync::Arc;

use super::shown;

const SECRET: &str = "a secret that Open WebUI and Refrain share, 32 bytes or more";

/// A real HTTP server that gives out what is in its box; nothing: it fails.
async fn key_server() -> (FakeUpstream, Arc<Mutex<Option<Value>>>) {
    let (server, keys) = (FakeUpstream::start().await, Arc::new(Mutex::new(None::<Value>)));
    let given = keys.clone();
    server.answers_gets(move |_| match &*given.lock() {
        Some(keys) => Answer::json(200, keys),
        None => Answer::json(500, &json!({})),
    });
    (server, keys)
}

fn corp(server: &FakeUpstream) -> String {
    format!(
        "[jwt.corp]\nissuer = \"https://sso\"\naudience = [\"refrain\"]\njwks_url = \"{}/realm/certs\"\n\
         tenant_claim = \"org\"\ntenants = [\"acme\", \"umbrella\"]\nclaims = {{ groups = \"groups\" }}\n\
         admins = {{ claim = \"groups\", value = \"admins\" }}\nrefresh = \"1h\"\n\
         [tenant.acme]\nmodels = [\"gemma\"]\n",
        server.url()
    )
}

fn claims(user: &str, tenant: &str) -> Value {
    json!({ "iss": "https://sso", "aud": "refrain", "sub": user, "org": tenant, "exp": seconds_from_now(600) })
}

fn chat(text: &str, token: &str) -> Ask {
    Ask::chat(text).field("model", "gemma".into()).header("authorization", &format!("Bearer {token}"))
}

/// No anonymous callers, and no keys.
fn config(fake: &FakeUpstream, tables: &str) -> Config {
    Config::new(&fake.url()).people(&[]).tables(tables)
}

#[tokio::test]
async fn tokens_of_an_issuer_are_people_of_tenants() {
    let (server, keys) = key_server().await;
    let signer = Signer::new("one");
    *keys.lock() = Some(Signer::key_set(&[&signer]));
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&config(&fake, &corp(&server))).await;
    let [ann, bob, zoe] = [("ann", "acme"), ("bob", "acme"), ("ann", "umbrella")]
        .map(|(user, tenant)| signer.token(&claims(user, tenant)));
    let own = refrain.send(&chat("my salary?", &ann)).await;
    assert_eq!((own.status, own.cache_status().as_str()), (200, "refrain; fwd=miss"), "{}", own.text());
    assert!(refrain.send(&chat("my salary?", &ann)).await.is_hit());
    for stranger in [&bob, &zoe] {
        assert_eq!(refrain.send(&chat("my salary?", stranger)).await.cache_status(), "refrain; fwd=miss");
    }
    let other_model = refrain.send(&chat("hello", &ann).field("model", "big".into())).await;
    assert_eq!(other_model.status, 404, "tenant acme has one model");
    assert!(fake.last_post().header("authorization").is_empty());

    for wrong in [
        signer.token(&claims("ann", "initech")),
        signer.token(&json!({ "iss": "https://sso", "aud": "refrain", "sub": "ann", "org": "acme" })),
        Signer::new("one").token(&claims("ann", "acme")),
        shared_secret_token(SECRET, &claims("ann", "acme")),
        format!("{}x", &ann[..ann.len() - 1]),
        "rfn_key".to_owned(),
    ] {
        let refused = refrain.send(&chat("hello", &wrong)).await;
        assert_eq!(refused.status, 401, "{}", refused.text());
    }
    refrain.counted("refrain_auth_refusals_total", &[("reason", "token_tenant")], 1.0).await;
    let shown = shown(&refrain, None).await;
    assert!(![&ann, &bob, &zoe].into_iter().any(|token| shown.contains(token.as_str())));
}

async fn debugged(refrain: &Refrain, token: &str) -> Reply {
    refrain.send(&chat("hello", token).header("x-refrain-debug", "1")).await
}

#[tokio::test]
async fn only_an_admin_is_shown_what_the_cache_thinks() {
    let (server, keys) = key_server().await;
    let signer = Signer::new("one");
    *keys.lock() = Some(Signer::key_set(&[&signer]));
    let fake = FakeUpstream::start().await;
    let (chief, ann) = (Person::new("chief", "acme").admin(), Person::new("ann", "acme"));
    let refrain = Refrain::start(&config(&fake, &corp(&server)).people(&[&chief, &ann])).await;
    let with_groups = |groups: Value| {
        let mut claims = claims("bob", "acme");
        claims["groups"] = groups;
        signer.token(&claims)
    };
    for (token, is_shown) in [
        (with_groups(json!(["admins", "x"])), true),
        (with_groups(json!(["users"])), false),
        (signer.token(&claims("bob", "acme")), false),
        (chief.token(), true),
        (ann.token(), false),
    ] {
        let reply = debugged(&refrain, &token).await;
        assert_eq!((reply.status, reply.headers.contains_key("refrain-debug")), (200, is_shown));
    }
}

#[tokio::test]
async fn keys_of_an_issuer_are_followed_and_kept_while_its_server_is_away() {
    let (server, keys) = key_server().await;
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&config(&fake, &corp(&server))).await;
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let [by_one, by_two] = [&one, &two].map(|signer| signer.token(&claims("ann", "acme")));
    // Nobody can tell yet: neither yes nor no.
    assert_eq!(refrain.send(&chat("hello", &by_one)).await.status, 503);
    assert!(refrain.readiness().await["degraded"].as_array().unwrap().contains(&json!("signing_keys")));

    *keys.lock() = Some(Signer::key_set(&[&one]));
    let admitted = async || (refrain.send(&chat("hello", &by_one)).await.status == 200).then_some(());
    eventually("the first key", admitted).await;
    // Away again: what is known holds, what is not is refused without the issuer being asked each time.
    *keys.lock() = None;
    assert_eq!(refrain.send(&chat("hello", &by_one)).await.status, 200);
    let asked = server.requests("/realm/certs").len();
    for _ in 0..5 {
        assert_eq!(refrain.send(&chat("hello", &by_two)).await.status, 401);
    }
    assert!(server.requests("/realm/certs").len() <= asked + 1);
    // A reload keeps them too; another issuer's key set would be another.
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(refrain.send(&chat("hello", &by_one)).await.status, 200);
}

#[tokio::test]
async fn a_key_that_its_file_no_longer_has_verifies_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let write = |signers: &[&Signer]| std::fs::write(&file, Signer::key_set(signers).to_string()).unwrap();
    write(&[&one]);
    let fake = FakeUpstream::start().await;
    let tables = format!(
        "[jwt.corp]\nissuer = \"https://sso\"\naudience = [\"refrain\"]\njwks_file = {file:?}\ntenant = \"acme\"\n"
    );
    let refrain = Refrain::start(&config(&fake, &tables)).await;
    let [by_one, by_two] = [&one, &two].map(|signer| signer.token(&claims("ann", "acme")));
    assert_eq!(refrain.send(&chat("hello", &by_one)).await.status, 200);
    write(&[&two]);
    let turned = async || (refrain.send(&chat("hello", &by_one)).await.status == 401).then_some(());
    eventually("the old key's end", turned).await;
    assert_eq!(refrain.send(&chat("hello", &by_two)).await.status, 200);
}

#[tokio::test]
async fn a_front_ends_users_are_those_that_its_signed_header_names() {
    let fake = FakeUpstream::start().await;
    let tables = format!(
        "[jwt.webui]\nissuer = \"open-webui\"\nheader = \"X-OpenWebUI-User-Jwt\"\nsecret = {{ value = {SECRET:?} }}\n\
         claims = {{ role = \"role\" }}\n"
    );
    let front_end = Person::service("webui", "acme").user_from("webui");
    let config = config(&fake, &tables).people(&[&front_end]);
    let refrain = Refrain::start(&config).await;
    // As Open WebUI makes them.
    let user = |id: &str| {
        let claims = json!({
            "sub": id, "email": "a@acme.example", "name": "A", "role": "user", "iss": "open-webui",
            "iat": seconds_from_now(0), "exp": seconds_from_now(300),
        });
        shared_secret_token(SECRET, &claims)
    };
    let ask = |user: Option<&str>| {
        let ask = Ask::chat("my salary?").by(&front_end).header("x-openwebui-user-id", "somebody-else");
        user.map_or(ask.clone(), |user| ask.header("x-openwebui-user-jwt", user))
    };
    let (ann, bob) = (user("7c1e"), user("9d2f"));
    assert_eq!(refrain.send(&ask(Some(&ann))).await.cache_status(), "refrain; fwd=miss");
    assert!(refrain.send(&ask(Some(&user("7c1e")))).await.is_hit(), "another token of the same user");
    assert_eq!(refrain.send(&ask(Some(&bob))).await.cache_status(), "refrain; fwd=miss");
    let nobody = refrain.send(&ask(None)).await;
    assert!(nobody.cache_status().contains("no_user"), "{}", nobody.cache_status());
    let sent = fake.last_post();
    assert!(sent.header("x-openwebui-user-jwt").is_empty() && sent.header("x-openwebui-user-id").is_empty());
    for forged in ["7c1e", &shared_secret_token(&SECRET.replace('a', "b"), &json!({ "sub": "7c1e" })), ""] {
        assert_eq!(refrain.send(&ask(Some(forged))).await.status, 401, "{forged}");
    }
    let alone = Ask::chat("hello").header("authorization", &format!("Bearer {ann}"));
    assert_eq!(refrain.send(&alone).await.status, 401, "what names a user lets nobody in");
    let shown = shown(&refrain, None).await;
    assert!(!shown.contains(SECRET) && !shown.contains(&ann));
}

#[tokio::test]
async fn keys_are_read_by_https_from_whom_the_given_authority_vouches_for_and_from_nobody_else() {
    let (server, keys) = key_server().await;
    let signer = Signer::new("one");
    *keys.lock() = Some(Signer::key_set(&[&signer]));
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let front = TlsFront::start(server.address(), authority.server(&["localhost"])).await;
    let fake = FakeUpstream::start().await;
    let ann = signer.token(&claims("ann", "acme"));
    let trusting = |who: &Authority, name: &str| {
        let file = dir.path().join(name);
        who.write_root(&file);
        let tables = corp(&server).replace(&server.url(), &front.url());
        config(&fake, &tables.replace("refresh =", &format!("ca_file = {file:?}\nrefresh =")))
    };
    let refrain = Refrain::start(&trusting(&authority, "ours.pem")).await;
    let admitted = async || (refrain.send(&chat("hello", &ann)).await.status == 200).then_some(());
    eventually("keys by https", admitted).await;
    assert_eq!(front.greetings()[0].server_name.as_deref(), Some("localhost"));

    let asked = server.requests("/realm/certs").len();
    let refrain = Refrain::start(&trusting(&Authority::new(), "others.pem")).await;
    let unsure = refrain.send(&chat("hello", &ann)).await;
    assert_eq!((unsure.status, unsure.header("retry-after").as_str()), (503, "1"), "{}", unsure.text());
    let told =
        async || refrain.readiness().await["signing_keys"][0]["last_error"].as_str().map(str::to_owned);
    eventually("why keys are not read", told).await;
    assert_eq!(server.requests("/realm/certs").len(), asked, "nothing is asked of whom nobody vouches for");
}

#[tokio::test]
async fn the_openai_client_takes_tokens_and_keys_and_understands_a_refusal() {
    let (server, keys) = key_server().await;
    let signer = Signer::new("one");
    *keys.lock() = Some(Signer::key_set(&[&signer]));
    let (fake, bob) = (FakeUpstream::start().await, Person::new("bob", "acme"));
    let config = config(&fake, &corp(&server)).people(&[&bob]).route("auth = [\"jwt:corp\", \"key\"]");
    let refrain = Refrain::start(&config).await;
    let ann = signer.token(&claims("ann", "acme"));
    let admitted = async || (refrain.send(&chat("hello", &ann)).await.status == 200).then_some(());
    eventually("the issuer's keys", admitted).await;
    let ask = async |credential: &str| {
        let arguments = json!({ "model": "gemma", "messages": [{ "role": "user", "content": "hello" }] });
        let job = json!({ "base_url": refrain.url(), "api_key": credential,
            "jobs": [{ "call": "chat", "arguments": arguments }] });
        python("openai_calls.py", &job).await[0].clone()
    };
    assert_eq!(ask(&ann).await["cache_status"], "refrain; fwd=miss");
    assert!(ask(&ann).await["cache_status"].as_str().unwrap().starts_with("refrain; hit"));
    assert_eq!(ask(&bob.token()).await["cache_status"], "refrain; fwd=miss", "another person");
    let late = json!({ "iss": "https://sso", "aud": "refrain", "sub": "ann", "org": "acme", "exp": seconds_from_now(-600) });
    let refused = ask(&signer.token(&late)).await;
    assert_eq!(
        (&refused["error"], &refused["status"]),
        (&json!("AuthenticationError"), &json!(401)),
        "{refused}"
    );
    assert!(refused["body"]["message"].as_str().unwrap().contains("expired"), "{refused}");

    let challenge = async |ask: Ask| {
        let refused = refrain.send(&ask).await;
        assert_eq!(refused.status, 401);
        refused.header("www-authenticate")
    };
    assert_eq!(challenge(Ask::chat("hello")).await, "Bearer realm=\"refrain\"");
    for ask in [chat("hello", "rfn_wrong"), chat("hello", &signer.token(&late))] {
        assert_eq!(challenge(ask).await, "Bearer realm=\"refrain\", error=\"invalid_token\"");
    }
}
