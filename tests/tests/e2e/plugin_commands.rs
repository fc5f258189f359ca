//! `refrain plugin run`, `test`, `inspect` and `bench`, with components that tell what they decide.

use std::path::Path;
use std::process::{Command, Output};

use refrain_tests::{Policy, refrain_binary};
use serde_json::{Value, json};

/// A folder with a policy `p.wasm`, a request, and cases.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(policy: &Policy, cases: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        policy.write(dir.path(), "p");
        std::fs::write(dir.path().join("cases.toml"), cases).unwrap();
        let request = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        std::fs::write(dir.path().join("request.json"), request.to_string()).unwrap();
        Self(dir)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        refrain(self.0.path(), arguments)
    }

    fn test(&self) -> (bool, String) {
        let output = self.run(&["test", "p.wasm", "cases.toml"]);
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn decision(&self, arguments: &[&str]) -> Value {
        let all = [&["run", "p.wasm", "--request", "request.json", "--json"], arguments].concat();
        let output = self.run(&all);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    }
}

fn refrain(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(refrain_binary());
    command.current_dir(dir).env("XDG_CACHE_HOME", dir.join("cache")).arg("plugin").args(arguments);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn cases_that_hold_are_ok_and_one_that_does_not_fails_with_both_values() {
    let cases = "[route.cache]\nttl = \"1h\"\n\
                 [[case]]\nname = \"a minute\"\nuser = \"hi\"\nexpect = { decision = \"cache\", ttl = \"60s\" }\n\
                 [[case]]\nname = \"an hour\"\nuser = \"hi\"\nexpect = { ttl = \"1h\" }\n";
    let (all_hold, told) = Bench::new(&Policy::new().ttl(60), cases).test();
    assert!(!all_hold);
    let expected = "ok      a minute\nFAILED  an hour\n        ttl: expected \"1h\", found \"1m\"\n\n2 cases, 1 failed\n";
    assert_eq!(told, expected);
}

#[test]
fn keys_are_compared_between_cases() {
    let case = |name: &str, project: &str, rest: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nuser = \"hi\"\nheaders = {{ x-project = \"{project}\" }}\n{rest}\n"
        )
    };
    let cases = case("a", "1", "expect = { key = [\"header:x-project\"] }")
        + &case("same", "1", "same_key_as = \"a\"")
        + &case("other", "2", "other_key_than = \"a\"");
    let bench = Bench::new(&Policy::new().key_header("x-project"), &cases);
    assert_eq!(bench.test(), (true, "ok      a\nok      same\nok      other\n\n3 cases, 0 failed\n".into()));
    let (all_hold, told) =
        Bench::new(&Policy::new(), &(case("a", "1", "") + &case("other", "2", "other_key_than = \"a\"")))
            .test();
    assert!(!all_hold && told.contains("other_key_than \"a\": the keys are the same: "), "{told}");
}

#[test]
fn later_hooks_are_asked_about_made_up_answers() {
    let cases = "[[case]]\nname = \"none\"\nuser = \"hi\"\ncandidates = [{ similarity = 0.99 }]\n\
                 expect_verdict = { miss = \"undeclared\" }\n\
                 [[case]]\nname = \"briefly\"\nuser = \"hi\"\nresponse = { text = \"x\" }\n\
                 expect_outcome = { keep = true, ttl = \"7s\" }\n";
    let (all_hold, told) = Bench::new(&Policy::new().accepts_none("stale").keeps(7), cases).test();
    assert!(all_hold, "{told}");
}

#[test]
fn a_request_that_no_policy_would_see_fails_its_case_and_no_other() {
    let cases = "[[case]]\nname = \"broken\"\nbody = '{'\nexpect = { decision = \"cache\" }\n\
                 [[case]]\nname = \"whole\"\nuser = \"hi\"\nexpect = { decision = \"cache\" }\n\
                 [[case]]\nname = \"told\"\npath = \"/nowhere\"\nuser = \"hi\"\nexpect = { error = \"inference APIs\" }\n";
    let (all_hold, told) = Bench::new(&Policy::new(), cases).test();
    assert!(!all_hold && told.contains("FAILED  broken") && told.ends_with("3 cases, 1 failed\n"), "{told}");
}

#[test]
fn a_run_tells_the_decision_within_the_bounds_of_a_route() {
    let bench = Bench::new(&Policy::new().ttl(90_000), "");
    assert_eq!(bench.decision(&[])["ttl"], "1h");
    let config = "[pool.p]\nendpoints = [\"http://a\"]\n[route.r]\npool = \"p\"\n\
                  cache = { ttl = \"1h\", ttl_max = \"2days\" }\n";
    std::fs::write(bench.0.path().join("refrain.toml"), config).unwrap();
    assert_eq!(bench.decision(&["--route-config", "refrain.toml#r"])["ttl"], "1day1h");
}

#[test]
fn what_has_no_grant_fails_and_with_it_does_not() {
    let bench = Bench::new(&Policy::new().pool("gpu-b"), "");
    let failed = bench.decision(&[]);
    assert_eq!((&failed["decision"], &failed["error"]), (&json!("error"), &json!("policy_not_granted")));
    assert_eq!(bench.decision(&["--grants", "pool"])["pool"], "gpu-b");
}

#[test]
fn a_component_is_shown_and_measured() {
    let bench = Bench::new(&Policy::new(), "");
    let shown = text(&bench.run(&["inspect", "p.wasm"]).stdout);
    assert!(shown.contains("on-request") && shown.contains("[plugin.p]\nfile = \"p.wasm\""), "{shown}");
    let measured = text(&bench.run(&["bench", "p.wasm", "--calls", "20"]).stdout);
    assert!(measured.contains("256 KB") && measured.contains("one more instance takes"), "{measured}");
    let missing = bench.run(&["inspect", "q.wasm"]);
    assert_eq!((missing.status.code(), text(&missing.stderr).contains("can't read q.wasm")), (Some(1), true));
}
