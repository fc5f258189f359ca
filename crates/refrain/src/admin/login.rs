//! Who may ask for which page of the admin listener.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use refrain_core::settings::{Admin, OperatorRole};
use refrain_proxy::is_key;

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a page asks of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// This role, if the listener has tokens.
    Role(OperatorRole),
}

/// Why somebody is not shown a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A token is needed, and there is none, or an unknown one.
    NoToken,
    /// The token is not for this.
    ReadOnly,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ReadOnly => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NoToken => {
                "send a token as `Authorization: Bearer TOKEN`; commands take it from --token-file or REFRAIN_ADMIN_TOKEN\n"
            }
            Self::ReadOnly => "this token is for reading; this needs one with role = \"operate\"\n",
        }
    }
}

/// What the reader may do: everything where there are no tokens.
///
/// # Errors
/// There are tokens, and it presents none of them.
pub(super) fn role(admin: &Admin, headers: &HeaderMap) -> Result<OperatorRole, Refusal> {
    if admin.tokens.is_empty() {
        return Ok(OperatorRole::Operate);
    }
    let token = presented(headers).filter(|token| token.len() <= TOKEN_BYTES_MAX).ok_or(Refusal::NoToken)?;
    // All are compared, so that the time does not tell which one it was.
    let found = admin.tokens.iter().filter(|known| is_key(&known.hash, token)).map(|known| known.role);
    found.max().ok_or(Refusal::NoToken)
}

/// Whether that is enough.
pub(super) fn check(need: Need, role: Result<OperatorRole, Refusal>) -> Result<(), Refusal> {
    match need {
        Need::Nothing => Ok(()),
        Need::Role(needed) if role? >= needed => Ok(()),
        Need::Role(_) => Err(Refusal::ReadOnly),
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::AdminToken;
    use refrain_proxy::hash_key;

    use super::*;

    fn admin(tokens: &[(&str, OperatorRole)]) -> Admin {
        let token = |(token, role): &(&str, OperatorRole)| AdminToken {
            id: (*token).into(),
            role: *role,
            hash: hash_key([1; 16], token),
        };
        Admin { tokens: tokens.iter().map(token).collect(), ..Admin::default() }
    }

    fn ask(admin: &Admin, authorization: Option<&str>, need: Need) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.parse().unwrap())));
        check(need, role(admin, &headers))
    }

    #[test]
    fn without_tokens_everybody_may_everything() {
        assert_eq!(ask(&admin(&[]), None, Need::Role(OperatorRole::Operate)), Ok(()));
        assert_eq!(ask(&admin(&[]), Some("Bearer x"), Need::Role(OperatorRole::Operate)), Ok(()));
    }

    #[test]
    fn a_token_may_what_its_role_says_and_nobody_else_may_anything() {
        let admin = admin(&[("r", OperatorRole::Read), ("o", OperatorRole::Operate)]);
        let (read, operate) = (Need::Role(OperatorRole::Read), Need::Role(OperatorRole::Operate));
        assert_eq!(ask(&admin, Some("Bearer r"), read), Ok(()));
        assert_eq!(ask(&admin, Some("bearer o"), operate), Ok(()));
        assert_eq!(ask(&admin, Some("Bearer r"), operate), Err(Refusal::ReadOnly));
        for wrong in [None, Some("Bearer x"), Some("r"), Some("Basic r"), Some("Bearer ")] {
            assert_eq!(ask(&admin, wrong, read), Err(Refusal::NoToken), "{wrong:?}");
            assert_eq!(ask(&admin, wrong, Need::Nothing), Ok(()));
        }
    }
}
