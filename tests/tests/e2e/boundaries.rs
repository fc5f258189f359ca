//! The borders of a question and of its audience, where two things look the same and are not.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Person, Refrain, wire};
use serde_json::json;

use crate::{start, start_with};

async fn check_miss(refrain: &Refrain, ask: &Ask) {
    let reply = refrain.send(ask).await;
    assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"), "{ask:?}");
}

#[tokio::test]
async fn tenants_and_users_whose_names_run_together_are_apart() {
    let people =
        [Person::new("c", "ab"), Person::new("bc", "a"), Person::new("b", "a"), Person::new("a", "b")];
    let (_fake, refrain) = start_with(|config| config.people(&people.each_ref())).await;
    for person in &people {
        check_miss(&refrain, &Ask::chat("mine?").by(person)).await;
    }
}

#[tokio::test]
async fn two_keys_of_one_person_share_one_cache() {
    let (home, work) = (Person::new("home", "acme").user("ann"), Person::new("work", "acme").user("ann"));
    let (_fake, refrain) = start_with(|config| config.people(&[&home, &work])).await;
    check_miss(&refrain, &Ask::chat("mine?").by(&home)).await;
    assert!(refrain.send(&Ask::chat("mine?").by(&work)).await.is_hit());
}

#[tokio::test]
async fn a_scope_by_a_claim_that_nobody_has_is_no_cache() {
    let ann = Person::new("ann", "acme");
    for scope in ["{ claim = \"group\" }", "{ within-user = \"project\" }"] {
        let (_fake, refrain) =
            start_with(|config| config.people(&[&ann]).cache(&format!("scope = {scope}"))).await;
        let reply = refrain.send(&Ask::chat("ours?").by(&ann)).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=no_claim", "{scope}");
    }
}

#[tokio::test]
async fn scope_shared_crosses_tenants_because_the_operator_said_so() {
    let (ann, eve) = (Person::new("ann", "acme"), Person::new("eve", "umbrella"));
    let (_fake, refrain) =
        start_with(|config| config.people(&[&ann, &eve]).cache("scope = { shared = \"faq\" }")).await;
    check_miss(&refrain, &Ask::chat("opening hours?").by(&ann)).await;
    assert!(refrain.send(&Ask::chat("opening hours?").by(&eve)).await.is_hit());
}

#[tokio::test]
async fn an_upstreams_cookie_reaches_nobody_but_the_one_it_was_set_for() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme"));
    let (fake, refrain) = start_with(|config| config.people(&[&ann, &bob]).cache("scope = \"tenant\"")).await;
    let gate = Gate::default();
    let message = json!({"role": "assistant", "content": "hello"});
    fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).gate(1, &gate));
    let client = Client::http(refrain.address());
    let leader = client.open(&Ask::chat("hi").by(&ann)).await;
    let follower = client.open(&Ask::chat("hi").by(&bob)).await;
    assert_eq!(follower.cache_status(), "refrain; fwd=miss; collapsed");
    assert!(!follower.headers.contains_key("set-cookie"), "{:?}", follower.headers);
    gate.open();
    leader.whole().await;
    follower.whole().await;
    assert_eq!(refrain.send(&Ask::chat("hi").by(&bob)).await.header("set-cookie"), "");
}

#[tokio::test]
async fn callers_with_other_upstream_credentials_do_not_share_where_those_are_forwarded() {
    let (_fake, refrain) = start_with(|config| config.route("forward_credentials = true")).await;
    let ask = |credential: &str| Ask::chat("whose account?").header("authorization", credential);
    check_miss(&refrain, &ask("Bearer one")).await;
    check_miss(&refrain, &ask("Bearer two")).await;
    check_miss(&refrain, &Ask::chat("whose account?")).await;
    assert!(refrain.send(&ask("Bearer one")).await.is_hit());
}

#[tokio::test]
async fn pools_do_not_share_even_under_one_namespace() {
    let other = FakeUpstream::start().await;
    let tables = format!(
        "[pool.other]\nendpoints = [\"{}\"]\n\
         [route.other]\npool = \"other\"\nheaders = {{ x-pool = \"other\" }}\n\
         [route.other.cache]\nnamespace = \"common\"",
        other.url()
    );
    let (_fake, refrain) = start_with(|config| config.cache("namespace = \"common\"").tables(&tables)).await;
    check_miss(&refrain, &Ask::chat("which server?")).await;
    check_miss(&refrain, &Ask::chat("which server?").header("x-pool", "other")).await;
    assert_eq!(other.posts(), 1);
}

#[tokio::test]
async fn routes_share_under_one_namespace_and_pool_only() {
    let route = |name: &str, namespace: &str| {
        format!(
            "[route.{name}]\npool = \"llm\"\nheaders = {{ x-team = \"{name}\" }}\n\
             [route.{name}.cache]\nnamespace = \"{namespace}\"\n"
        )
    };
    let tables = route("one", "common") + &route("two", "common") + &route("three", "own");
    let (_fake, refrain) = start_with(|config| config.tables(&tables)).await;
    check_miss(&refrain, &Ask::chat("a").header("x-team", "one")).await;
    assert!(refrain.send(&Ask::chat("a").header("x-team", "two")).await.is_hit());
    check_miss(&refrain, &Ask::chat("a").header("x-team", "three")).await;
    check_miss(&refrain, &Ask::chat("a")).await;
}

