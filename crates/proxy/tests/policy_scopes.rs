//! Whatever policies say, and in whatever order: nobody is led to an entry that was kept for others, unless the operator
//! granted wider scopes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of this is tests")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use refrain_core::settings::{
    Grant, Isolation, OnError, Plugin, PluginHost as HostSettings, PluginLimits, Priority, Route, RouteCache,
    RouteMatch, RoutePlugin, RouteSemantic, Timeouts,
};
use refrain_core::{Identity, Role, Scope};
use refrain_plugin::{PluginHost, ResponseSummary};
use refrain_proxy::rehearsal::{Rehearsal, Rehearsed, RehearsedRequest, RehearsedResponse};

const WORLD: &str = include_str!("../../../plugins/_hostile/world.wat");
const HOOKS: &str = include_str!("../../../plugins/_hostile/hooks.wat");
const POLICY: &str = include_str!("../../../plugins/_hostile/policy.wat");

/// Where a policy's plan and its verdict of an answer lie in its memory; see `policy.wat`.
const PLAN: Range<u32> = 0x800..0x890;
const OUTCOME: Range<u32> = 0xa00..0xa40;
/// Names that scopes, headers and pointers may take: all of them mean something.
const TEXTS: [(u32, &str); 5] =
    [(0xd00, "group"), (0xd10, "x-user"), (0xd20, "/messages/0/content"), (0xd40, "ann"), (0xd50, "")];

/// One byte, number or text that a policy writes into what it says.
#[derive(Clone, Copy, Debug)]
enum Said {
    Byte(u32, u8),
    Number(u32, u32),
    /// A text's address and length.
    Text(u32, usize),
}

impl Said {
    fn at(self) -> u32 {
        let (Self::Byte(at, _) | Self::Number(at, _) | Self::Text(at, _)) = self;
        at
    }

    fn code(self) -> String {
        match self {
            Self::Byte(at, value) => format!("(i32.store8 (i32.const {at}) (i32.const {value}))\n"),
            Self::Number(at, value) => {
                format!("(i32.store (i32.const {at}) (i32.const {}))\n", value.cast_signed())
            }
            Self::Text(at, which) => {
                let (from, text) = TEXTS[which];
                format!("(call $text (i32.const {at}) (i32.const {from}) (i32.const {}))\n", text.len())
            }
        }
    }
}

fn anywhere(range: Range<u32>) -> impl Strategy<Value = Vec<Said>> {
    let words = (range.end - range.start) / 4;
    let at = (0..words).prop_map(move |word| range.start + 4 * word);
    let said = prop_oneof![
        (at.clone(), 0..6u8).prop_map(|(at, value)| Said::Byte(at, value)),
        (at.clone(), prop_oneof![0..4u32, any::<u32>()]).prop_map(|(at, value)| Said::Number(at, value)),
        (at, 0..TEXTS.len()).prop_map(|(at, which)| Said::Text(at, which)),
    ];
    said.prop_map(|said| vec![said])
}

/// What leads somewhere: scopes, sources, parts and edits that a policy would really say.
fn sensible() -> impl Strategy<Value = Vec<Said>> {
    let text = 0..TEXTS.len();
    let list = |at: u32, item: u32| vec![Said::Number(at, item), Said::Number(at + 4, 1)];
    prop_oneof![
        (0..5u8, text.clone())
            .prop_map(|(case, text)| vec![Said::Byte(0x818, case), Said::Text(0x81c, text)]),
        (0..5u8, text.clone(), any::<u32>()).prop_map(|(case, text, number)| {
            vec![Said::Byte(0x828, case), Said::Text(0x82c, text), Said::Number(0x830, number)]
        }),
        (0..11u8, text.clone()).prop_map(move |(case, text)| {
            [list(0x804, 0xe00), vec![Said::Byte(0xe00, case), Said::Text(0xe04, text)]].concat()
        }),
        (0..3u8, text.clone(), any::<bool>()).prop_map(move |(case, text, sent)| {
            let (op, sent) = (Said::Byte(0xe48, case), Said::Byte(0xe54, u8::from(sent)));
            [list(0x80c, 0xe40), vec![Said::Text(0xe40, 2), op, Said::Text(0xe4c, text), sent]].concat()
        }),
        (0..5u8, text).prop_map(|(case, text)| {
            vec![Said::Byte(0xa10, 1), Said::Byte(0xa14, case), Said::Text(0xa18, text)]
        }),
    ]
}

/// All that one policy says.
fn policy() -> impl Strategy<Value = Vec<Said>> {
    let one = prop_oneof![4 => sensible(), 1 => anywhere(PLAN), 1 => anywhere(OUTCOME)];
    prop::collection::vec(one, 0..5).prop_map(|all| all.concat())
}

fn component(said: &[Said]) -> String {
    let code = |hook: bool| {
        let of_hook = said.iter().filter(|said| OUTCOME.contains(&said.at()) == hook);
        of_hook.map(|said| said.code()).collect::<String>()
    };
    let mut data = String::new();
    for (at, text) in TEXTS {
        writeln!(data, "(data (i32.const {at}) \"{text}\")").unwrap();
    }
    let policy = POLICY
        .replace(";; @on-request", &code(false))
        .replace(";; @on-response", &code(true))
        .replacen("(global $calls", &format!("{data} (global $calls"), 1);
    WORLD.replace(";; @policy", &policy).replace(";; @hooks", HOOKS)
}

