//! Which server of a pool is asked.

use refrain_tests::fake::Answer;
use refrain_tests::{Ask, Client, Person, Refrain};
use serde_json::json;

use super::{fakes, fleet, pool_of, posts};

fn conversation(system: &str, first: &str, turns: usize) -> Ask {
    let mut messages =
        vec![json!({"role": "system", "content": system}), json!({"role": "user", "content": first})];
    for turn in 0..turns {
        messages.push(json!({"role": "assistant", "content": format!("said {turn}")}));
        messages.push(json!({"role": "user", "content": format!("and {turn}?")}));
    }
    Ask::post("/v1/chat/completions", json!({"model": "m", "messages": messages}))
}

#[tokio::test]
async fn a_conversation_stays_at_one_server_and_conversations_are_spread() {
    let fakes = fakes(3).await;
    let refrain = fleet(&fakes, "").await;
    for session in 0..24 {
        let before = posts(&fakes);
        for turns in 0..3 {
            refrain.send(&conversation("You help.", &format!("question {session}"), turns)).await;
        }
        let asked: Vec<usize> = posts(&fakes).iter().zip(before).map(|(now, then)| now - then).collect();
        assert!(asked.contains(&3), "{asked:?}: all turns of one conversation at one server");
    }
    assert!(posts(&fakes).iter().all(|&count| count >= 6), "{:?}", posts(&fakes));
}

#[tokio::test]
async fn what_moves_from_turn_to_turn_beside_the_text_moves_no_conversation() {
    let fakes = fakes(3).await;
    let refrain = fleet(&fakes, "").await;
    let marked = |text: &str| json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
    let plain = |text: &str| json!([{"type": "text", "text": text}]);
    for session in 0..12 {
        let before = posts(&fakes);
        let first = format!("question {session}");
        let once =
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": marked(&first)}]});
        let twice = json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": plain(&first)},
            {"role": "assistant", "content": plain("said")},
            {"role": "user", "content": marked("and?")},
        ]});
        for body in [once, twice] {
            refrain.send(&Ask::post("/v1/messages", body)).await;
        }
        let asked: Vec<usize> = posts(&fakes).iter().zip(before).map(|(now, then)| now - then).collect();
        assert!(asked.contains(&2), "{asked:?}");
    }
}

#[tokio::test]
async fn a_session_that_the_client_names_wins_over_the_prompt() {
    let fakes = fakes(3).await;
    let refrain = fleet(&fakes, "").await;
    for number in 0..9 {
        refrain.send(&Ask::chat(&format!("question {number}")).header("x-openwebui-chat-id", "c1")).await;
    }
    for number in 0..9 {
        refrain.send(&Ask::chat(&format!("question {number}")).field("prompt_cache_key", json!("k1"))).await;
    }
    let counts = posts(&fakes);
    assert!(counts.iter().all(|count| count % 9 == 0), "{counts:?}");
}

#[tokio::test]
async fn tenants_share_no_affinity() {
    let people: Vec<Person> =
        (0..12).map(|number| Person::new(&format!("p{number}"), &format!("t{number}"))).collect();
    let all: Vec<&Person> = people.iter().collect();
    let fakes = fakes(3).await;
    let refrain = Refrain::start(&pool_of(&fakes, "").people(&all)).await;
    for person in &people {
        refrain.send(&Ask::chat("the same").header("x-session-id", "s").by(person)).await;
    }
    assert!(posts(&fakes).iter().filter(|&&count| count > 0).count() > 1, "{:?}", posts(&fakes));
}

#[tokio::test]
async fn round_robin_takes_turns_and_a_hash_goes_by_its_header() {
    let (turns, hashed) = (fakes(3).await, fakes(3).await);
    let refrain = fleet(&turns, "balance = \"round-robin\"").await;
    for _ in 0..9 {
        refrain.send(&Ask::chat("the same")).await;
    }
    assert_eq!(posts(&turns), [3, 3, 3]);
    let refrain = fleet(&hashed, "balance = \"hash\"\nhash_by = { header = \"x-project\" }").await;
    for number in 0..8 {
        refrain.send(&Ask::chat(&format!("question {number}")).header("x-project", "search")).await;
    }
    assert!(posts(&hashed).contains(&8), "{:?}", posts(&hashed));
}

/// The fakes give ids that all begin with `resp`, and keep nothing: what counts is who is asked.
#[tokio::test]
async fn a_follow_up_goes_to_the_server_that_keeps_the_response() {
    let fakes = fakes(3).await;
    let refrain = fleet(&fakes, "balance = \"round-robin\"").await;
    for number in 0..6 {
        let first = json!({"model": "m", "input": format!("question {number}")});
        let before = posts(&fakes);
        let reply = refrain.send(&Ask::post("/v1/responses", first)).await;
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let owner = posts(&fakes).iter().zip(&before).position(|(now, then)| now > then).unwrap();
        for _ in 0..2 {
            let next = json!({"model": "m", "input": "and?", "previous_response_id": id});
            refrain.send(&Ask::post("/v1/responses", next)).await;
        }
        assert_eq!(posts(&fakes)[owner] - before[owner], 3);
        refrain.send(&Ask::get(&format!("/v1/responses/{id}"))).await;
        assert_eq!(fakes[owner].requests(&format!("/v1/responses/{id}")).len(), 1);
    }
}

#[tokio::test]
async fn a_model_is_asked_where_it_is() {
    let fakes = fakes(2).await;
    for (fake, models) in fakes.iter().zip([["small", "both"], ["large", "both"]]) {
        fake.offer(&models);
    }
    let refrain = fleet(&fakes, "balance = \"round-robin\"").await;
    let ask = |model: &str| Ask::chat("hello").field("model", json!(model));
    for _ in 0..4 {
        refrain.send(&ask("large")).await;
    }
    assert_eq!(posts(&fakes), [0, 4]);
    for _ in 0..4 {
        refrain.send(&ask("both")).await;
    }
    assert_eq!(posts(&fakes), [2, 6]);
    for _ in 0..2 {
        // Nobody lists it: a server says so itself, or serves it all the same, as llama.cpp does.
        assert_eq!(refrain.send(&ask("unlisted")).await.status, 200);
        refrain.send(&Ask::post("/api/show", json!({"model": "small"}))).await;
    }
    assert_eq!(fakes[0].requests("/api/show").len(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_keeps_no_other_servers_models_from_the_list() {
    let fakes = fakes(2).await;
    fakes[1].offer(&["there"]);
    let refrain = fleet(&fakes, "").await;
    fakes[0].answers_gets(|_| Answer::never());
    let list = refrain.send(&Ask::get("/v1/models")).await.json();
    assert_eq!(list["data"][0]["id"], "there");
}

#[tokio::test]
async fn a_model_is_unloaded_wherever_it_is_in_memory() {
    let fakes = fakes(3).await;
    for fake in &fakes[..2] {
        let load = Ask::post("/api/generate", json!({"model": "m", "prompt": ""}));
        Client::http(fake.address()).send(&load).await;
    }
    // Where the models are is known from the start.
    let refrain = fleet(&fakes, "kind = \"ollama\"").await;
    let unload = Ask::post("/api/generate", json!({"model": "m", "prompt": "", "keep_alive": 0}));
    refrain.send(&unload).await;
    for fake in &fakes[..2] {
        fake.posted(2).await;
        assert_eq!(fake.last_post().json()["keep_alive"], 0);
    }
    assert_eq!(fakes[2].posts(), 0);
}
