//! API keys in a file of their own, which commands change while a proxy runs.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Person, Refrain, eventually};

use super::{command, shown};

/// The key that a command has printed.
fn printed(said: &str) -> String {
    said.lines().find(|line| line.starts_with("rfn_")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

async fn status(refrain: &Refrain, key: &str) -> u16 {
    refrain.send(&Ask::chat("hello").header("authorization", &format!("Bearer {key}"))).await.status
}

#[tokio::test]
async fn a_running_proxy_follows_keys_that_commands_make_and_revoke() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("keys.toml");
    let file = file.to_str().unwrap();
    let (made, said) =
        command(&["key", "new", "--tenant", "acme", "--user", "ann", "--file", file], &[]).await;
    assert!(made, "{said}");
    let ann = printed(&said);
    let config = Config::new(&fake.url()).people(&[&Person::new("zoe", "acme")]);
    // Before the first table.
    let refrain = Refrain::start(&config.clone().top(&format!("keys_file = {file:?}"))).await;
    assert_eq!((status(&refrain, &ann).await, status(&refrain, "rfn_wrong").await), (200, 401));

    let service = ["key", "new", "--tenant", "acme", "--kind", "service", "--name", "bot", "--file", file];
    let bot = printed(&command(&service, &[]).await.1);
    eventually("the new key's admission", async || (status(&refrain, &bot).await == 200).then_some(())).await;
    let (_, list) = command(&["key", "list", "--file", file], &[]).await;
    assert!(list.contains("bot") && list.contains("ann"), "{list}");

    let (revoked, said) = command(&["key", "revoke", "ann", "--file", file], &[]).await;
    assert!(revoked, "{said}");
    eventually("the revoked key's refusal", async || (status(&refrain, &ann).await == 401).then_some(()))
        .await;
    assert_eq!(status(&refrain, &bot).await, 200);

    let shown = shown(&refrain, None).await + &list;
    for secret in [&ann, &bot, &Person::new("zoe", "acme").token()] {
        assert!(!shown.contains(secret.as_str()));
    }
}

#[tokio::test]
async fn a_tenants_models_bind_all_of_its_keys() {
    let fake = FakeUpstream::start().await;
    fake.offer(&["small", "big", "other"]);
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme").only(&["small"]));
    let zoe = Person::new("zoe", "umbrella");
    let config = Config::new(&fake.url())
        .people(&[&ann, &bob, &zoe])
        .tables("[tenant.acme]\nmodels = [\"small\", \"big\"]\npools = [\"llm\"]\n[tenant.umbrella]\npools = [\"elsewhere\"]\n[pool.elsewhere]\nendpoints = [\"http://127.0.0.1:1\"]\n");
    let refrain = Refrain::start(&config).await;
    let ask = async |who: &Person, model: &str| {
        let ask = Ask::chat("hello").field("model", model.into()).by(who);
        refrain.send(&ask).await.status
    };
    let may =
        [ask(&ann, "big").await, ask(&ann, "other").await, ask(&bob, "small").await, ask(&bob, "big").await];
    assert_eq!(may, [200, 404, 200, 404]);
    assert_eq!(ask(&zoe, "small").await, 403, "the route's pool is not one of its tenant's");
    let listed = refrain.send(&Ask::get("/v1/models").by(&bob)).await.text();
    assert!(listed.contains("small") && !listed.contains("big"), "{listed}");
}
