//! nginx twice: as the upstream that answers at once, and as the proxy to compare with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cases::{LOAD_CORE, PROXY_CORE};
use crate::child::{Server, free_port};

/// A complete chat completion of about 1 KB that ends naturally, so that it may be stored.
const ANSWER: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1795299724,"model":"bench","system_fingerprint":"fp_bench","choices":[{"index":0,"message":{"role":"assistant","content":"A proxy that reads a request body before it sends anything holds the request back by as long as the body takes to arrive. Most bodies of chat requests are short and come with the head, so that the wait can not be measured. Where they are long, because a picture or a long document is in them, the upstream needs the whole of it anyway before it can begin, so that little is lost as long as the proxy passes the bytes on without changing them and without copying them twice. What must never be held back is the answer: its first bytes tell the user that somebody is there. So pass every chunk on when it comes, read it along for the cache on the side, and decide at the end whether it may be kept."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":120,"completion_tokens":150,"total_tokens":270}}"#;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers at once.
    Upstream,
    /// Passes on to that port.
    Proxy { upstream: u16 },
}

/// Starts one worker process on its core; gives the server and its port.
pub(crate) fn start(nginx: &Path, dir: &Path, role: Role) -> Result<(Server, u16)> {
    let port = free_port()?;
    let (name, core, server) = match role {
        Role::Upstream => ("upstream", LOAD_CORE, format!("location / {{ return 200 '{ANSWER}'; }}")),
        Role::Proxy { .. } => (
            "proxy",
            PROXY_CORE,
            "location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; }"
                .to_owned(),
        ),
    };
    let pool = match role {
        Role::Upstream => String::new(),
        Role::Proxy { upstream } => {
            format!(
                "upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}"
            )
        }
    };
    let home = dir.join(format!("nginx-{name}"));
    fs::create_dir_all(&home)?;
    let config = format!(
        "daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; default_type application/json; keepalive_requests 100000000; client_max_body_size 16m;\n\
         client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;\n\
         uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi; tcp_nodelay on; {pool}\n\
         server {{ listen 127.0.0.1:{port}; {server} }} }}\n",
        home = home.display(),
    );
    let file = home.join("nginx.conf");
    fs::write(&file, config).with_context(|| format!("can't write {}", file.display()))?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", &core.to_string()])
        .arg(nginx)
        .arg("-c")
        .arg(&file)
        .arg("-e")
        .arg(home.join("error.log"));
    let ready = format!("http://127.0.0.1:{port}/");
    Ok((Server::start("nginx", &mut command, home.join("log"), &ready)?, port))
}
