//! `coap:` and `coaps:` URLs (RFC 7252 §6.1, §6.2).

use std::net::SocketAddr;
use std::str::FromStr;

use tokio::net::lookup_host;

use super::Failure;

/// Where to, and what for. Uri-Host and Uri-Port are not sent for it: a gateway has one homeserver, whatever its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoapUrl {
    host: String,
    port: u16,
    path_and_query: String,
    is_secure: bool,
}

impl CoapUrl {
    /// RFC 7252 §6.1.
    const DEFAULT_PORT: u16 = 5683;
    /// RFC 7252 §6.2.
    const DEFAULT_SECURE_PORT: u16 = 5684;

    /// Whether it is secured by DTLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    pub(crate) fn authority(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Where that is.
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, Failure> {
        let (host, port) = self.authority();
        let found = lookup_host((host, port)).await;
        let none = |why: String| {
            let failure = Failure::unanswered(format_args!("cannot find {host}: {why}"));
            failure.hint(
                "a name that this system resolves, or an IP address as in coap://127.0.0.1 or coap://[::1]",
            )
        };
        found.map_err(|error| none(error.to_string()))?.next().ok_or_else(|| none("it has no address".into()))
    }

    /// Path and query as they stand in HTTP, percent-encoded.
    pub(crate) fn path_and_query(&self) -> &str {
        &self.path_and_query
    }
}

impl FromStr for CoapUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_secure, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("coap") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("coaps") => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme}: is not CoAP; use coap:// or coaps://")),
            None => return Err("a URL is like coap://127.0.0.1:5683/_matrix/client/versions".into()),
        };
        // RFC 7252 §6.1: there are no fragments. In Matrix it is an alias whose # should have been encoded.
        if rest.contains('#') {
            return Err("# must be written %23".into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(end);
        if authority.contains('@') {
            return Err("there are no users in CoAP URLs; an access token is given with --token".into());
        }
        let default_port = if is_secure { Self::DEFAULT_SECURE_PORT } else { Self::DEFAULT_PORT };
        let (host, port) = split_authority(authority, default_port)?;
        if host.is_empty() {
            return Err("the host is missing".into());
        }
        let path_and_query = match path_and_query.starts_with('/') {
            true => encode(path_and_query),
            false => format!("/{}", encode(path_and_query)),
        };
        Ok(Self { host: host.to_owned(), port, path_and_query, is_secure })
    }
}

fn split_authority(authority: &str, default_port: u16) -> Result<(&str, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("the ] of the IPv6 address is missing")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match port.strip_prefix(':') {
        Some(port) => Ok((host, port.parse().map_err(|_| format!("{port:?} is no port"))?)),
        None if port.is_empty() => Ok((host, default_port)),
        None => Err(format!("{port:?} after the host is no port")),
    }
}

/// Percent-encodes what no URL may hold, as people type it all the same: spaces, quotes, letters beyond ASCII. What is
/// encoded already stays.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, u16, String), String> {
        text.parse().map(|url: CoapUrl| (url.host, url.port, url.path_and_query))
    }

    #[test]
    fn a_url_has_a_host_and_the_default_port_and_path() {
        assert_eq!(parse("coap://hs"), Ok(("hs".into(), 5683, "/".into())));
        assert_eq!(parse("CoAP://hs:1/7?a=b"), Ok(("hs".into(), 1, "/7?a=b".into())));
        assert_eq!(parse("coap://[::1]:2?x"), Ok(("::1".into(), 2, "/?x".into())));
        assert_eq!(parse("coap://[::1]/!r:hs/a%2Fb"), Ok(("::1".into(), 5683, "/!r:hs/a%2Fb".into())));
    }

    #[test]
    fn a_secure_url_has_a_default_port_of_its_own() {
        assert_eq!(parse("coaps://hs/7"), Ok(("hs".into(), 5684, "/7".into())));
        assert_eq!(parse("COAPS://[::1]:1"), Ok(("::1".into(), 1, "/".into())));
        let is_secure = |text: &str| text.parse::<CoapUrl>().unwrap().is_secure();
        assert!(is_secure("coaps://hs") && !is_secure("coap://hs"));
    }

    #[test]
    fn what_no_url_may_hold_is_encoded() {
        let (.., path) = parse("coap://hs/ü b?filter={\"a\":1}").unwrap();
        assert_eq!(path, "/%C3%BC%20b?filter=%7B%22a%22:1%7D");
    }

    #[test]
    fn what_is_no_coap_url_is_told_why() {
        for (text, why) in [
            ("hs/7", "like coap://"),
            ("http://hs/7", "http: is not CoAP"),
            ("coap:///7", "host is missing"),
            ("coap://hs:x/7", "no port"),
            ("coap://hs:99999/7", "no port"),
            ("coap://[::1/7", "] of the IPv6"),
            ("coap://[::1]x/7", "no port"),
            ("coap://hs/#a:hs", "%23"),
            ("coap://token@hs/", "--token"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
