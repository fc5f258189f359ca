//! Upstream URLs.

use refrain_core::settings::{Endpoint, EndpointTls};
use url::{Host, Url};

/// Reads `http://host:port` or `https://host`, perhaps with a path prefix; named by its authority, weight 1.
///
/// # Errors
/// What is wrong and what is expected.
pub(crate) fn endpoint_of_url(text: &str) -> Result<Endpoint, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("not a URL ({error}); expected one like http://host:8000"))?;
    let is_https = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("expected a URL that begins with http:// or https://".to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials don't belong into the URL; use authorization".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a query or fragment can't be part of an upstream's URL".to_owned());
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err("the URL names no host".to_owned()),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("port 0 can't be connected to")?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Endpoint {
        tls: is_https.then(EndpointTls::default),
        base_path: url.path().trim_end_matches('/').to_owned(),
        ..Endpoint::plain(authority.as_str(), host, port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_endpoints() {
        let check = |url: &str, id: &str, host: &str, base_path: &str, tls: bool| {
            let endpoint = endpoint_of_url(url).unwrap();
            let found = (endpoint.id.as_str(), &*endpoint.host, &*endpoint.base_path, endpoint.tls.is_some());
            assert_eq!(found, (id, host, base_path, tls), "{url}");
        };
        check("http://gpu-a:8000", "gpu-a:8000", "gpu-a", "", false);
        check("HTTP://GPU-A/", "gpu-a:80", "gpu-a", "", false);
        check("https://api.example.com/openai/", "api.example.com:443", "api.example.com", "/openai", true);
        check("http://[::1]:8000", "[::1]:8000", "::1", "", false);
    }

    #[test]
    fn what_is_no_upstream_is_refused_without_printing_credentials() {
        for url in [
            "",
            "gpu-a:8000",
            "ftp://a",
            "http://u:secret@a",
            "http://a?x=1",
            "http://a#x",
            "http://a:0",
            "http://",
        ] {
            let error = endpoint_of_url(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
