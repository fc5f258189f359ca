//! Why a caller is not let in: what it is told, and what is counted.

use metrics::{Counter, counter};
use refrain_core::Code;

use crate::failure::{Challenge, Failure};

macro_rules! refusals {
    ($($variant:ident = $label:literal, $message:literal;)*) => {
        /// Why a caller is not let in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Refusal { $($variant,)* }

        impl Refusal {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label of `refrain_auth_refusals_total`.
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

refusals! {
    NoCredential = "no_credential", "send an API key or a token as `Authorization: Bearer <key>`";
    Unreadable = "unreadable", "this credential can't be read; send one, as `Authorization: Bearer <key>`";
    TooLong = "too_long", "this credential is too long to be one";
    UnknownKey = "unknown_key", "unknown API key; check the key or ask its operator";
    KeyExpired = "key_expired", "this API key has expired; ask its operator for another";
    CertificateUnknown = "certificate_unknown", "this client certificate is nobody's here; ask the operator";
    CertificateExpired = "certificate_expired", "this client certificate has expired; connect again with a new one";
    TokenMalformed = "token_malformed", "this is no token (a JWT in compact form)";
    TokenAlgorithm = "token_algorithm", "this token is signed in a way that is not accepted";
    TokenIssuer = "token_issuer", "tokens of this issuer are not accepted";
    TokenAudience = "token_audience", "this token is for another program";
    TokenKey = "token_key", "this token is signed by a key that its issuer doesn't give out";
    TokenSignature = "token_signature", "the signature of this token is wrong";
    TokenExpired = "token_expired", "this token has expired; get another";
    TokenEarly = "token_early", "this token is not valid yet";
    TokenClaims = "token_claims", "this token lacks a claim that is needed, or has it in another form";
    TokenTenant = "token_tenant", "this token names a tenant that is not accepted";
    UserHeader = "user_header", "the header that names the user is there more than once, or is no text";
    KeysAway = "keys_away", "this token can't be verified now: its issuer's keys can't be read; try again";
}

impl Refusal {
    /// What the client gets.
    pub(super) fn failure(self) -> Failure {
        let code = match self {
            Self::KeysAway => Code::IdentityUnavailable,
            _ => Code::Unauthorized,
        };
        Failure { challenge: self.challenge(), ..Failure::new(code, self.message()) }
    }

    /// Whether another credential of the kind that was sent would do.
    fn challenge(self) -> Challenge {
        match self {
            Self::NoCredential | Self::CertificateUnknown | Self::CertificateExpired | Self::UserHeader => {
                Challenge::Credential
            }
            _ => Challenge::Another,
        }
    }
}

/// Counts them; all are visible at zero.
pub(super) struct Refusals(Vec<Counter>);

impl Refusals {
    pub(super) fn new() -> Self {
        let make = |refusal: &Refusal| counter!("refrain_auth_refusals_total", "reason" => refusal.as_str());
        Self(Refusal::ALL.iter().map(make).collect())
    }

    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(counter) = self.0.get(refusal as usize) {
            counter.increment(1);
        }
    }
}
