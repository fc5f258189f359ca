//! Tenants apart in the prefix caches of model servers.

use refrain_tests::{Ask, Person, Refrain};
use serde_json::json;

use super::{fakes, pool_of};

#[tokio::test]
async fn each_tenant_has_a_salt_of_its_own_and_no_client_chooses_it() {
    let (ann, amy, bob) =
        (Person::new("ann", "acme"), Person::new("amy", "acme"), Person::new("bob", "bolt"));
    let fakes = fakes(1).await;
    let refrain = Refrain::start(&pool_of(&fakes, "").people(&[&ann, &amy, &bob])).await;
    let mut salts = Vec::new();
    for (person, own) in [(&ann, None), (&ann, Some("chosen")), (&amy, None), (&bob, Some("chosen"))] {
        for ask in [Ask::chat("hello"), Ask::message("hello"), Ask::chat("hello").streamed()] {
            let ask = match own {
                Some(own) => ask.field("cache_salt", json!(own)),
                None => ask,
            };
            refrain.send(&ask.by(person)).await;
            let sent = fakes[0].last_post();
            assert_eq!(sent.text().matches("cache_salt").count(), 1, "{}", sent.text());
            salts.push(sent.json()["cache_salt"].as_str().unwrap().to_owned());
        }
    }
    assert!(salts.iter().all(|salt| salt.len() == 32 && salt.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert!(salts[..9].iter().all(|salt| *salt == salts[0]), "{salts:?}");
    assert!(salts[9..].iter().all(|salt| *salt == salts[9] && *salt != salts[0]), "{salts:?}");
}

#[tokio::test]
async fn where_one_tenant_asks_or_the_operator_says_so_there_is_no_salt() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "bolt"));
    let fakes = fakes(2).await;
    let alone = Refrain::start(&pool_of(&fakes[..1], "").people(&[&ann])).await;
    alone.send(&Ask::chat("hello").by(&ann)).await;
    assert!(!fakes[0].last_post().text().contains("cache_salt"));
    let shared = pool_of(&fakes[1..], "tenancy = \"shared\"").people(&[&ann, &bob]);
    Refrain::start(&shared).await.send(&Ask::chat("hello").by(&ann)).await;
    assert!(!fakes[1].last_post().text().contains("cache_salt"));
}

#[tokio::test]
async fn a_dedicated_pool_serves_its_tenant_alone() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "bolt"));
    let fakes = fakes(1).await;
    let lines = "tenancy = \"dedicated\"\ntenant = \"acme\"";
    let refrain = Refrain::start(&pool_of(&fakes, lines).people(&[&ann, &bob])).await;
    assert_eq!(refrain.send(&Ask::chat("hello").by(&ann)).await.status, 200);
    for ask in [Ask::chat("hello"), Ask::message("hello"), Ask::get("/v1/models"), Ask::get("/v1/models/m")] {
        assert_eq!(refrain.send(&ask.by(&bob)).await.status, 403);
    }
    assert_eq!(fakes[0].posts(), 1);
}

#[tokio::test]
async fn an_ollama_for_several_tenants_must_be_said_to_be_shared() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "bolt"));
    let fakes = fakes(1).await;
    let config = pool_of(&fakes, "kind = \"ollama\"").people(&[&ann, &bob]);
    let (status, said) = Refrain::run_to_end(&config).await;
    assert!(!status.success() && said.contains("tenancy = \"shared\""), "{said}");
}
