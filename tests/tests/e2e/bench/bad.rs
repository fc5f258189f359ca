//! What can't be measured is refused, and says why.

use super::Bench;

#[tokio::test]
async fn bench_refuses_command_lines_that_it_does_not_understand() {
    let bench = Bench::new();
    let url = "--url http://127.0.0.1:1 --model m";
    let cases = [
        ("--model m", "--url <URL>"),
        ("--url http://127.0.0.1:1", "--model <NAME>"),
        (&format!("{url} --workload chats"), "possible values: chat, tools, agents, mooncake, azure, file"),
        (&format!("{url} --objective tpot=3ms"), "known: ttft, e2e, gap"),
        (&format!("{url} --rate 0"), "write a number above 0"),
        (&format!("{url} --arrivals constant"), "--rate <N>"),
        (&format!("{url} --repeat 30"), "a share is from 0 to 1"),
        (&format!("{url} --duration 30"), "500ms, 30s or 5m"),
        ("--url ftp://x --model m", "write a URL such as http://127.0.0.1:8080"),
        ("--url http://me:pw@x --model m", "without user, path or query"),
        ("compare --upstream http://127.0.0.1:1 --model m", "--out <DIR>"),
    ];
    for (line, expected) in cases {
        let (code, error) = bench.refused(line).await;
        assert_eq!(code, Some(2), "{line}: {error}");
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test]
async fn bench_names_the_broken_line_of_a_trace() {
    let bench = Bench::new();
    let good = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": [0]}";
    bench.write("trace.jsonl", &format!("{good}\n{good}\n{{\"timestamp\": 0}}\n"));
    let url = "--url http://127.0.0.1:1 --model m";
    let (code, error) = bench.refused(&format!("{url} --workload mooncake --trace trace.jsonl")).await;
    assert_eq!(code, Some(1));
    assert_eq!(error.matches("trace.jsonl:3").count(), 1, "{error}");
    let (_, error) = bench.refused(&format!("{url} --workload azure --trace none.csv")).await;
    assert!(error.contains("can't read none.csv"), "{error}");
}

#[tokio::test]
async fn bench_says_that_a_server_is_away_before_it_measures() {
    let bench = Bench::new();
    let (code, error) = bench.refused("--url http://127.0.0.1:1 --model m").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("can't reach http://127.0.0.1:1/; is it running?: Connection refused"), "{error}");
}
