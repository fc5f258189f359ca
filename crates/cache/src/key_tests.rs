use std::collections::HashSet;

use proptest::prelude::*;
use refrain_core::{Bypass, Identity, Role, Scope, TenantId, UserId};

use super::*;

/// Owned parts that a test can change one at a time.
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    api: usize,
    scope: Scope,
    identity: Identity,
    texts: [String; 5],
    policy: Vec<u8>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    excised: Option<String>,
    extra: Vec<(String, Option<Vec<u8>>)>,
}

impl Parts {
    fn key(&self) -> CacheKey {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let extra: Vec<_> = self.extra.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        let parts = KeyParts {
            api: Api::ALL[self.api],
            model: &self.texts[0],
            model_identity: &self.texts[1],
            namespace: &self.texts[2],
            scope: ScopeId::of(&self.scope, &self.identity).unwrap(),
            policy: &self.policy,
            pool: &self.texts[3],
            query: &self.texts[4],
            headers: &headers,
            partition_body: &self.body,
            excised: self.excised.as_deref(),
            extra: &extra,
        };
        CacheKey::new(&KeySecret::from_bytes([1; 32]), &parts)
    }
}

fn identity(tenant: &str, user: Option<&str>) -> Identity {
    Identity {
        tenant: TenantId::new(tenant),
        user: user.map(UserId::new),
        claims: ["group", "n", "p", "x", "abc"].map(|name| (name.to_owned(), "g".to_owned())).into(),
        role: Role::Caller,
    }
}

prop_compose! {
    fn parts()(
        api in 0..Api::ALL.len(),
        texts in proptest::array::uniform5("[a-c]{0,3}"),
        policy in proptest::collection::vec(0u8..3, 0..3),
        headers in proptest::collection::vec(("[a-c]{0,2}", "[a-c]{0,2}"), 0..3),
        body in proptest::collection::vec(0u8..3, 0..4),
        excised in proptest::option::of("[a-c]{0,3}"),
        extra in proptest::collection::vec(
            ("[a-c]{0,2}", proptest::option::of(proptest::collection::vec(0u8..3, 0..3))), 0..3,
        ),
        tenant in "[a-c]{1,3}",
        user in "[a-c]{1,3}",
        scope in prop_oneof![
            Just(Scope::User),
            Just(Scope::Tenant),
            Just(Scope::Claim("group".to_owned())),
            Just(Scope::WithinUser("abc".to_owned())),
            "[a-c]{0,3}".prop_map(Scope::UserPart),
        ],
    ) -> Parts {
        Parts { api, scope, identity: identity(&tenant, Some(&user)), texts, policy, headers, body, excised, extra }
    }
}

/// What of the parts is keyed: a scope that leaves the user out must not tell users apart.
fn keyed(parts: &Parts) -> Parts {
    let mut keyed = parts.clone();
    if matches!(parts.scope, Scope::Tenant | Scope::Claim(_)) {
        keyed.identity.user = None;
    }
    keyed
}

proptest! {
    /// Small alphabets make near-collisions (bytes moved between neighbours, empty against absent) likely.
    #[test]
    fn keys_are_equal_exactly_when_all_parts_are(a in parts(), b in parts()) {
        let same = keyed(&a) == keyed(&b);
        prop_assert_eq!(a.key().key == b.key().key, same);
        prop_assert_eq!(a.key().fingerprint == b.key().fingerprint, same);
    }

    #[test]
    fn any_change_of_one_part_changes_key_and_fingerprint(parts in parts(), which in 0usize..14) {
        let mut changed = parts.clone();
        let in_partition = which != 13;
        match which {
            0 => changed.api = (parts.api + 1) % Api::ALL.len(),
            1..=5 => changed.texts[which - 1].push('x'),
            6 => changed.policy.push(9),
            7 => changed.headers.push((String::new(), String::new())),
            8 => changed.body.push(9),
            9 => changed.extra.push((String::new(), None)),
            10 => changed.identity.tenant = TenantId::new(format!("{}x", parts.identity.tenant)),
            11 => changed.scope = Scope::WithinUser("x".to_owned()),
            12 => {
                changed.scope = Scope::Shared("x".to_owned());
            }
            _ => changed.excised = Some(format!("{}x", parts.excised.clone().unwrap_or_default())),
        }
        let (before, after) = (parts.key(), changed.key());
        prop_assert_ne!(before.key, after.key);
        prop_assert_ne!(before.fingerprint, after.fingerprint);
        prop_assert_eq!(before.partition == after.partition, !in_partition);
    }

    #[test]
    fn moving_a_byte_to_the_neighbour_changes_the_key(parts in parts(), from in 0usize..2) {
        prop_assume!(!parts.texts[from].is_empty());
        let mut moved = parts.clone();
        let byte = moved.texts[from].pop().unwrap();
        moved.texts[from + 1].insert(0, byte);
        prop_assert_ne!(parts.key().key, moved.key().key);
    }

    #[test]
    fn two_users_never_share_within_a_user_scope(parts in parts(), other in "[a-c]{1,3}") {
        let mut mine = parts;
        mine.scope = Scope::User;
        let mut theirs = mine.clone();
        theirs.identity.user = Some(UserId::new(other));
        prop_assume!(mine.identity.user != theirs.identity.user);
        prop_assert_ne!(mine.key().partition, theirs.key().partition);
        prop_assert_ne!(mine.key().key, theirs.key().key);
    }
}

