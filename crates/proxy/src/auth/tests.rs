use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use refrain_core::settings::{
    ApiKey, ClaimValue, Cost, Fleet, KeyKind, Limits, Log, PluginHost, Runtime, Secret, SigningKeys, Store,
    Tenant, TokenAlgorithm, TokenIssuer, TokenPlace, TokenTenant,
};
use refrain_core::{Code, KeyId, TenantId, UserId};
use serde_json::{Value, json};

use super::*;
use crate::failure::Challenge;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn key(name: &str, token: &str, kind: KeyKind) -> ApiKey {
    ApiKey {
        id: KeyId::new(name),
        tenant: TenantId::new("acme"),
        kind,
        user: Some(UserId::new(name)),
        user_from: None,
        role: Role::Caller,
        models: Vec::new(),
        pools: Vec::new(),
        claims: BTreeMap::new(),
        priority: None,
        created: None,
        expires: None,
        hash: hash_key([7; 16], token),
    }
}

/// A front end whose signed header is `x-user`.
fn front_end() -> ApiKey {
    ApiKey { user_from: Some("webui".into()), ..key("front", "front", KeyKind::Service) }
}

fn issuer(keys: SigningKeys, algorithms: &[TokenAlgorithm]) -> TokenIssuer {
    TokenIssuer {
        id: "corp".into(),
        place: TokenPlace::Bearer,
        issuer: "https://sso".to_owned(),
        audiences: vec!["refrain".to_owned()],
        keys,
        algorithms: algorithms.to_vec(),
        leeway: Duration::from_secs(5),
        tenant: TokenTenant::Claim { claim: "org".to_owned(), allowed: vec!["acme".into()] },
        user_claim: "sub".to_owned(),
        user_prefix: "corp:".to_owned(),
        claims: [("groups".to_owned(), "groups".to_owned())].into(),
        role: Role::Caller,
        admins: Some(ClaimValue { claim: "groups".to_owned(), value: "admins".to_owned() }),
        models: Vec::new(),
        pools: Vec::new(),
    }
}

fn by_secret() -> TokenIssuer {
    issuer(SigningKeys::Secret(Secret(SECRET.to_owned())), &[TokenAlgorithm::Hs256])
}

/// An issuer with one elliptic key in a file, and that key.
fn by_file(dir: &tempfile::TempDir) -> (TokenIssuer, EncodingKey) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let private = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap();
    public.common.key_id = Some("one".to_owned());
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [{ "kty": "unheard-of" }, public] }).to_string()).unwrap();
    (issuer(SigningKeys::File(file), &[TokenAlgorithm::Es256]), private)
}

fn settings(keys: Vec<ApiKey>, tokens: Vec<TokenIssuer>) -> Settings {
    Settings {
        listeners: vec![],
        admin: None,
        runtime: Runtime::default(),
        limits: Limits::default(),
        store: Store::Off,
        embedder: None,
        rate_limits: BTreeMap::new(),
        keys,
        has_keys_file: false,
        tokens,
        certificates: vec![],
        tenants: BTreeMap::new(),
        plugin_host: PluginHost::default(),
        plugins: BTreeMap::new(),
        pools: BTreeMap::new(),
        fleet: Fleet::default(),
        routes: vec![],
        log: Log::default(),
        cost: Cost::default(),
        otlp: None,
    }
}

fn auth(keys: Vec<ApiKey>, tokens: Vec<TokenIssuer>) -> Auth {
    Auth::new(&settings(keys, tokens), None).unwrap()
}

fn listener(allow_anonymous: bool) -> Listener {
    Listener {
        id: "main".into(),
        address: ([127, 0, 0, 1], 0).into(),
        tls: None,
        allow_anonymous,
        anonymous_role: Role::Admin,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "iss": "https://sso", "aud": ["other", "refrain"], "sub": "ann", "org": "acme",
        "groups": ["b", "a"], "exp": now() + 600,
    })
}