#[tokio::test]
async fn every_field_of_a_keyed_header_counts() {
    let (_fake, refrain) = start().await;
    let ask = Ask::message("beta?").header("anthropic-beta", "first");
    check_miss(&refrain, &ask).await;
    check_miss(&refrain, &ask.clone().header("anthropic-beta", "second")).await;
    check_miss(&refrain, &Ask::message("beta?").header("anthropic-beta", "h\u{e9}")).await;
    check_miss(&refrain, &Ask::message("beta?").header("anthropic-beta", "h\u{e8}")).await;
    check_miss(&refrain, &Ask::message("beta?")).await;
}

#[tokio::test]
async fn another_query_is_another_question() {
    let (fake, refrain) = start().await;
    let body = || json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    for path in ["/v1/messages", "/v1/messages?beta=true", "/v1/messages?beta=false"] {
        check_miss(&refrain, &Ask::post(path, body())).await;
        assert_eq!(fake.last_post().path, path);
    }
}

#[tokio::test]
async fn a_route_for_chat_front_ends_takes_a_repeat_for_a_wish_for_another_answer() {
    let (fake, refrain) =
        start_with(|config| config.cache("regenerate = \"repeat\"\nregenerate_window = \"1m\"")).await;
    let first = refrain.send(&Ask::chat("again")).await;
    let second = refrain.send(&Ask::chat("again")).await;
    assert!(!second.is_hit(), "{}", second.cache_status());
    assert_ne!(second.answer(), first.answer());
    assert_eq!(fake.posts(), 2);
}

#[tokio::test]
async fn any_split_of_the_upstreams_bytes_gives_the_same_entry() {
    let events =
        openai::chat_events(&["h\u{e9}llo ".to_owned(), "\u{1f600} w\u{f6}rld".to_owned()], "stop", true)
            .concat();
    let crlf = events.replace("\n", "\r\n");
    let tight = events.replace("data: ", "data:").replace("}\n\n", "}\n\n: ping\n\n");
    for text in [&events, &crlf, &tight] {
        for size in [1, 2, 3, 7, 64, text.len()] {
            let (fake, refrain) = start().await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let mut raw = head.as_bytes().to_vec();
            for piece in text.as_bytes().chunks(size) {
                raw.extend(format!("{:x}\r\n", piece.len()).bytes());
                raw.extend(piece);
                raw.extend(b"\r\n");
            }
            raw.extend(b"0\r\n\r\n");
            fake.next(Answer::raw(raw));
            let ask = Ask::chat("split").streamed();
            let miss = refrain.send(&ask).await;
            assert_eq!(miss.answer(), "h\u{e9}llo \u{1f600} w\u{f6}rld");
            assert!(!miss.text().contains("completion_tokens"), "{}", miss.text());
            let hit = refrain.send(&ask).await;
            assert!(hit.is_hit(), "{size}: {}", hit.cache_status());
            assert_eq!(wire::events(&hit.text()), wire::events(&miss.text()), "{size}");
        }
    }
}

#[tokio::test]
async fn upstreams_with_old_manners_are_understood() {
    let body = openai::chat_whole(1, &json!({"role": "assistant", "content": "old"}), "stop", 1).to_string();
    let until_close =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}");
    let http_1_0 = format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
    let informed = format!(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for raw in [until_close, http_1_0, informed] {
        let (fake, refrain) = start().await;
        fake.next(Answer::raw(raw.clone()).then_close());
        let reply = refrain.send(&Ask::chat("a")).await;
        assert_eq!((reply.status, reply.answer().as_str()), (200, "old"), "{raw}");
        assert!(refrain.send(&Ask::chat("a")).await.is_hit(), "{raw}");
    }
}

#[tokio::test]
async fn too_many_waiters_generate_for_themselves() {
    let (fake, refrain) = start_with(|config| config.tables("[limits]\nwaiters = 2")).await;
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
    let client = Client::http(refrain.address());
    let ask = Ask::chat("crowd").streamed();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut stream = client.open(&ask).await;
        assert_eq!(stream.status, 200);
        let begun = stream.until("content\":\"").await;
        waiting.push((begun, stream));
    }
    assert!(fake.posts() > 1, "all of five waited for one");
    gate.open();
    for (begun, stream) in waiting {
        let text = begun + &stream.whole().await.text();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test]
async fn a_pool_of_two_lists_the_models_of_both() {
    let (one, two) = (FakeUpstream::start().await, FakeUpstream::start().await);
    two.pull("other:1b");
    let endpoint = format!("[[pool.llm.endpoint]]\nurl = \"{}\"", two.url());
    let refrain = Refrain::start(&Config::new(&one.url()).ollama().tables(&endpoint)).await;
    for _ in 0..4 {
        let tags = refrain.send(&Ask::get("/api/tags")).await.json();
        let mut names: Vec<_> =
            tags["models"].as_array().unwrap().iter().filter_map(|m| m["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["gemma3:270m", "m:latest", "other:1b"]);
    }
}
