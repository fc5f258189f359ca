//! Nobody ever gets an answer that was made for somebody else.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Person, Refrain, within};

use crate::start_with;

fn ann() -> Person {
    Person::new("ann", "acme")
}

fn bob() -> Person {
    Person::new("bob", "acme")
}

/// Ann's name in another organisation.
fn other_ann() -> Person {
    Person::new("ann", "umbrella")
}

fn with_people(config: Config) -> Config {
    config.people(&[&ann(), &bob(), &other_ann(), &Person::service("webui", "acme")])
}

/// The first asker has a hit on a second try; nobody else has one, or sees the first one's text.
async fn check_private(refrain: &Refrain, ask: &Ask) {
    let own = refrain.send(&ask.clone().by(&ann())).await;
    assert_eq!(own.cache_status(), "refrain; fwd=miss", "{ask:?}");
    check_still_private(refrain, ask, &own.answer()).await;
}

async fn check_still_private(refrain: &Refrain, ask: &Ask, own: &str) {
    let again = refrain.send(&ask.clone().by(&ann())).await;
    assert!(again.is_hit(), "{ask:?}: {}", again.cache_status());
    assert_eq!(again.answer(), own);
    for stranger in [bob(), other_ann()] {
        let reply = refrain.send(&ask.clone().by(&stranger).cache_control("no-store")).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=miss", "{stranger:?} {ask:?}");
        assert_ne!(reply.answer(), own, "{stranger:?} {ask:?}");
    }
}

#[tokio::test]
async fn anothers_answer_to_the_same_question_is_never_served() {
    let (_fake, refrain) = start_with(with_people).await;
    let asks = [
        Ask::chat("my salary?"),
        Ask::chat("my pension?").streamed(),
        Ask::completion("my salary?"),
        Ask::message("my salary?"),
        Ask::message("my pension?").streamed(),
        Ask::ollama_chat("my salary?"),
        Ask::ollama_generate("my salary?"),
        Ask::post("/v1/embeddings", serde_json::json!({"model": "m", "input": "my salary"})),
        Ask::post("/api/embed", serde_json::json!({"model": "m", "input": "my salary"})),
    ];
    for ask in asks {
        check_private(&refrain, &ask).await;
    }
}

#[tokio::test]
async fn anothers_answer_to_a_similar_question_is_never_served() {
    let (_fake, refrain) = start_with(|config| with_people(config).semantic("threshold = 0.8")).await;
    let (first, similar) = ("How do I reset my password?", "How can I reset my password?");
    let own = refrain.send(&Ask::chat(first).by(&ann())).await.answer();
    for stranger in [bob(), other_ann()] {
        for text in [first, similar] {
            let reply = refrain.send(&Ask::chat(text).by(&stranger).cache_control("no-store")).await;
            assert_eq!(reply.cache_status(), "refrain; fwd=miss", "{stranger:?} {text}");
            assert_ne!(reply.answer(), own);
        }
    }
    let hit = refrain.send(&Ask::chat(similar).by(&ann())).await;
    assert!(hit.cache_status().ends_with("detail=semantic"), "{}", hit.cache_status());
    assert_eq!(hit.answer(), own);
}

#[tokio::test]
async fn two_people_never_share_a_generation_under_way() {
    let (fake, refrain) = start_with(with_people).await;
    let gate = Gate::default();
    for text in ["anns", "bobs", "other anns"] {
        fake.next(openai::chat_stream(&[text], "stop").gate(2, &gate));
    }
    let ask = Ask::chat("what is mine?").streamed();
    let mut streams = Vec::new();
    for (nth, person) in [ann(), bob(), other_ann()].iter().enumerate() {
        let stream = refrain.open(&ask.clone().by(person)).await;
        assert_eq!(stream.cache_status(), "refrain; fwd=miss");
        fake.posted(nth + 1).await;
        streams.push(stream);
    }
    gate.open();
    for (stream, own) in streams.into_iter().zip(["anns", "bobs", "other anns"]) {
        assert_eq!(stream.whole().await.answer(), own);
    }
}

#[tokio::test]
async fn entries_stay_private_over_a_restart_and_over_kill_9() {
    let (_fake, refrain) = start_with(|config| with_people(config).on_disk()).await;
    let ask = Ask::chat("my salary?");
    let own = refrain.send(&ask.clone().by(&ann())).await.answer();
    let refrain = refrain.restart().await;
    check_still_private(&refrain, &ask, &own).await;
    let refrain = refrain.kill9_and_restart().await;
    check_still_private(&refrain, &ask, &own).await;
}

#[tokio::test]
async fn similar_questions_stay_private_over_a_restart() {
    let (_fake, refrain) =
        start_with(|config| with_people(config).on_disk().semantic("threshold = 0.8")).await;
    let own = refrain.send(&Ask::chat("How do I reset my password?").by(&ann())).await.answer();
    let refrain = refrain.restart().await;
    let similar = Ask::chat("How can I reset my password?");
    let strangers = refrain.send(&similar.clone().by(&bob()).cache_control("no-store")).await;
    assert_eq!(strangers.cache_status(), "refrain; fwd=miss");
    let hit = refrain.send(&similar.by(&ann())).await;
    assert!(hit.cache_status().ends_with("detail=semantic"), "{}", hit.cache_status());
    assert_eq!(hit.answer(), own);
}

#[tokio::test]
async fn entries_stay_private_over_a_reload() {
    let fake = FakeUpstream::start().await;
    let config = with_people(Config::new(&fake.url()));
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("my salary?");
    let own = refrain.send(&ask.clone().by(&ann())).await.answer();
    refrain.write_config(&config.clone().cache("ttl = \"2h\""));
    assert_eq!(refrain.reload().await.status, 200);
    check_still_private(&refrain, &ask, &own).await;
}

