//! HTTP/2 floods: each is ended or outlived, and other clients are served all the while.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GET_ROOT, GOAWAY, H2Raw, HEADERS, PING, RST_STREAM,
    SETTINGS, frame, literals,
};
use refrain_tests::{Ask, Refrain};

use crate::start;

/// Many more than any budget lets through, and than the buffers between the two take after the connection was cut off.
const MANY: usize = 1_000_000;
/// Flag of a ping: an answer to one.
const ACK: u8 = 1;

/// Others are served while it lasts, and the process is as it was.
async fn check_served(refrain: &Refrain) {
    for nth in 0..5 {
        let reply = refrain.send(&Ask::chat(&format!("question {nth}")).cache_control("no-cache")).await;
        assert_eq!(reply.status, 200);
    }
    assert!(!refrain.logs().contains("panicked"), "{}", refrain.logs());
}

/// The flood is cut off before its end, by whichever guard, while another client is served.
async fn check_cut_off(bytes: impl Fn(usize) -> Vec<u8>) -> (FakeUpstream, Refrain) {
    let (fake, refrain) = start().await;
    let mut attacker = H2Raw::connect(refrain.address()).await;
    let (sent, ()) = tokio::join!(attacker.flood(MANY, bytes), check_served(&refrain));
    assert!(sent < MANY, "all of it went through");
    check_served(&refrain).await;
    (fake, refrain)
}

async fn flooded(refrain: &Refrain) {
    refrain.counted("refrain_connections_ended_total", &[("reason", "frame_flood")], 1.0).await;
}

fn stream_of(nth: usize) -> u32 {
    2 * u32::try_from(nth).unwrap() + 1
}

#[tokio::test]
async fn a_rapid_reset_flood_is_cut_off() {
    check_cut_off(|nth| {
        let stream = stream_of(nth);
        [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_ROOT),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    })
    .await;
}

#[tokio::test]
async fn a_ping_flood_is_cut_off() {
    let (_fake, refrain) = check_cut_off(|_| frame(PING, 0, 0, b"flooding")).await;
    flooded(&refrain).await;
}

#[tokio::test]
async fn a_settings_flood_is_cut_off() {
    let (_fake, refrain) = check_cut_off(|_| frame(SETTINGS, 0, 0, &[])).await;
    flooded(&refrain).await;
}

#[tokio::test]
async fn a_flood_of_frames_that_nobody_knows_is_cut_off() {
    let (_fake, refrain) = check_cut_off(|_| frame(0xbe, 0, 0, b"?")).await;
    flooded(&refrain).await;
}

#[tokio::test]
async fn a_flood_of_empty_data_is_cut_off() {
    let post = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "x"),
    ]);
    let (fake, _refrain) = check_cut_off(|nth| match nth {
        0 => frame(HEADERS, END_HEADERS, 1, &post),
        _ => frame(DATA, 0, 1, &[]),
    })
    .await;
    assert!(fake.requests("/v1/chat/completions").iter().all(|request| !request.body.is_empty()));
}

#[tokio::test]
async fn a_flood_of_padding_is_cut_off() {
    const PADDED: u8 = 8;
    let post = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "x"),
    ]);
    check_cut_off(|nth| match nth {
        0 => frame(HEADERS, END_HEADERS, 1, &post),
        // The length of the padding, which is none.
        _ => frame(DATA, PADDED, 1, &[0]),
    })
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    check_cut_off(|nth| match nth {
        0 => frame(HEADERS, 0, 1, GET_ROOT),
        nth => frame(CONTINUATION, 0, 1, &literals(&[(&format!("x-{nth}"), &"x".repeat(1000))])),
    })
    .await;
}

