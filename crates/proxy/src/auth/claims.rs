//! What the claims of a verified token mean: user, tenant, and what scopes and policies go by.

use std::collections::BTreeMap;

use refrain_core::settings::{ClaimValue, TokenIssuer};
use refrain_core::{Role, TenantId, UserId};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Longest name of a user or tenant, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// All kept claims together, in bytes: they are part of what is cached for each token.
const CLAIMS_BYTES_MAX: usize = 8 * 1024;

/// The claims of a verified token.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// Whose token it is: never empty, never of control characters.
    pub(super) fn user(&self, issuer: &TokenIssuer) -> Result<UserId, Refusal> {
        let name = self.name(&issuer.user_claim)?;
        Ok(UserId::new(format!("{}{name}", issuer.user_prefix)))
    }

    /// The tenant that a claim names, if it may.
    pub(super) fn tenant(&self, claim: &str, allowed: &[TenantId]) -> Result<TenantId, Refusal> {
        let tenant = TenantId::new(self.name(claim)?);
        // Nobody joins those who come without credentials.
        let is_anonymous = tenant.as_str() == "anonymous";
        if is_anonymous || (!allowed.is_empty() && !allowed.contains(&tenant)) {
            return Err(Refusal::TokenTenant);
        }
        Ok(tenant)
    }

    /// The claims that config keeps, those that the token lacks left out.
    pub(super) fn kept(&self, issuer: &TokenIssuer) -> Result<BTreeMap<String, String>, Refusal> {
        let kept = issuer.claims.iter().filter_map(|(name, claim)| Some((name.clone(), self.find(claim)?)));
        let kept: Option<BTreeMap<_, _>> = kept.map(|(name, value)| Some((name, text(value)?))).collect();
        let kept = kept.ok_or(Refusal::TokenClaims)?;
        let bytes: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > CLAIMS_BYTES_MAX { Err(Refusal::TokenClaims) } else { Ok(kept) }
    }

    pub(super) fn role(&self, issuer: &TokenIssuer) -> Role {
        let is_admin = |ClaimValue { claim, value }: &ClaimValue| match self.find(claim) {
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(value)),
            Some(Value::String(text)) => text == value,
            _ => false,
        };
        if issuer.admins.as_ref().is_some_and(is_admin) { Role::Admin } else { issuer.role }
    }

    /// Until when it is valid, in seconds since 1970.
    pub(super) fn expires(&self) -> Option<u64> {
        let expires = self.0.get("exp")?;
        expires.as_u64().or_else(|| expires.as_f64().map(|seconds| seconds as u64))
    }

    fn name(&self, claim: &str) -> Result<String, Refusal> {
        let name = match self.find(claim) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(Refusal::TokenClaims),
        };
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
        if is_name { Ok(name) } else { Err(Refusal::TokenClaims) }
    }

    /// By name, or by JSON pointer. A claim of null is as if absent.
    fn find(&self, claim: &str) -> Option<&Value> {
        let found = match claim.strip_prefix('/') {
            None => self.0.get(claim),
            Some(path) => {
                let (first, rest) =
                    path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
                let first = self.0.get(&first.replace("~1", "/").replace("~0", "~"));
                match rest {
                    Some(rest) => first.and_then(|value| value.pointer(&format!("/{rest}"))),
                    None => first,
                }
            }
        };
        found.filter(|value| !value.is_null())
    }
}

/// A claim as text. A list is sorted, each once, joined by commas; commas and percent signs within a value are encoded
/// as in URLs, so that no two claims have one text. None: an object, or a list of something else than simple values.
fn text(value: &Value) -> Option<String> {
    let simple = |value: &Value| match value {
        Value::String(text) => Some(text.replace('%', "%25").replace(',', "%2C")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let Value::Array(items) = value else { return simple(value) };
    let mut items = items.iter().map(simple).collect::<Option<Vec<_>>>()?;
    items.sort_unstable();
    items.dedup();
    Some(items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_sorted_and_no_two_claims_have_one_text() {
        assert_eq!(text(&json!(["b", "a", "b"])).unwrap(), "a,b");
        assert_eq!(text(&json!(["a,b"])).unwrap(), "a%2Cb");
        assert_eq!(text(&json!("a%2Cb")).unwrap(), "a%252Cb");
        assert_eq!(text(&json!(7)).unwrap(), "7");
        assert_eq!((text(&json!({})), text(&json!([[1]]))), (None, None));
    }

    #[test]
    fn a_claim_is_found_by_name_or_pointer() {
        let claims = Claims(
            json!({"sub": "ann", "https://x/org": "a", "realm": {"roles": ["x"]}, "n": null})
                .as_object()
                .unwrap()
                .clone(),
        );
        assert_eq!(claims.find("/realm/roles/0"), Some(&json!("x")));
        assert_eq!(claims.find("https://x/org"), Some(&json!("a")));
        assert_eq!(claims.find("/sub"), Some(&json!("ann")));
        assert_eq!((claims.find("n"), claims.find("/realm/none")), (None, None));
    }
}
