//! Which kinds of credentials a route takes.

use refrain_core::JwtId;
use refrain_core::settings::AuthMethod;

/// What a route says; none: all kinds.
#[derive(Clone, Copy)]
pub(super) struct Methods<'r>(pub(super) Option<&'r [AuthMethod]>);

impl Methods<'_> {
    pub(super) fn take_keys(self) -> bool {
        self.any(|method| *method == AuthMethod::Key)
    }

    pub(super) fn take_certificates(self) -> bool {
        self.any(|method| *method == AuthMethod::Certificate)
    }

    pub(super) fn take_anonymous(self) -> bool {
        self.any(|method| *method == AuthMethod::Anonymous)
    }

    pub(super) fn take_tokens_of(self, issuer: &JwtId) -> bool {
        self.any(|method| matches!(method, AuthMethod::Jwt(of) if of.as_ref().is_none_or(|of| of == issuer)))
    }

    fn any(self, is_it: impl Fn(&AuthMethod) -> bool) -> bool {
        self.0.is_none_or(|methods| methods.iter().any(is_it))
    }
}