#[tokio::test]
async fn a_head_of_countless_empty_pieces_is_cut_off() {
    check_cut_off(|nth| match nth {
        0 => frame(HEADERS, 0, 1, GET_ROOT),
        _ => frame(CONTINUATION, 0, 1, &[]),
    })
    .await;
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let (fake, refrain) = start().await;
    let mut attacker = H2Raw::connect(refrain.address()).await;
    // Put into the table once, named ten thousand times: a "HPACK bomb".
    let mut block = GET_ROOT.to_vec();
    block.extend([0x40, 0x01, b'b', 0x7f, 0x80 | (3000 - 127) as u8 & 0x7f, ((3000 - 127) >> 7) as u8]);
    block.extend([b'b'; 3000]);
    block.extend([0xbe; 10_000]);
    attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    // Refused as a request, or the connection ended; never answered as `/`.
    match attacker.until(HEADERS).await {
        Some(head) => assert!(!head.payload.starts_with(&[0x88]), "status 200"),
        None => assert_eq!(fake.posts(), 0),
    }
    check_served(&refrain).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_served() {
    let (fake, refrain) = crate::start_with(|config| config.tables("[limits]\nh2_streams = 4")).await;
    let gate = refrain_tests::fake::Gate::default();
    for _ in 0..4 {
        fake.next(refrain_tests::fake::openai::chat_stream(&["late"], "stop").gate(1, &gate));
    }
    let mut client = H2Raw::connect(refrain.address()).await;
    for nth in 0..12 {
        let body = Ask::chat(&format!("question {nth}")).streamed().body();
        let head = literals(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/v1/chat/completions"),
            (":authority", "x"),
        ]);
        client.send(frame(HEADERS, END_HEADERS, stream_of(nth), &head)).await;
        client.send(frame(DATA, END_STREAM, stream_of(nth), &body)).await;
    }
    let mut refused = 0;
    while refused < 8 {
        let reset = client.until(RST_STREAM).await.expect("the connection goes on");
        assert!(reset.stream > stream_of(3), "{reset:?}");
        refused += 1;
    }
    fake.posted(4).await;
    assert_eq!(fake.posts(), 4);
    gate.open();
    check_served(&refrain).await;
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_let_go() {
    // It answers nothing, so that it is waited for no longer than for a head.
    let limits = "[limits]\nidle_timeout = \"400ms\"\nhead_timeout = \"400ms\"";
    let (_fake, refrain) = crate::start_with(|config| config.tables(limits)).await;
    let mut idle = H2Raw::connect(refrain.address()).await;
    idle.until(GOAWAY).await.expect("it is told first");
    idle.closed().await;
    refrain.counted("refrain_connections_ended_total", &[("reason", "idle")], 1.0).await;
    check_served(&refrain).await;
}

/// The next frame, after pings were answered.
async fn answered(client: &mut H2Raw) -> Frame {
    loop {
        let came = client.next().await.expect("the connection stays until the answer's end");
        if came.kind != PING {
            return came;
        }
        if came.flags & ACK == 0 {
            client.send(frame(PING, ACK, 0, &came.payload)).await;
        }
    }
}

#[tokio::test]
async fn what_is_asked_as_a_silent_connection_is_let_go_is_answered_to_its_end() {
    let limits = "[limits]\nidle_timeout = \"400ms\"\nhead_timeout = \"400ms\"";
    let (fake, refrain) = crate::start_with(|config| config.tables(limits)).await;
    // Several times as long as a silent connection is waited for.
    let pause = std::time::Duration::from_secs(2);
    fake.next(refrain_tests::fake::openai::chat_stream(&["late ", "answer"], "stop").pause(2, pause));
    let mut client = H2Raw::connect(refrain.address()).await;
    while answered(&mut client).await.kind != GOAWAY {}
    // The two have crossed: the first word that a connection ends still lets streams begin.
    let head = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "x"),
    ]);
    client.send(frame(HEADERS, END_HEADERS, 1, &head)).await;
    client.send(frame(DATA, END_STREAM, 1, &Ask::chat("just in time?").streamed().body())).await;
    let mut answer = Vec::new();
    loop {
        let came = answered(&mut client).await;
        if came.kind == DATA {
            answer.extend(came.payload);
            if came.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert!(String::from_utf8(answer).unwrap().ends_with("data: [DONE]\n\n"));
}
