//! The end: answers under way are finished, nobody new is let in, and then the process is gone.

use refrain_tests::fake::{Answer, Gate, openai};
use refrain_tests::{Ask, Client, Raw, eventually};

use crate::{start, start_with};

#[tokio::test]
async fn sigterm_lets_a_stream_end_and_turns_new_clients_away() {
    for h2 in [false, true] {
        let (fake, mut refrain) = start().await;
        let client = if h2 { Client::h2(refrain.address()) } else { Client::http(refrain.address()) };
        let gate = Gate::default();
        fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
        let mut stream = client.open(&Ask::chat("long story").streamed()).await;
        stream.until("first ").await;
        refrain.sigterm();
        eventually("refusal of new connections", async || {
            tokio::net::TcpStream::connect(refrain.address()).await.is_err().then_some(())
        })
        .await;
        let ready = refrain.admin(&Ask::get("/readyz")).await;
        assert_eq!(ready.status, 503, "{}", ready.text());
        assert!(refrain.is_alive());
        gate.open();
        let rest = stream.whole().await.text();
        assert!(rest.contains("second") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
        assert!(refrain.ended().await.success());
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let (_fake, mut refrain) = start().await;
    let mut idle = Raw::connect(refrain.address()).await;
    idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(idle.response().await.0, 200);
    let _silent = Raw::connect(refrain.address()).await;
    refrain.sigterm();
    assert!(refrain.ended().await.success());
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn the_drain_timeout_ends_what_does_not_end_by_itself() {
    let (fake, mut refrain) = start_with(|config| config.runtime("drain_timeout = \"300ms\"")).await;
    fake.next(openai::chat_stream(&["first ", "second"], "stop").hang(3));
    let mut stream = refrain.open(&Ask::chat("endless").streamed()).await;
    stream.until("first ").await;
    refrain.sigterm();
    refrain.ended().await;
    let (rest, _) = stream.rest().await;
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
    fake.abandoned(1).await;
}

#[tokio::test]
async fn sigterm_lets_a_whole_answer_end_and_closes_its_connection() {
    let (fake, mut refrain) = start().await;
    let gate = Gate::default();
    let message = serde_json::json!({"role": "assistant", "content": "late"});
    fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).gate(0, &gate));
    let client = Client::http(refrain.address());
    let asking = async { client.send(&Ask::chat("slow")).await };
    let ending = async {
        fake.posted(1).await;
        refrain.sigterm();
        gate.open();
        refrain.ended().await
    };
    let (reply, status) = tokio::join!(asking, ending);
    assert_eq!((reply.status, reply.answer().as_str()), (200, "late"));
    assert!(status.success());
}

#[tokio::test]
async fn a_second_sigterm_stops_at_once() {
    let (fake, mut refrain) = start().await;
    fake.next(openai::chat_stream(&["first ", "second"], "stop").hang(3));
    let mut stream = refrain.open(&Ask::chat("endless").streamed()).await;
    stream.until("first ").await;
    refrain.sigterm();
    refrain.logged(0, "draining").await;
    refrain.sigterm();
    assert!(!refrain.ended().await.success());
    fake.abandoned(1).await;
}