/// The claims with some others in their place; null: left out.
fn but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn identify(
    auth: &Auth,
    anonymous: bool,
    methods: Option<&[AuthMethod]>,
    fields: &[(&'static str, &str)],
) -> Result<Caller, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let arrival = Arrival { listener: &listener(anonymous), authority: None, certificate: None };
    auth.identify(arrival, methods, &headers).await
}

async fn bearer(auth: &Auth, credential: &str) -> Result<Caller, Failure> {
    identify(auth, false, None, &[("authorization", &format!("Bearer {credential}"))]).await
}

async fn refused(auth: &Auth, credential: &str) -> String {
    let failure = bearer(auth, credential).await.unwrap_err();
    assert_eq!(failure.code, Code::Unauthorized);
    failure.message.into_owned()
}

#[tokio::test]
async fn a_personal_key_is_its_user_and_a_service_key_has_none() {
    let auth = auth(vec![key("ann", "k1", KeyKind::Personal), key("webui", "k2", KeyKind::Service)], vec![]);
    for _ in 0..2 {
        let ann = bearer(&auth, "k1").await.unwrap();
        assert_eq!((ann.identity.user.clone(), ann.key), (Some(UserId::new("ann")), Some("ann".into())));
        let webui = identify(&auth, false, None, &[("x-api-key", "k2")]).await.unwrap();
        assert_eq!(webui.identity.user, None);
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_even_where_anonymous_is_allowed() {
    let auth = auth(vec![key("ann", "k1", KeyKind::Personal)], vec![]);
    let unknown: &[_] = &[("authorization", "Bearer k3")];
    assert_eq!(identify(&auth, true, None, unknown).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(identify(&auth, false, None, &[]).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(identify(&auth, true, None, &[]).await.unwrap().identity.role, Role::Admin);
}

#[tokio::test]
async fn a_file_of_keys_whose_last_one_was_revoked_still_refuses_keys() {
    let empty = Settings { has_keys_file: true, ..settings(vec![], vec![]) };
    let auth = Auth::new(&empty, None).unwrap();
    let revoked: &[_] = &[("authorization", "Bearer k1")];
    assert_eq!(identify(&auth, true, None, revoked).await.unwrap_err().code, Code::Unauthorized);
    assert!(identify(&auth, true, None, &[]).await.is_ok());
}

#[tokio::test]
async fn a_credential_that_can_not_be_read_makes_nobody_anonymous() {
    let auth = auth(vec![key("ann", "k1", KeyKind::Personal)], vec![]);
    for odd in ["k1", "Basic azE6", "Bearer", "Bearer\tk1", "Bearer k\u{e9}y"] {
        let failure = identify(&auth, true, None, &[("authorization", odd)]).await.unwrap_err();
        assert_eq!((failure.code, failure.challenge), (Code::Unauthorized, Challenge::Another), "{odd}");
    }
    assert!(identify(&auth, true, None, &[("x-api-key", "k\u{e9}y")]).await.is_err());
    for name in ["authorization", "x-api-key"] {
        let value = if name == "authorization" { "Bearer k1" } else { "k1" };
        assert!(identify(&auth, true, None, &[(name, value), (name, value)]).await.is_err(), "which one?");
    }
    // What is for a gateway on the way stands in nobody's way.
    let both: &[_] = &[("authorization", "Basic azE6"), ("x-api-key", "k1")];
    assert_eq!(identify(&auth, true, None, both).await.unwrap().key, Some("ann".into()));
    let none = identify(&auth, false, None, &[]).await.unwrap_err();
    assert_eq!(none.challenge, Challenge::Credential);
}

#[tokio::test]
async fn placeholder_keys_are_ignored_where_no_keys_are_configured() {
    let auth = auth(vec![], vec![]);
    assert!(identify(&auth, true, None, &[("authorization", "Bearer ollama")]).await.is_ok());
    assert!(bearer(&auth, "x").await.is_err());
}

#[tokio::test]
async fn a_key_is_refused_from_its_last_second_on() {
    let (past, future) =
        (SystemTime::now() - Duration::from_secs(1), SystemTime::now() + Duration::from_secs(60));
    let until = |name: &str, expires| ApiKey { expires: Some(expires), ..key(name, name, KeyKind::Personal) };
    let auth = auth(vec![until("old", past), until("new", future)], vec![]);
    assert!(refused(&auth, "old").await.contains("expired"));
    assert!(bearer(&auth, "new").await.is_ok());
}

#[tokio::test]
async fn a_tokens_claims_say_who_asks() {
    let auth = auth(vec![], vec![by_secret()]);
    let token = signed(&claims());
    for _ in 0..2 {
        let caller = bearer(&auth, &token).await.unwrap();
        let Identity { tenant, user, claims, role } = &*caller.identity;
        assert_eq!((tenant.as_str(), user.as_ref().unwrap().as_str()), ("acme", "corp:ann"));
        assert_eq!((claims["groups"].as_str(), *role, caller.key), ("a,b", Role::Caller, None));
    }
    let admin = bearer(&auth, &signed(&but(json!({ "groups": ["admins"] })))).await.unwrap();
    assert_eq!(admin.identity.role, Role::Admin);
}

#[tokio::test]
async fn a_token_that_lacks_or_breaks_a_claim_is_refused_with_the_reason() {
    let auth = auth(vec![], vec![by_secret()]);
    for (changes, reason) in [
        (json!({ "exp": null }), "lacks a claim"),
        (json!({ "exp": "soon" }), "lacks a claim"),
        (json!({ "exp": now() - 60 }), "expired"),
        (json!({ "nbf": now() + 60 }), "not valid yet"),
        (json!({ "iss": "https://evil" }), "issuer"),
        (json!({ "iss": null }), "issuer"),
        (json!({ "aud": "other" }), "another program"),
        (json!({ "aud": null }), "lacks a claim"),
        (json!({ "sub": null }), "lacks a claim"),
        (json!({ "sub": "" }), "lacks a claim"),
        (json!({ "sub": ["ann"] }), "no token"),
        (json!({ "sub": "a\nb" }), "lacks a claim"),
        (json!({ "sub": "a".repeat(300) }), "lacks a claim"),
        (json!({ "org": "umbrella" }), "tenant"),
        (json!({ "org": null }), "lacks a claim"),
        (json!({ "groups": { "a": 1 } }), "lacks a claim"),
        (json!({ "groups": ["a".repeat(9000)] }), "lacks a claim"),
    ] {
        let told = refused(&auth, &signed(&but(changes.clone()))).await;
        assert!(told.contains(reason), "{changes}: {told}");
    }
    for changes in [json!({ "exp": now() - 2 }), json!({ "nbf": now() + 2 }), json!({ "exp": 1.0e10 })] {
        assert!(bearer(&auth, &signed(&but(changes))).await.is_ok(), "within the leeway");
    }
}

#[tokio::test]
async fn nobody_joins_the_anonymous_by_a_claim() {
    let any = TokenTenant::Claim { claim: "org".to_owned(), allowed: vec![] };
    let auth = auth(vec![], vec![TokenIssuer { tenant: any, ..by_secret() }]);
    assert!(bearer(&auth, &signed(&but(json!({ "org": "umbrella" })))).await.is_ok());
    assert!(refused(&auth, &signed(&but(json!({ "org": "anonymous" })))).await.contains("tenant"));
}

fn unsigned(head: &Value, claims: &Value) -> String {
    use base64::Engine as _;
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(head), part(claims))
}

#[tokio::test]
async fn a_token_does_not_choose_how_it_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, private) = by_file(&dir);
    let SigningKeys::File(file) = &issuer.keys else { unreachable!() };
    let public = std::fs::read(file).unwrap();
    let auth = auth(vec![], vec![issuer]);
    let named = |algorithm, kid: &str| Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    let right = encode(&named(Algorithm::ES256, "one"), &claims(), &private).unwrap();
    assert!(bearer(&auth, &right).await.is_ok());
    let nameless = encode(&Header::new(Algorithm::ES256), &claims(), &private).unwrap();
    assert!(bearer(&auth, &nameless).await.is_ok(), "one key alone comes into question");
    let other = encode(&named(Algorithm::ES256, "two"), &claims(), &private).unwrap();
    assert!(refused(&auth, &other).await.contains("doesn't give out"));
    // The public key as the secret of an HMAC, and no signature at all.
    for secret in [&*public, b""] {
        let hmac = EncodingKey::from_secret(secret);
        let confused = encode(&named(Algorithm::HS256, "one"), &claims(), &hmac).unwrap();
        assert!(refused(&auth, &confused).await.contains("not accepted"));
    }
    for name in ["none", "None", "NONE", "", "es256", "RS256"] {
        let told = refused(&auth, &unsigned(&json!({ "alg": name, "kid": "one" }), &claims())).await;
        assert!(told.contains("not accepted"), "{name}: {told}");
    }
    let told =
        refused(&auth, &unsigned(&json!({ "alg": "ES256", "kid": "one", "crit": ["b64"] }), &claims())).await;
    assert!(told.contains("no token"), "{told}");
    for odd in ["eyJ..", "eyJhbGciOiJFUzI1NiJ9..", "eyJ!.e30.x", &format!("{right}.x"), "x"] {
        assert!(bearer(&auth, odd).await.is_err(), "{odd}");
    }
    let long = format!("{right}{}", "A".repeat(CREDENTIAL_BYTES_MAX));
    assert!(refused(&auth, &long).await.contains("too long"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_token_with_any_bit_flipped_is_accepted(place in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let auth = auth(vec![], vec![by_secret()]);
        let token = signed(&claims());
        let mut flipped = token.clone().into_bytes();
        flipped[place.index(token.len())] ^= 1 << bit;
        // What no header can hold is never presented; spaces around a credential are none of it.
        let Ok(flipped) = String::from_utf8(flipped) else { return Ok(()) };
        prop_assume!(HeaderValue::from_str(&flipped).is_ok() && flipped.trim().len() == token.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert!(bearer(&auth, &token).await.is_ok());
            assert!(bearer(&auth, &flipped).await.is_err(), "{flipped}");
        });
    }
}

#[tokio::test]
async fn a_service_keys_user_is_the_one_that_its_signed_header_names() {
    let header = TokenIssuer {
        id: "webui".into(),
        place: TokenPlace::Header("x-user".to_owned()),
        tenant: TokenTenant::OfKey,
        audiences: vec![],
        user_prefix: "webui:".to_owned(),
        admins: None,
        ..by_secret()
    };
    let service = ApiKey { claims: [("groups".to_owned(), "fixed".to_owned())].into(), ..front_end() };
    let auth = auth(vec![service, key("other", "other", KeyKind::Service)], vec![header]);
    let ask = async |key: &str, users: &[&str]| {
        let key = format!("Bearer {key}");
        let mut fields = vec![("authorization", key.as_str())];
        fields.extend(users.iter().map(|user| ("x-user", *user)));
        identify(&auth, false, None, &fields).await
    };
    let user = |caller: Caller| caller.identity.user.as_ref().map(|user| user.as_str().to_owned());
    let ann = signed(&but(json!({ "aud": null, "org": null })));
    for _ in 0..2 {
        let caller = ask("front", &[&ann]).await.unwrap();
        assert_eq!(caller.identity.claims["groups"], "fixed", "config goes before the token");
        assert_eq!((caller.key.clone(), user(caller)), (Some("front".into()), Some("webui:ann".to_owned())));
    }
    assert_eq!(user(ask("front", &[]).await.unwrap()), None);
    assert_eq!(user(ask("other", &[&ann]).await.unwrap()), None, "a key that trusts no header looks at none");
    for wrong in ["ann", "", &ann[..ann.len() - 2], &unsigned(&json!({ "alg": "none" }), &claims())] {
        assert!(ask("front", &[wrong]).await.is_err(), "{wrong}");
    }
    assert!(ask("front", &[&ann, &ann]).await.is_err(), "which of the two?");
    assert!(ask(&ann, &[]).await.is_err(), "what names a user lets nobody in");
    assert!(ask("none", &[&ann]).await.is_err());
}

#[tokio::test]
async fn a_route_takes_what_it_says_and_nothing_else() {
    let both = auth(vec![key("ann", "k1", KeyKind::Personal)], vec![by_secret()]);
    let token = format!("Bearer {}", signed(&claims()));
    let (token, known): (&[_], &[_]) =
        (&[("authorization", token.as_str())], &[("authorization", "Bearer k1")]);
    for (methods, takes_key, takes_token) in [
        (AuthMethod::Key, true, false),
        (AuthMethod::Jwt(None), false, true),
        (AuthMethod::Jwt(Some("corp".into())), false, true),
        (AuthMethod::Jwt(Some("other".into())), false, false),
        (AuthMethod::Certificate, false, false),
        (AuthMethod::Anonymous, false, false),
    ] {
        let methods = Some(std::slice::from_ref(&methods));
        assert_eq!(identify(&both, false, methods, known).await.is_ok(), takes_key, "{methods:?}");
        assert_eq!(identify(&both, false, methods, token).await.is_ok(), takes_token, "{methods:?}");
        let nobody = identify(&both, true, methods, &[]).await;
        assert_eq!(nobody.is_ok(), methods == Some(&[AuthMethod::Anonymous]), "{methods:?}");
    }
    assert!(
        identify(&both, false, None, known).await.is_ok()
            && identify(&both, false, None, token).await.is_ok()
    );
}

#[tokio::test]
async fn a_token_that_two_tables_take_is_the_firsts_whatever_other_routes_made_of_it() {
    let table = |name: &str, audience: &str| TokenIssuer {
        id: name.into(),
        audiences: vec![audience.to_owned()],
        tenant: TokenTenant::Fixed(name.into()),
        ..by_secret()
    };
    let auth = auth(vec![], vec![table("other", "elsewhere"), table("a", "refrain"), table("b", "refrain")]);
    let token = format!("Bearer {}", signed(&claims()));
    let only_b = [AuthMethod::Jwt(Some("b".into()))];
    for (methods, tenant) in [(None, "a"), (Some(&only_b[..]), "b"), (None, "a"), (None, "a")] {
        let caller = identify(&auth, false, methods, &[("authorization", token.as_str())]).await.unwrap();
        assert_eq!(caller.identity.tenant.as_str(), tenant, "{methods:?}");
    }
}

#[test]
fn a_token_is_known_by_its_form_whatever_space_its_json_has() {
    use base64::Engine as _;
    for head in ["{\"alg\":\"HS256\"}", "{ \"alg\":\"HS256\"}", "{\n\"alg\"", "{\r\n\"alg\"", "{\t\"alg\""] {
        let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(head);
        assert!(tokens::is_token(&format!("{head}.e30.x")), "{head}");
    }
    assert!(!tokens::is_token("rfn_ey.x.y") && !tokens::is_token("eyJ.x"));
}

#[tokio::test]
async fn a_tenants_entitlements_hold_for_its_tokens() {
    let mut settings = settings(vec![], vec![by_secret()]);
    settings.tenants.insert("acme".into(), Tenant { models: vec!["small".into()], pools: vec![] });
    let auth = Auth::new(&settings, None).unwrap();
    let caller = bearer(&auth, &signed(&claims())).await.unwrap();
    assert!(caller.entitlements.allow_model(&["small"]) && !caller.entitlements.allow_model(&["big"]));
}
