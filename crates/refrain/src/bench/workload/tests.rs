use clap::Parser as _;
use serde_json::Value;

use super::*;
use crate::cli::{Cli, Command};

fn workload(line: &str) -> anyhow::Result<Workload> {
    let line = format!("refrain bench --url http://127.0.0.1:1 --model m {line}");
    let Some(Command::Bench(arguments)) = Cli::try_parse_from(line.split_whitespace())?.command else {
        panic!("not a bench");
    };
    Workload::read(&arguments.asking, &arguments.workload)
}

fn body(ask: &Ask) -> Value {
    serde_json::from_slice(&ask.body).unwrap()
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn the_same_seed_asks_the_same_and_another_one_something_else() {
    for kind in ["chat", "tools", "agents"] {
        let sessions = |seed: u64| {
            let workload = workload(&format!("--workload {kind} --seed {seed} --repeat 0.3")).unwrap();
            (0..20).map(|number| workload.session(number).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(sessions(1), sessions(1), "{kind}");
        assert_ne!(sessions(1), sessions(2), "{kind}");
    }
}

#[test]
fn reworded_the_same_conversations_repeat_with_other_words() {
    let plain = workload("--repeat 0.5").unwrap();
    let reworded = workload("--repeat 0.5").unwrap().reworded(7);
    let repeats = |workload: &Workload| (0..50).map(|number| workload.content_of(number)).collect::<Vec<_>>();
    assert_eq!(repeats(&plain), repeats(&reworded));
    let first = |workload: &Workload| body(&workload.session(0).unwrap().waves[0][0]);
    assert_ne!(first(&plain)["messages"][0]["content"], first(&reworded)["messages"][0]["content"]);
}

#[test]
fn as_many_conversations_repeat_as_was_asked() {
    let workload = workload("--repeat 0.3").unwrap();
    let repeated = (0..5000).filter(|number| workload.content_of(*number) != *number).count();
    assert!((1400..1600).contains(&repeated), "{repeated}");
    let repeat = (0..5000).find(|number| workload.content_of(*number) != *number).unwrap();
    let original = workload.content_of(repeat);
    assert_eq!(workload.session(repeat), workload.session(original));
}

#[test]
fn a_turn_continues_the_one_before() {
    let session = workload("--turns 3 --prompt-tokens 5 --shared-tokens 7").unwrap().session(4).unwrap();
    let messages: Vec<_> =
        session.waves.iter().map(|wave| body(&wave[0])["messages"].as_array().unwrap().clone()).collect();
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 4, 6]);
    assert_eq!(messages[2][..2], messages[0][..]);
    assert_eq!(messages[0][0]["content"].as_str().unwrap().split(' ').count(), 7);
    assert_eq!(messages[0][1]["content"].as_str().unwrap().split(' ').count(), 5);
}

#[test]
fn tools_are_offered_called_and_answered_in_each_api() {
    let roles = |api: &str| {
        let session =
            workload(&format!("--workload tools --turns 1 --api {api}")).unwrap().session(0).unwrap();
        let last = body(&session.waves[1][0]);
        assert_eq!(last["tools"].as_array().unwrap().len(), 3, "{api}");
        let messages = last["messages"].as_array().unwrap().clone();
        messages.iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(roles("chat"), ["system", "user", "assistant", "tool"]);
    assert_eq!(roles("ollama"), ["system", "user", "assistant", "tool"]);
    assert_eq!(roles("messages"), ["user", "assistant", "user"]);
}

#[test]
fn agents_of_a_level_all_begin_as_their_starter_did() {
    let session =
        workload("--workload agents --depth 2 --fan-out 3 --shared-tokens 50").unwrap().session(1).unwrap();
    assert_eq!(session.waves.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 9, 1]);
    let texts = |ask: &Ask| -> Vec<String> {
        let messages = body(ask)["messages"].as_array().unwrap().clone();
        messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    };
    let starter = texts(&session.waves[1][2]);
    for agent in &session.waves[2][6..] {
        assert_eq!(texts(agent)[..starter.len()], starter[..]);
    }
    let all: std::collections::HashSet<_> =
        session.waves.iter().flatten().map(|ask| ask.body.clone()).collect();
    assert_eq!(all.len(), 14);
}

#[test]
fn mooncake_prompts_share_beginnings_exactly_as_the_trace_says() {
    let lines =
        [(1100, "[0, 1, 2]"), (1536, "[0, 1, 3]"), (600, "[4, 1]"), (512, "[0]")].map(|(tokens, ids)| {
            format!(
                "{{\"timestamp\": 0, \"input_length\": {tokens}, \"output_length\": 9, \"hash_ids\": {ids}}}"
            )
        });
    let (_dir, path) = file("trace.jsonl", &lines.join("\n"));
    let workload = workload(&format!("--workload mooncake --trace {path}")).unwrap();
    let prompts: Vec<Vec<String>> = (0..4)
        .map(|number| {
            let body = body(&workload.session(number).unwrap().waves[0][0]);
            assert_eq!(body["max_tokens"], 9);
            body["messages"][0]["content"].as_str().unwrap().split(' ').map(str::to_owned).collect()
        })
        .collect();
    assert_eq!(prompts.iter().map(Vec::len).collect::<Vec<_>>(), [1100, 1536, 600, 512]);
    assert_eq!(prompts[0][..1024], prompts[1][..1024]);
    assert_ne!(prompts[0][1024..], prompts[1][1024..1100]);
    assert_ne!(prompts[2][..512], prompts[0][..512]);
    assert_eq!(prompts[2][512..], prompts[0][512..600]);
    assert_eq!(prompts[3][..], prompts[0][..512]);
    assert!(workload.session(4).is_none() && workload.has_times());
}

#[test]
fn a_broken_line_is_named_with_its_file_and_number() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50,x,1\n";
    let mooncake = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": []}\n";
    let cases = [
        ("azure", azure, ":3: no line of an Azure trace", "\"x\" is no number"),
        ("mooncake", mooncake, ":1: no line of a Mooncake trace", "hash_ids has 0"),
        ("file", "{\"messages\": []}\n\n{\"at\": 1}\n", ":3: no request", "neither `messages` nor `body`"),
        ("file", "{\"body\": {}, \"at\": 1, \"path\": 2}\n", ":1: no request", "unknown field `path`"),
        ("file", "\n", "no requests in it", ""),
    ];
    for (kind, text, place, what) in cases {
        let (_dir, path) = file("trace", text);
        let error = format!("{:#}", workload(&format!("--workload {kind} --trace {path}")).unwrap_err());
        assert!(error.contains(place) && error.contains(what), "{error}");
    }
    let error = workload("--workload azure").unwrap_err().to_string();
    assert_eq!(error, "--workload azure needs --trace FILE");
}

