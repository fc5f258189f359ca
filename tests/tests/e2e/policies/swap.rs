//! Hot swap: a changed component, config or reload; what is wrong leaves the old one in service and is told.

use refrain_tests::fake::Gate;
use refrain_tests::fake::openai;
use refrain_tests::{Ask, Policy, Refrain, eventually};
use serde_json::Value;

use super::with_policy;

async fn sha256(refrain: &Refrain) -> Value {
    refrain.readiness().await["policies"][0]["sha256"].clone()
}

async fn bypasses(refrain: &Refrain) -> bool {
    refrain.send(&Ask::chat("now?")).await.cache_status() == "refrain; fwd=bypass; detail=policy"
}

#[tokio::test]
async fn a_changed_component_takes_over() {
    let (_fake, refrain) = with_policy(&Policy::new()).await;
    let old = sha256(&refrain).await;
    assert!(!bypasses(&refrain).await);
    Policy::new().bypass("declared").write(refrain.dir(), "test");
    eventually("the new policy", async || bypasses(&refrain).await.then_some(())).await;
    assert_ne!(sha256(&refrain).await, old);
}

#[tokio::test]
async fn a_bad_component_leaves_the_old_one_in_service_and_says_why() {
    let (_fake, refrain) = with_policy(&Policy::new().bypass("declared")).await;
    let bad: [&[u8]; 3] = [b"\0asm\x01\0\0\0", b"(component", b""];
    for bytes in bad {
        std::fs::write(refrain.dir().join("test.wasm"), bytes).unwrap();
        let reply = refrain.reload().await;
        assert_eq!(reply.status, 422, "{}", reply.text());
        let problem = reply.json()["problems"][0].as_str().unwrap().to_owned();
        assert!(problem.contains("test"), "{problem}");
        assert!(bypasses(&refrain).await, "the old policy is asked");
    }
    Policy::new().configure("unreachable").write(refrain.dir(), "test");
    assert_eq!(refrain.reload().await.status, 422);
    assert!(bypasses(&refrain).await);
    Policy::new().write(refrain.dir(), "test");
    assert_eq!(refrain.reload().await.status, 200);
    assert!(!bypasses(&refrain).await);
}

#[tokio::test]
async fn a_request_in_flight_ends_on_the_old_policy() {
    let (fake, refrain) = with_policy(&Policy::new().keeps(60)).await;
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["one ", "two"], "stop").gate(1, &gate));
    let ask = Ask::chat("slow?").streamed();
    let stream = refrain.open(&ask).await;
    fake.posted(1).await;
    Policy::new().skips("declared").write(refrain.dir(), "test");
    assert_eq!(refrain.reload().await.status, 200);
    gate.open();
    assert_eq!(stream.whole().await.status, 200);
    refrain.counted("refrain_cache_stored_total", &[], 1.0).await;
    assert!((refrain.metrics().await.sum("refrain_cache_skips_total", &[("reason", "policy")])).abs() < 0.1);
}

#[tokio::test]
async fn reloads_that_change_nothing_keep_the_policys_instances() {
    let (_fake, refrain) = with_policy(&Policy::new()).await;
    refrain.send(&Ask::chat("warm up")).await;
    for _ in 0..20 {
        assert_eq!(refrain.reload().await.status, 200);
    }
    let ready = refrain.readiness().await;
    assert_eq!(ready["policies"].as_array().unwrap().len(), 1, "{ready}");
    assert!(ready["policies"][0]["instances"].as_u64().unwrap() <= 2, "{ready}");
}