fn plain(scope: Scope, identity: Identity) -> Parts {
    Parts {
        api: 0,
        scope,
        identity,
        texts: Default::default(),
        policy: Vec::new(),
        headers: Vec::new(),
        body: Vec::new(),
        excised: None,
        extra: Vec::new(),
    }
}

#[test]
fn scopes_of_equal_names_are_different_scopes() {
    let mut named = identity("n", Some("n"));
    named.claims.insert("n".to_owned(), "n".to_owned());
    let scopes = [
        Scope::User,
        Scope::Tenant,
        Scope::Claim("n".to_owned()),
        Scope::WithinUser("n".to_owned()),
        Scope::UserPart("n".to_owned()),
        Scope::Shared("n".to_owned()),
    ];
    let count = scopes.len();
    let keys: HashSet<_> = scopes.into_iter().map(|scope| plain(scope, named.clone()).key().key).collect();
    assert_eq!(keys.len(), count);
}

#[test]
fn parts_of_a_user_share_nothing_with_each_other_or_with_another_user() {
    let key =
        |part: &str, user| plain(Scope::UserPart(part.into()), identity("t", Some(user))).key().partition;
    let keys = [key("a", "u"), key("b", "u"), key("a", "v"), key("", "u")];
    assert_eq!(HashSet::from(keys).len(), keys.len());
    assert_eq!(key("a", "u"), key("a", "u"));
    assert_eq!(ScopeId::of(&Scope::UserPart("a".into()), &identity("t", None)), Err(Bypass::NoUser));
}

/// Entries of one build are found by the next one: whoever changes this gives the key's contexts a new version.
#[test]
fn the_key_format_is_as_it_was() {
    let mut parts = plain(Scope::UserPart("p".into()), identity("t", Some("u")));
    parts.headers = vec![("h".into(), "v".into())];
    parts.excised = Some("hello".into());
    parts.extra = vec![("a".into(), None), ("b".into(), Some(vec![]))];
    let start = |digest: [u8; 32]| digest[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let CacheKey { partition, key, fingerprint } = parts.key();
    assert_eq!([partition, key, fingerprint].map(start), ["540af4a4", "b8dcf613", "8912f26f"]);
}

#[test]
fn only_the_shared_scope_crosses_tenants() {
    let key = |scope: Scope, tenant| plain(scope, identity(tenant, Some("u"))).key().key;
    for scope in [Scope::User, Scope::Tenant, Scope::Claim("group".into()), Scope::WithinUser("p".into())] {
        assert_ne!(key(scope.clone(), "a"), key(scope, "b"));
    }
    let shared = Scope::Shared("all".into());
    assert_eq!(key(shared.clone(), "a"), key(shared, "b"));
}

#[test]
fn a_scope_without_its_name_is_a_bypass() {
    let nobody = identity("t", None);
    assert_eq!(ScopeId::of(&Scope::User, &nobody), Err(Bypass::NoUser));
    assert_eq!(ScopeId::of(&Scope::WithinUser("p".into()), &nobody), Err(Bypass::NoUser));
    assert_eq!(ScopeId::of(&Scope::Claim("absent".into()), &nobody), Err(Bypass::NoClaim));
    let somebody = identity("t", Some("u"));
    assert_eq!(ScopeId::of(&Scope::WithinUser("absent".into()), &somebody), Err(Bypass::NoClaim));
    assert!(ScopeId::of(&Scope::Claim("group".into()), &nobody).is_ok());
}

#[test]
fn another_secret_gives_another_key() {
    let scope = Scope::Tenant;
    let who = identity("t", None);
    let parts = KeyParts {
        api: Api::Messages,
        model: "m",
        model_identity: "",
        namespace: "",
        scope: ScopeId::of(&scope, &who).unwrap(),
        policy: &[],
        pool: "",
        query: "",
        headers: &[],
        partition_body: b"{}",
        excised: Some("hello"),
        extra: &[],
    };
    let one = CacheKey::new(&KeySecret::from_bytes([1; 32]), &parts);
    let two = CacheKey::new(&KeySecret::from_bytes([2; 32]), &parts);
    assert_ne!(one.key, two.key);
    assert_ne!(one.partition, two.partition);
    assert_ne!(one.fingerprint, two.fingerprint);
}