#[test]
fn azure_times_count_from_the_first_request_and_may_pass_faster() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n2024-05-10 00:00:00+00:00,3,1\n\
                2023-11-16 18:15:47.5,7,1\n";
    let (_dir, path) = file("azure.csv", text);
    let workload = workload(&format!("--workload azure --speed 4 --trace {path}")).unwrap();
    let at = |number| workload.session(number).unwrap().at.unwrap();
    assert_eq!((at(0), at(1)), (Duration::ZERO, Duration::from_millis(250)));
}

#[test]
fn own_requests_keep_what_they_say() {
    let (_dir, path) =
        file("own.jsonl", "{\"at\": 2, \"body\": {\"messages\": [], \"top_k\": 7, \"model\": \"x\"}}\n");
    let session = workload(&format!("--workload file --trace {path} --speed 2")).unwrap().session(0).unwrap();
    assert_eq!(session.at, Some(Duration::from_secs(1)));
    let body = body(&session.waves[0][0]);
    assert_eq!((&body["top_k"], &body["model"], &body["stream"]), (&7.into(), &"x".into(), &true.into()));
}

#[test]
fn paraphrases_come_as_single_questions_of_the_file() {
    let (_dir, path) = file("p.tsv", "How do I pay?\tHow can I pay?\nWhere is it?\tWhere's it?\n");
    let workload = workload(&format!("--paraphrases {path} --paraphrase 1")).unwrap();
    let question = |number| {
        let session = workload.session(number).unwrap();
        assert_eq!(session.waves.len(), 1);
        body(&session.waves[0][0])["messages"][1]["content"].as_str().unwrap().to_owned()
    };
    let asked: std::collections::HashSet<String> = (0..50).map(question).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");
}

#[test]
fn sessions_take_turns_in_a_flow() {
    let workload = Arc::new(workload("--turns 2").unwrap());
    let flow: Vec<Ask> = Flow::new(workload.clone(), 3).take(7).map(|(_, ask)| ask).collect();
    let of = |session: u64, turn: usize| workload.session(session).unwrap().waves[turn][0].clone();
    let expected = [of(0, 0), of(1, 0), of(2, 0), of(0, 1), of(1, 1), of(2, 1), of(3, 0)];
    assert_eq!(flow, expected);
}

#[test]
fn a_line_without_a_time_comes_with_the_one_before_it() {
    let line = |text: &str| format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let text = format!(
        "{}\n{{\"at\": 2, \"body\": {}}}\n{}\n{{\"at\": 1, \"body\": {}}}\n",
        line("first"),
        line("second"),
        line("with the second"),
        line("third")
    );
    let (_dir, path) = file("own.jsonl", &text);
    let workload = workload(&format!("--workload file --trace {path}")).unwrap();
    let sessions = (0..4).map(|number| workload.session(number).unwrap());
    let order: Vec<(u64, String)> = sessions
        .map(|session| {
            let said = body(&session.waves[0][0])["messages"][0]["content"].as_str().unwrap().to_owned();
            (session.at.unwrap().as_secs(), said)
        })
        .collect();
    let expected = [(0, "first"), (1, "third"), (2, "second"), (2, "with the second")];
    assert_eq!(order, expected.map(|(at, said)| (at, said.to_owned())));
}

#[test]
fn a_piece_of_a_mooncake_trace_begins_at_once() {
    let line = |at: u32| format!(r#"{{"timestamp":{at},"input_length":5,"output_length":5,"hash_ids":[1]}}"#);
    let (_dir, path) = file("m.jsonl", &format!("{}\n{}\n", line(3_000_500), line(3_000_000)));
    let workload = workload(&format!("--workload mooncake --trace {path}")).unwrap();
    let at = |number| workload.session(number).unwrap().at.unwrap();
    assert_eq!((at(0), at(1)), (Duration::ZERO, Duration::from_millis(500)));
}