#[tokio::test]
async fn a_wider_scope_after_a_reload_does_not_open_private_entries() {
    let fake = FakeUpstream::start().await;
    let config = with_people(Config::new(&fake.url()));
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("my salary?");
    let own = refrain.send(&ask.clone().by(&ann())).await.answer();
    refrain.write_config(&config.cache("scope = \"tenant\""));
    assert_eq!(refrain.reload().await.status, 200);
    let bobs = refrain.send(&ask.by(&bob())).await;
    assert_eq!(bobs.cache_status(), "refrain; fwd=miss");
    assert_ne!(bobs.answer(), own);
}

#[tokio::test]
async fn scope_tenant_shares_within_the_tenant_only() {
    let (_fake, refrain) = start_with(|config| with_people(config).cache("scope = \"tenant\"")).await;
    let ask = Ask::chat("opening hours?");
    let own = refrain.send(&ask.clone().by(&ann())).await.answer();
    for colleague in [bob(), Person::service("webui", "acme")] {
        let reply = refrain.send(&ask.clone().by(&colleague)).await;
        assert!(reply.is_hit(), "{colleague:?}: {}", reply.cache_status());
        assert_eq!(reply.answer(), own);
    }
    let stranger = refrain.send(&ask.by(&other_ann())).await;
    assert_eq!(stranger.cache_status(), "refrain; fwd=miss");
    assert_ne!(stranger.answer(), own);
}

#[tokio::test]
async fn a_service_key_has_no_user_and_so_no_private_cache() {
    let (fake, refrain) = start_with(with_people).await;
    let ask = Ask::chat("whose?").by(&Person::service("webui", "acme"));
    for _ in 0..2 {
        let reply = refrain.send(&ask).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=no_user");
    }
    // A client's own word about its user is no proof.
    let claimed = ask.header("x-openwebui-user-id", "ann").field("user", "ann".into());
    let reply = refrain.send(&claimed).await;
    assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=no_user");
    assert_eq!(fake.posts(), 3);
    refrain.counted("refrain_cache_bypasses_total", &[("reason", "no_user")], 3.0).await;
}

#[tokio::test]
async fn concurrent_bypasses_of_a_service_key_are_never_joined() {
    let (fake, refrain) = start_with(with_people).await;
    let gate = Gate::default();
    for text in ["one", "two"] {
        fake.next(openai::chat_stream(&[text], "stop").gate(2, &gate));
    }
    let ask = Ask::chat("whose?").streamed().by(&Person::service("webui", "acme"));
    let (first, second) = (refrain.open(&ask).await, refrain.open(&ask).await);
    fake.posted(2).await;
    gate.open();
    assert_ne!(first.whole().await.answer(), second.whole().await.answer());
}

#[tokio::test]
async fn the_anonymous_user_and_key_holders_do_not_share() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).tables(&ann().table());
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("mine?");
    let anns = refrain.send(&ask.clone().by(&ann())).await.answer();
    let anonymous = refrain.send(&ask).await;
    assert_eq!(anonymous.cache_status(), "refrain; fwd=miss");
    assert_ne!(anonymous.answer(), anns);
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_served() {
    let (fake, refrain) = start_with(with_people).await;
    let stranger = Person::new("eve", "nowhere");
    for ask in Ask::each_dialect("let me in") {
        let asks = [ask.clone(), ask.clone().by(&stranger), ask.header("authorization", "Basic YTpi")];
        for (ask, error) in asks.iter().zip(["", ", error=\"invalid_token\"", ", error=\"invalid_token\""]) {
            let reply = refrain.send(ask).await;
            assert_eq!((reply.status, reply.cache_status().as_str()), (401, ""), "{ask:?}");
            assert_eq!(reply.header("www-authenticate"), format!("Bearer realm=\"refrain\"{error}"));
        }
    }
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn anthropics_key_header_identifies_too() {
    let (_fake, refrain) = start_with(with_people).await;
    let ask = Ask::message("hello").header("x-api-key", &ann().token());
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
    assert!(refrain.send(&Ask::message("hello").by(&ann())).await.is_hit());
}

#[tokio::test]
async fn a_key_asks_only_the_models_it_is_entitled_to() {
    let cat = Person::new("cat", "acme").only(&["n"]);
    let (fake, refrain) = start_with(|config| config.people(&[&cat])).await;
    for ask in Ask::each_dialect("hello") {
        assert_eq!(refrain.send(&ask.clone().by(&cat)).await.status, 404, "{ask:?}");
    }
    assert_eq!(fake.posts(), 0);
    let allowed = Ask::chat("hello").field("model", "n".into()).by(&cat);
    assert_eq!(refrain.send(&allowed).await.status, 200);
}

#[tokio::test]
async fn a_crowd_of_people_asking_the_same_at_once_each_get_their_own() {
    let people: Vec<Person> = (0..8).map(|nth| Person::new(&format!("p{nth}"), "acme")).collect();
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).people(&people.iter().collect::<Vec<_>>())).await;
    let gate = Gate::default();
    for person in 0..people.len() {
        let whole = openai::chat_whole(
            1,
            &serde_json::json!({"role": "assistant", "content": format!("{person}")}),
            "stop",
            1,
        );
        fake.next(Answer::json(200, &whole).gate(0, &gate));
    }
    let mut asking = tokio::task::JoinSet::new();
    for person in &people {
        let (client, ask) = (Client::http(refrain.address()), Ask::chat("who am I?").by(person));
        asking.spawn(async move { client.send(&ask).await.answer() });
    }
    fake.posted(people.len()).await;
    gate.open();
    let mut answers = within("all answers", asking.join_all()).await;
    answers.sort_unstable();
    answers.dedup();
    assert_eq!(answers.len(), people.len(), "{answers:?}");
}