fn plugin(dir: &Path, nth: usize, said: &[Said], grants: &BTreeSet<Grant>) -> RoutePlugin {
    let file = dir.join(format!("{nth}.wat"));
    std::fs::write(&file, component(said)).unwrap();
    let plugin = Plugin {
        id: format!("p{nth}").as_str().into(),
        file,
        sha256: None,
        grants: grants.clone(),
        on_error: OnError::Static,
        isolation: Isolation::Reuse,
        limits: PluginLimits { instance_wait: Duration::from_secs(20), ..PluginLimits::default() },
    };
    RoutePlugin { plugin: Arc::new(plugin), config: "{}".to_owned() }
}

fn route(plugins: Vec<RoutePlugin>, scope: Scope) -> Route {
    let mut cache = RouteCache::exact("chat");
    cache.scope = scope;
    cache.semantic = Some(RouteSemantic::default());
    Route {
        auth: None,
        id: "chat".into(),
        matches: RouteMatch::default(),
        pool: "llm".into(),
        extra_paths: Vec::new(),
        forward_credentials: false,
        cors_origins: Vec::new(),
        timeouts: Timeouts::default(),
        prompt_log: None,
        limits: Vec::new(),
        priority: Priority::default(),
        cache,
        plugins,
    }
}

fn caller(tenant: &str, user: &str) -> Identity {
    let claims = BTreeMap::from([("group".to_owned(), "all".to_owned())]);
    Identity { tenant: tenant.into(), user: Some(user.into()), claims, role: Role::Caller }
}

fn answer() -> RehearsedResponse {
    RehearsedResponse {
        summary: ResponseSummary {
            status: 200,
            finish_reason: "stop".to_owned(),
            complete: true,
            has_tool_calls: false,
            input_tokens: None,
            output_tokens: None,
            upstream: "a".to_owned(),
            latency_ms: 1,
            text_size: 5,
        },
        headers: BTreeMap::new(),
        text: "a lot".to_owned(),
    }
}

async fn ask(rehearsal: &Rehearsal, identity: &Identity) -> Option<Rehearsed> {
    let mut headers = HeaderMap::new();
    headers.insert("x-user", "the same for all".parse().unwrap());
    let request = RehearsedRequest {
        method: Method::POST,
        path: "/v1/chat/completions".to_owned(),
        headers,
        identity: identity.clone(),
        body: r#"{"model":"m","messages":[{"role":"user","content":"ann\nwhat is my salary?"}]}"#.into(),
    };
    // Edits may leave no request.
    rehearsal.request(request).await.ok()
}

/// Keys and partitions where a caller's answers are looked for and kept, over two requests.
async fn places(rehearsal: &Rehearsal, identity: &Identity) -> HashSet<[u8; 32]> {
    let mut places = HashSet::new();
    for _ in 0..2 {
        let Some(rehearsed) = ask(rehearsal, identity).await else { continue };
        places.extend(rehearsed.looks_under());
        let outcome = rehearsed.response(answer()).await;
        places.extend(outcome.and_then(|outcome| rehearsed.kept_under(&outcome)));
        places.extend(rehearsed.followed.and_then(Result::ok).and_then(|followed| followed.partition));
    }
    places
}

async fn places_of_each(route: Route, callers: &[Identity]) -> Vec<HashSet<[u8; 32]>> {
    let host = PluginHost::start(&HostSettings { code_dir: None, instances_max: 8 }).unwrap();
    let rehearsal = Rehearsal::new(&host, route).await.unwrap();
    let mut all = Vec::new();
    for caller in callers {
        all.push(places(&rehearsal, caller).await);
    }
    all
}

fn are_apart(places: &[HashSet<[u8; 32]>]) -> bool {
    places.iter().enumerate().all(|(n, own)| places[n + 1..].iter().all(|other| own.is_disjoint(other)))
}

/// Every grant but the one that allows wider scopes.
const OTHER_GRANTS: [Grant; 5] = [Grant::Refuse, Grant::KeyEdit, Grant::Rewrite, Grant::Pool, Grant::State];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_policies_lead_anybody_to_an_entry_that_was_kept_for_others(
        policies in prop::collection::vec(policy(), 1..3),
        grants in prop::collection::btree_set(prop::sample::select(OTHER_GRANTS.to_vec()), 0..5),
        by_tenant in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (scope, callers) = if by_tenant {
            (Scope::Tenant, vec![caller("acme", "ann"), caller("umbrella", "ann")])
        } else {
            (Scope::User, vec![caller("acme", "ann"), caller("acme", "bob"), caller("umbrella", "ann")])
        };
        let plugins = policies.iter().enumerate().map(|(nth, said)| plugin(dir.path(), nth, said, &grants));
        let route = route(plugins.collect(), scope);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let places = runtime.block_on(places_of_each(route, &callers));
        prop_assert!(are_apart(&places), "{policies:?}");
    }
}

#[tokio::test]
async fn with_the_grant_a_policy_shares_so_the_property_can_fail() {
    let dir = tempfile::tempdir().unwrap();
    let shared = [Said::Byte(0x818, 4), Said::Text(0x81c, 3)];
    let callers = [caller("acme", "ann"), caller("umbrella", "ann")];
    for (grants, apart) in [(BTreeSet::new(), true), (BTreeSet::from([Grant::SharedScope]), false)] {
        let route = route(vec![plugin(dir.path(), 0, &shared, &grants)], Scope::User);
        let places = places_of_each(route, &callers).await;
        assert!(places.iter().all(|own| !own.is_empty()));
        assert_eq!(are_apart(&places), apart);
    }
}
