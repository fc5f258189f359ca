//! The admin listener: who may see, and who may act.

use http::Method;
use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Refrain};

use super::{command, shown};

/// A new token for operators and its table.
async fn token(role: &str) -> (String, String) {
    let (made, said) = command(&["key", "new", "--operator", role], &[]).await;
    assert!(made, "{said}");
    let token = said.lines().find(|line| line.starts_with("rfnop_")).unwrap().to_owned();
    (token, said[said.find("[admin.").unwrap()..].to_owned())
}

async fn page(refrain: &Refrain, method: Method, path: &str, token: Option<&str>) -> u16 {
    let ask = Ask::new(method, path);
    let ask = match token {
        Some(token) => ask.header("authorization", &format!("Bearer {token}")),
        None => ask,
    };
    refrain.admin(&ask).await.status
}

#[tokio::test]
async fn an_operators_token_may_what_its_role_says() {
    let fake = FakeUpstream::start().await;
    let ((read, reads), (operate, operates)) = (token("read").await, token("operate").await);
    let refrain = Refrain::start(&Config::new(&fake.url()).tables(&format!("{reads}\n{operates}"))).await;
    for path in ["/metrics", "/config", "/upstreams", "/", "/nowhere"] {
        assert_eq!(page(&refrain, Method::GET, path, None).await, 401, "{path}");
        assert_eq!(page(&refrain, Method::GET, path, Some("rfnop_wrong")).await, 401, "{path}");
        assert_ne!(page(&refrain, Method::GET, path, Some(&read)).await, 401, "{path}");
    }
    assert_eq!(page(&refrain, Method::POST, "/reload", Some(&read)).await, 403);
    assert_eq!(page(&refrain, Method::POST, "/reload", None).await, 401);
    assert_eq!(page(&refrain, Method::POST, "/reload", Some(&operate)).await, 200);
    assert_eq!(page(&refrain, Method::GET, "/livez", None).await, 200);
    let short = refrain.admin(&Ask::get("/readyz")).await.json();
    assert!(short["ready"] == true && short.get("upstreams").is_none(), "{short}");

    let (admin, dir) = (refrain.admin_address().to_string(), tempfile::tempdir().unwrap());
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{operate}\n")).unwrap();
    let file = file.to_str().unwrap();
    assert!(!command(&["upstreams", "--admin", &admin], &[]).await.0);
    assert!(command(&["upstreams", "--admin", &admin], &[("REFRAIN_ADMIN_TOKEN", &read)]).await.0);
    let purge = ["purge", "--everything", "--admin", &admin];
    let (refused, said) = command(&purge, &[("REFRAIN_ADMIN_TOKEN", &read)]).await;
    assert!(!refused && said.contains("operate"), "{said}");
    let (purged, said) = command(&[&purge[..], &["--token-file", file]].concat(), &[]).await;
    assert!(purged, "{said}");
    let shown = shown(&refrain, Some(&read)).await;
    assert!(!shown.contains(&read) && !shown.contains(&operate) && !shown.contains("blake3:"), "{shown}");
}

#[tokio::test]
async fn tokens_come_and_go_with_a_reload() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url());
    let refrain = Refrain::start(&config).await;
    assert_eq!(page(&refrain, Method::GET, "/config", None).await, 200);
    let (operate, table) = token("operate").await;
    refrain.write_config(&config.clone().tables(&table));
    refrain.reload().await;
    assert_eq!(page(&refrain, Method::GET, "/config", None).await, 401);
    assert_eq!(page(&refrain, Method::GET, "/config", Some(&operate)).await, 200);
}

#[tokio::test]
async fn without_a_token_the_admin_listener_stays_on_this_machine() {
    let config = Config::new("http://127.0.0.1:1").admin("address = \"0.0.0.0:0\"");
    let (status, said) = Refrain::run_to_end(&config).await;
    assert!(status.code() == Some(2) && said.contains("admin.token"), "{said}");
}
