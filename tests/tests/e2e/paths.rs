//! Which paths are open: inference yes, changing a server for admins only, the unknown not at all.

use http::Method;
use refrain_tests::{Ask, Person};
use serde_json::json;

use crate::bad_answers::check_error_shape;
use crate::{start, start_with};

#[tokio::test]
async fn unknown_paths_are_a_404_in_the_dialect_of_their_prefix() {
    let (fake, refrain) = start().await;
    for path in [
        "/",
        "/v1/",
        "/metrics",
        "/v1/files",
        "/api",
        "/api/unknown",
        "/v1/messages/unknown",
        "/admin/x",
        "/v1",
    ] {
        let ask = Ask::post(path, json!({}));
        let reply = refrain.send(&ask).await;
        let expected = if path == "/" { 405 } else { 404 };
        assert_eq!(reply.status, expected, "{path}: {}", reply.text());
        if path != "/" && path != "/api" {
            check_error_shape(&ask, &reply);
        }
    }
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn paths_that_two_readers_could_read_differently_are_a_400() {
    let (fake, refrain) = start().await;
    for path in [
        "/v1//models",
        "/v1/../api/pull",
        "/v1/./models",
        "/v1/%2e%2e/api/pull",
        "/api%2fpull",
        "/api/%00",
        "/v1/models/x%2F..%2F..%2F..%2Fapi%2Fpull",
    ] {
        assert_eq!(refrain.send(&Ask::get(path)).await.status, 400, "{path}");
    }
    assert!(fake.requests("/api/pull").is_empty());
}

#[tokio::test]
async fn no_model_server_shows_a_client_what_it_was_sent() {
    let (fake, refrain) = start_with(|config| config.route("extra_paths = [\"/own\"]")).await;
    let ask = Ask::new(Method::TRACE, "/own");
    let reply = refrain.send(&ask).await;
    assert_eq!(reply.status, 405, "{}", reply.text());
    check_error_shape(&ask, &reply);
    assert!(fake.requests("/own").is_empty());
}

#[tokio::test]
async fn a_list_of_models_says_how_to_ask_for_it() {
    let (_fake, refrain) = start().await;
    let reply = refrain.send(&Ask::post("/v1/models", json!({}))).await;
    assert_eq!((reply.status, reply.header("allow").as_str()), (405, "GET, HEAD"));
}

#[tokio::test]
async fn an_api_takes_post_only() {
    let (fake, refrain) = start().await;
    for path in ["/v1/chat/completions", "/api/chat", "/v1/messages"] {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
            let ask = Ask::new(method, path);
            let reply = refrain.send(&ask).await;
            assert_eq!((reply.status, reply.header("allow").as_str()), (405, "POST"), "{path}");
            check_error_shape(&ask, &reply);
        }
        assert!(fake.requests(path).is_empty());
    }
}

#[tokio::test]
async fn a_route_may_open_more_paths_exactly() {
    let (_fake, refrain) = start_with(|config| config.route("extra_paths = [\"/v1/rerank/own\"]")).await;
    let reply = refrain.send(&Ask::post("/v1/rerank/own", json!({}))).await;
    assert_eq!((reply.status, reply.json()["echo"].clone()), (200, json!("/v1/rerank/own")));
    assert_eq!(refrain.send(&Ask::post("/v1/rerank/own/more", json!({}))).await.status, 404);
}

#[tokio::test]
async fn what_changes_or_inspects_a_server_needs_an_admin() {
    let (ann, root) = (Person::new("ann", "acme"), Person::new("root", "acme").admin());
    let (fake, refrain) = start_with(|config| config.people(&[&ann, &root])).await;
    let paths = [
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/blobs/sha256:00",
        "/slots",
        "/slots/0?action=erase",
        "/sleep",
        "/wake_up",
        "/reset_prefix_cache",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/lora-adapters",
        "/models/load",
    ];
    for path in paths {
        let ask = Ask::post(path, json!({"model": "m"}));
        let reply = refrain.send(&ask.clone().by(&ann)).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text());
        assert_eq!(refrain.send(&ask.clone()).await.status, 401, "{path}");
        check_error_shape(&ask, &reply);
    }
    assert_eq!(fake.posts(), 0);
    for (nth, path) in paths.iter().enumerate() {
        refrain.send(&Ask::post(path, json!({"model": "m"})).by(&root)).await;
        assert_eq!(fake.posts(), nth + 1, "{path}");
    }
}

#[tokio::test]
async fn an_anonymous_caller_is_no_admin_where_keys_are_in_use() {
    let ann = Person::new("ann", "acme");
    let (fake, refrain) = start_with(|config| config.tables(&ann.table())).await;
    assert_eq!(refrain.send(&Ask::post("/api/pull", json!({"model": "m"}))).await.status, 403);
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn model_lists_and_versions_pass() {
    let (_fake, refrain) = start().await;
    assert_eq!(refrain.send(&Ask::get("/v1/models")).await.json()["data"][0]["id"], "m");
    assert_eq!(refrain.send(&Ask::get("/api/tags")).await.json()["models"][1]["name"], "m:latest");
    assert_eq!(refrain.send(&Ask::get("/api/version")).await.json()["version"], "0.11.6");
    assert_eq!(refrain.send(&Ask::get("/api/ps")).await.json()["models"], json!([]));
    assert_eq!(refrain.send(&Ask::post("/api/show", json!({"model": "m"}))).await.status, 200);
}

#[tokio::test]
async fn model_lists_show_what_the_key_may_use_only() {
    let cat = Person::new("cat", "acme").only(&["m:latest"]);
    let (_fake, refrain) = start_with(|config| config.people(&[&cat])).await;
    let tags = refrain.send(&Ask::get("/api/tags").by(&cat)).await.json();
    let names: Vec<_> = tags["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["m:latest"]);
    let models = refrain.send(&Ask::get("/v1/models").by(&cat)).await.json();
    assert_eq!(models["data"], json!([]));
}

#[tokio::test]
async fn the_root_says_that_somebody_is_there() {
    let (_fake, refrain) = start().await;
    assert_eq!(refrain.send(&Ask::get("/")).await.text(), "Refrain is running");
    let head = refrain.send(&Ask::new(Method::HEAD, "/")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_longest_path_wins_then_conditions() {
    let routes = "[route.team]\npool = \"team\"\nheaders = { x-team = \"search\" }\n\
                  [route.messages]\npool = \"team\"\npath = \"/v1/messages\"\n\
                  [route.host]\npool = \"team\"\nhosts = [\"*.team.example\"]\n";
    let team = refrain_tests::fake::FakeUpstream::start().await;
    let (fake, refrain) =
        start_with(|config| config.tables(&format!("{routes}[pool.team]\nendpoints = [\"{}\"]", team.url())))
            .await;
    refrain.send(&Ask::chat("a")).await;
    assert_eq!((fake.posts(), team.posts()), (1, 0));
    refrain.send(&Ask::chat("a").header("x-team", "search")).await;
    assert_eq!((fake.posts(), team.posts()), (1, 1));
    refrain.send(&Ask::message("a")).await;
    assert_eq!((fake.posts(), team.posts()), (1, 2));
    refrain.send(&Ask::chat("b").header("host", "LLM.team.example:80")).await;
    assert_eq!((fake.posts(), team.posts()), (1, 3));
    refrain.send(&Ask::chat("c").header("host", "a.b.team.example")).await;
    assert_eq!((fake.posts(), team.posts()), (2, 3));
}
