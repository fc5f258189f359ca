//! What a client's `Cache-Control` asks for (RFC 9111, section 5.2.1), as far as the route allows it.

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;
use refrain_core::settings::DirectivesAllowed;
use refrain_core::{Directives, Scope};

/// Reads every `Cache-Control` field. Unknown directives are ignored, and so are known ones with a bad argument.
pub(crate) fn read(headers: &HeaderMap, allowed: DirectivesAllowed, scope: &Scope) -> Directives {
    let mut asked = Directives::default();
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in field.to_str().unwrap_or_default().split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            note(&mut asked, name.trim(), argument.trim().trim_matches('"'));
        }
    }
    clamp(asked, allowed, scope)
}

fn note(asked: &mut Directives, name: &str, argument: &str) {
    if name.eq_ignore_ascii_case("no-cache") {
        asked.no_cache = true;
    } else if name.eq_ignore_ascii_case("no-store") {
        asked.no_store = true;
    } else if name.eq_ignore_ascii_case("only-if-cached") {
        asked.only_if_cached = true;
    } else if name.eq_ignore_ascii_case("max-age")
        && let Ok(seconds) = argument.parse::<u32>()
    {
        asked.max_age = Some(Duration::from_secs(seconds.into()));
    }
}

fn clamp(asked: Directives, allowed: DirectivesAllowed, scope: &Scope) -> Directives {
    let Directives { no_cache, no_store, max_age, only_if_cached } = asked;
    Directives {
        no_cache: no_cache && allowed.no_cache,
        no_store: no_store && allowed.no_store,
        max_age: max_age.filter(|_| allowed.max_age),
        // In a scope that others share it would tell whether somebody has asked this before.
        only_if_cached: only_if_cached
            && allowed.only_if_cached
            && matches!(scope, Scope::User | Scope::WithinUser(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&str], scope: &Scope) -> Directives {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, value.parse().unwrap());
        }
        read(&headers, DirectivesAllowed::default(), scope)
    }

    #[test]
    fn directives_are_read_over_all_fields_and_whatever_their_case() {
        let both = asked(&["No-Cache, max-age=\"60\"", "no-store"], &Scope::User);
        assert!(both.no_cache && both.no_store && !both.only_if_cached);
        assert_eq!(both.max_age, Some(Duration::from_secs(60)));
        assert_eq!(asked(&["max-age=x, frob"], &Scope::User), Directives::default());
    }

    #[test]
    fn only_if_cached_is_honoured_within_the_users_own_scope_only() {
        assert!(asked(&["only-if-cached"], &Scope::User).only_if_cached);
        assert!(!asked(&["only-if-cached"], &Scope::Tenant).only_if_cached);
    }

    #[test]
    fn what_the_route_does_not_allow_is_ignored() {
        let none =
            DirectivesAllowed { no_cache: false, no_store: false, max_age: false, only_if_cached: false };
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, "no-cache, no-store, max-age=1, only-if-cached".parse().unwrap());
        assert_eq!(read(&headers, none, &Scope::User), Directives::default());
    }
}
