//! The set-ups that are compared, and their config files.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::Uri;
use refrain_core::{Api, Dialect};

/// Where answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Off,
    Embedded,
    Redis,
}

/// Which server of several is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    RoundRobin,
    Prefix,
}

/// One set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arm {
    pub(super) name: &'static str,
    pub(super) store: Store,
    pub(super) balance: Balance,
}

/// The set-ups that can be compared, from the plainest on, and why others are left out.
pub(super) fn arms(has_redis: bool, upstreams: usize) -> (Vec<Arm>, Vec<&'static str>) {
    let arm = |name, store, balance| Arm { name, store, balance };
    let mut arms = vec![
        arm("no cache", Store::Off, Balance::RoundRobin),
        arm("embedded", Store::Embedded, Balance::RoundRobin),
    ];
    let mut left_out = Vec::new();
    if has_redis {
        arms.push(arm("embedded + Redis", Store::Redis, Balance::RoundRobin));
    } else {
        left_out.push("embedded + Redis: no `--redis URL` was given");
    }
    if upstreams > 1 {
        let store = if has_redis { Store::Redis } else { Store::Embedded };
        arms.push(arm("+ prefix affinity", store, Balance::Prefix));
    } else {
        left_out.push("+ prefix affinity: with one upstream there is nothing to choose");
    }
    left_out.push("the semantic tier: it needs a model, and says more of the questions than of the machine");
    (arms, left_out)
}

/// What the proxies of a set-up have in common.
pub(super) struct Site<'a> {
    pub(super) upstreams: &'a [Uri],
    pub(super) api: Api,
    pub(super) redis: Option<&'a str>,
    /// First part of key names in Redis: one for each measurement.
    pub(super) prefix: String,
    /// The secret of cache keys.
    pub(super) secret_file: PathBuf,
    /// The upstreams' `Authorization`.
    pub(super) authorization_file: Option<PathBuf>,
    /// Authorities of upstreams with https.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxies: u16,
}

impl Arm {
    /// A proxy's config file.
    pub(super) fn config(&self, site: &Site<'_>, data: SocketAddr, admin: SocketAddr) -> String {
        let endpoints: Vec<String> =
            site.upstreams.iter().map(|url| url.to_string().trim_end_matches('/').to_owned()).collect();
        let kind = if site.api.dialect() == Dialect::Ollama { "ollama" } else { "generic" };
        let balance = match self.balance {
            Balance::RoundRobin => "round-robin",
            Balance::Prefix => "prefix",
        };
        let mut text = format!(
            "[listener.main]\naddress = \"{data}\"\n\n[admin]\naddress = \"{admin}\"\n\n\
             [log]\nfilter = \"warn\"\naccess_sample = 0\n\n[fleet]\nproxies = {}\n\n\
             [pool.bench]\nkind = {kind:?}\nendpoints = {endpoints:?}\nbalance = {balance:?}\n",
            site.proxies
        );
        // Writing to a `String` can't fail.
        if let Some(file) = &site.authorization_file {
            let _ = writeln!(text, "authorization = {{ file = {file:?} }}");
        }
        if let Some(file) =
            site.ca_file.as_ref().filter(|_| endpoints.iter().any(|url| url.starts_with("https")))
        {
            let _ = writeln!(text, "\n[pool.bench.tls]\nca_file = {file:?}");
        }
        text + "\n[route.bench]\npool = \"bench\"\n\n" + &self.store(site)
    }

    fn store(&self, site: &Site<'_>) -> String {
        let cache = "[route.bench.cache]\n";
        match self.store {
            Store::Off => "[store]\nkind = \"off\"\n".to_owned(),
            Store::Embedded => format!("[store]\nkind = \"embedded\"\n\n{cache}"),
            Store::Redis => format!(
                "[store]\nkind = \"redis\"\nsecret_file = {:?}\n\n[store.redis]\nurl = {:?}\nprefix = {:?}\n\
                 require_store = true\n\n{cache}",
                site.secret_file,
                site.redis.unwrap_or_default(),
                site.prefix
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said() {
        let names =
            |redis, upstreams| arms(redis, upstreams).0.iter().map(|arm| arm.name).collect::<Vec<_>>();
        assert_eq!(names(false, 1), ["no cache", "embedded"]);
        assert_eq!(names(true, 2), ["no cache", "embedded", "embedded + Redis", "+ prefix affinity"]);
        let (_, left_out) = arms(false, 1);
        assert!(left_out[0].contains("--redis") && left_out[1].contains("one upstream"), "{left_out:?}");
    }

    #[test]
    fn every_config_is_one_that_refrain_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let upstreams = ["http://127.0.0.1:1".parse().unwrap(), "http://127.0.0.1:2".parse().unwrap()];
        let authorization_file = dir.path().join("authorization");
        std::fs::write(&authorization_file, "Bearer k").unwrap();
        let site = Site {
            upstreams: &upstreams,
            api: Api::OllamaChat,
            redis: Some("redis://127.0.0.1:6379"),
            prefix: "bench-1".to_owned(),
            secret_file: dir.path().join("secret"),
            authorization_file: Some(authorization_file),
            ca_file: None,
            proxies: 2,
        };
        for arm in arms(true, 2).0 {
            let file = dir.path().join("refrain.toml");
            let config = arm.config(&site, ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
            std::fs::write(&file, &config).unwrap();
            let source = refrain_config::Source::read(&file, Vec::new()).unwrap();
            refrain_config::load(&source).unwrap_or_else(|errors| panic!("{errors}\n{config}"));
        }
    }
}
