//! The unit, socket and container files that operators copy: what they name is there, and what they promise is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use refrain_tests::refrain_binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn example(name: &str) -> String {
    fs::read_to_string(root().join("config/examples").join(name)).unwrap()
}

/// The values of a key of a unit file.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(own, _)| *own == key)
        .map(|(_, value)| value)
        .collect()
}

fn help() -> String {
    let of = |arguments: &[&str]| Command::new(refrain_binary()).args(arguments).output().unwrap().stdout;
    String::from_utf8([of(&["--help"]), of(&["check", "--help"])].concat()).unwrap()
}

#[test]
fn commands_in_the_units_have_flags_that_exist() {
    let help = help();
    for name in ["refrain.service", "refrain@.service"] {
        let unit = example(name);
        let commands = values(&unit, "ExecStart");
        assert!(!commands.is_empty(), "{name}");
        for command in commands {
            let mut words = command.split_whitespace();
            assert_eq!(words.next(), Some("/usr/bin/refrain"), "{command}");
            for word in words.filter(|word| word.starts_with("--") || *word == "check") {
                assert!(help.contains(word), "{name}: {word} is no flag of refrain");
            }
        }
    }
}

#[test]
fn the_units_lock_the_service_in_and_leave_it_what_it_needs() {
    for name in ["refrain.service", "refrain@.service"] {
        let unit = example(name);
        let is = |key: &str, value: &str| assert_eq!(values(&unit, key), [value], "{name}: {key}");
        // With it the manager sends the signal itself; a command beside it would reload twice.
        is("Type", "notify-reload");
        assert!(values(&unit, "ExecReload").is_empty(), "{name}");
        is("NoNewPrivileges", "yes");
        is("ProtectSystem", "strict");
        is("ProtectHome", "yes");
        is("PrivateTmp", "yes");
        is("PrivateDevices", "yes");
        is("CapabilityBoundingSet", "");
        is("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX");
        is("StateDirectory", "refrain");
        // Policies are compiled to machine code in the process.
        assert!(values(&unit, "MemoryDenyWriteExecute").iter().all(|value| *value == "no"), "{name}");
        // A stop waits for answers under way: longer than shutdown_delay and drain_timeout together.
        let stop: u64 = values(&unit, "TimeoutStopSec")[0].parse().unwrap();
        assert!(stop > 30, "{name}");
    }
}

#[test]
fn a_service_starts_also_while_a_model_server_is_away() {
    for name in ["refrain.service", "refrain@.service"] {
        let unit = example(name);
        // A check of what config names would fail then, and after five starts systemd would try no more.
        assert!(values(&unit, "ExecStartPre").is_empty(), "{name}");
        assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"], "{name}");
    }
}

#[test]
fn sockets_are_named_as_the_default_listeners_are() {
    let unit = example("refrain.socket");
    assert_eq!(values(&unit, "FileDescriptorName"), ["main"]);
    assert_eq!(values(&unit, "ListenStream"), ["127.0.0.1:8080"]);
    assert_eq!(values(&unit, "Accept"), ["no"]);
}

#[test]
fn the_container_runs_as_nobody_in_particular_and_tells_its_health() {
    let file = example("Containerfile");
    let last = file.rsplit("\nFROM ").next().unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(
        user.split(':').next().unwrap().parse::<u32>().is_ok_and(|id| id > 0),
        "a number, so that it can be checked: {user}"
    );
    assert!(last.contains("\nHEALTHCHECK ") && last.contains("/readyz"));
    assert!(last.contains("ENTRYPOINT [\"/usr/bin/refrain\"]"));
    // What is copied from the repository is there.
    for line in file.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let mut paths: Vec<&str> = line.split_whitespace().skip(1).collect();
        paths.pop();
        for path in paths.into_iter().filter(|path| *path != ".") {
            assert!(root().join(path).exists(), "{line}");
        }
    }
    // The toolchain is the one that the workspace asks for: with another, rustup would fetch it first.
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let version =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(file.contains(&format!("rust:{version}-")), "not built with Rust {version}");
}

#[test]
fn a_container_is_built_from_what_the_repository_holds_and_from_nothing_that_was_built_before() {
    let lines = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let ignored = lines(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    for path in lines(".gitignore").lines().filter(|line| line.starts_with('/')) {
        assert!(ignored.contains(&path), "{path} goes into the container's build");
    }
    // What the workspace is made of is not left out.
    for path in ["crates", "tests", "wit", "config", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        assert!(root().join(path).exists() && !ignored.iter().any(|line| line.contains(path)), "{path}");
    }
}

/// Whether the container's health check finds a process with this admin listener well.
fn is_healthy(admin: std::net::SocketAddr) -> bool {
    let file = example("Containerfile");
    let (_, check) = file.split_once("\nHEALTHCHECK ").unwrap();
    let (_, command) = check.split_once("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(command.lines().next().unwrap()).unwrap();
    let [shell, flag, script] = command.try_into().unwrap();
    assert!(script.contains("/dev/tcp/127.0.0.1/9090"), "{script}");
    let script = script.replace("127.0.0.1/9090", &format!("{}/{}", admin.ip(), admin.port()));
    Command::new(shell).args([flag, script]).output().unwrap().status.success()
}

#[tokio::test]
async fn the_containers_health_check_tells_a_process_that_serves_from_one_that_drains_and_from_none() {
    let (_fake, mut refrain) = crate::start_with(|config| config.runtime("shutdown_delay = \"3s\"")).await;
    assert!(is_healthy(refrain.admin_address()));
    refrain.sigterm();
    refrain.logged(0, "draining").await;
    assert!(!is_healthy(refrain.admin_address()));
    refrain.ended().await;
    assert!(!is_healthy(refrain.admin_address()));
}
