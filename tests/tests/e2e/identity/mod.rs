//! Who is asking: keys in files, tokens, signed headers, client certificates; and who may operate.

mod certificates;
mod keys;
mod operators;
mod tokens;

use refrain_tests::{Refrain, refrain_binary, within};

/// Runs a command of the binary to its end; whether it succeeded, and what it printed.
async fn command(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = tokio::process::Command::new(refrain_binary());
    command.args(arguments).envs(environment.iter().copied()).kill_on_drop(true);
    let output = within("the command", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Everything that operators can see of it.
async fn shown(refrain: &Refrain, token: Option<&str>) -> String {
    let mut shown = refrain.logs();
    for page in ["/metrics", "/config", "/readyz", "/upstreams"] {
        let ask = refrain_tests::Ask::get(page);
        let ask = match token {
            Some(token) => ask.header("authorization", &format!("Bearer {token}")),
            None => ask,
        };
        shown.push_str(&refrain.admin(&ask).await.text());
    }
    shown
}
