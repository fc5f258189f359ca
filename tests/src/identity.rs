//! Callers with API keys.

use std::fmt::Write;

/// What kind of key somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The key is one person.
    Personal,
    /// The key speaks for many.
    Service,
}

/// Somebody with an API key.
#[derive(Clone, Debug)]
pub struct Person {
    name: String,
    tenant: String,
    kind: Kind,
    user: Option<String>,
    user_from: Option<String>,
    role: &'static str,
    models: Vec<String>,
    pools: Vec<String>,
    claims: Vec<(String, String)>,
}

impl Person {
    /// A person of a tenant.
    pub fn new(name: &str, tenant: &str) -> Self {
        Self {
            name: name.into(),
            tenant: tenant.into(),
            kind: Kind::Personal,
            user: None,
            user_from: None,
            role: "caller",
            models: vec![],
            pools: vec![],
            claims: vec![],
        }
    }

    /// A front end that speaks for many.
    pub fn service(name: &str, tenant: &str) -> Self {
        Self { kind: Kind::Service, ..Self::new(name, tenant) }
    }

    /// Whose key has another name than the person.
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Whose users this issuer's signed header names.
    pub fn user_from(mut self, issuer: &str) -> Self {
        self.user_from = Some(issuer.into());
        self
    }

    /// With role admin.
    pub fn admin(mut self) -> Self {
        self.role = "admin";
        self
    }

    /// Who may ask for these models only.
    pub fn only(mut self, models: &[&str]) -> Self {
        self.models = models.iter().map(ToString::to_string).collect();
        self
    }

    /// For whom policies may choose these pools only, beside the route's own.
    pub fn pools(mut self, pools: &[&str]) -> Self {
        self.pools = pools.iter().map(ToString::to_string).collect();
        self
    }

    /// For whom the operator vouches so.
    pub fn claim(mut self, name: &str, value: &str) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }

    /// The secret key that is sent.
    pub fn token(&self) -> String {
        format!("sk-secret-of-{}-{}", self.tenant, self.name)
    }

    /// The `[key.NAME]` table: made from the published format, not by Refrain's own code.
    pub fn table(&self) -> String {
        let salt = [0x5a; 16];
        let mut hasher = blake3::Hasher::new_derive_key("refrain 2026 api key v1");
        hasher.update(&salt).update(self.token().as_bytes());
        let mut hash = String::from("blake3:");
        salt.iter().for_each(|byte| write!(hash, "{byte:02x}").unwrap());
        write!(hash, ":{}", hasher.finalize().to_hex()).unwrap();
        let kind = if self.kind == Kind::Personal { "personal" } else { "service" };
        let Self { name, tenant, role, models, pools, .. } = self;
        let user = self.user.as_ref().unwrap_or(name);
        let user = if self.kind == Kind::Personal { format!("user = {user:?}\n") } else { String::new() };
        let user_from =
            self.user_from.as_ref().map(|issuer| format!("user_from = {issuer:?}\n")).unwrap_or_default();
        let claims = self.claims.iter().map(|(name, value)| format!("{name} = {value:?}"));
        let claims = claims.collect::<Vec<_>>().join(", ");
        format!(
            "[key.{name}-{tenant}]\ntenant = {tenant:?}\nkind = {kind:?}\n{user}{user_from}role = {role:?}\nmodels = {models:?}\npools = {pools:?}\nclaims = {{ {claims} }}\nhash = {hash:?}\n"
        )
    }
}
