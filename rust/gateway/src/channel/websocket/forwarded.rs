//! Finds the client in `X-Forwarded-For`. Only a trusted proxy is believed, and the header is read from its end: anybody may
//! have written what stands left of the first address that is not trusted.

use std::net::IpAddr;
use std::time::Instant;

use proxyproto_mqtt::Reason;

use super::ForwardedOptions;
use super::request::Request;
use crate::cause::Cause;

/// The client that the request names; `None` if the peer is not trusted, or no header is there. An error says what the
/// header holds that is no address.
pub(super) fn client(
    peer: IpAddr,
    request: &Request<'_>,
    options: &ForwardedOptions,
) -> Result<Option<IpAddr>, String> {
    if !options.trusts(peer) {
        return Ok(None);
    }
    for name in &options.headers {
        let values: Vec<_> = request.all(name).collect();
        if !values.is_empty() {
            return options.rightmost_stranger(name, &values.join(",")).map(Some);
        }
    }
    Ok(None)
}

impl ForwardedOptions {
    /// Why this client is refused, if it is.
    pub(super) fn refuse(&self, client: IpAddr) -> Option<Cause> {
        let now = Instant::now();
        if self.blocked.contains(client, now) {
            return Some(Reason::Blocked.into());
        }
        let is_missing = self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(client, now));
        (is_missing || self.denied.contains(client, now)).then_some(Cause::Denied)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.contains(address.to_canonical(), Instant::now())
    }

    /// From the right, the first address that is not trusted; the leftmost if all are.
    fn rightmost_stranger(&self, name: &str, value: &str) -> Result<IpAddr, String> {
        if value.split(',').count() > MAX_HOPS {
            return Err(format!("{name} names more than {MAX_HOPS} addresses"));
        }
        let mut found = None;
        for hop in value.split(',').rev().map(str::trim) {
            let address = address(hop).ok_or_else(|| {
                let shown: String = hop.chars().take(64).collect();
                format!("{name} holds '{}', which is not an address", shown.escape_debug())
            })?;
            found = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        found.ok_or_else(|| format!("{name} is empty"))
    }
}

/// An address, to which some proxies add the port. An IPv6 address alone has no brackets.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']')?;
            if !behind.is_empty() && !behind.strip_prefix(':').is_some_and(is_port) {
                return None;
            }
            IpAddr::V6(address.parse().ok()?)
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                if !is_port(port) {
                    return None;
                }
                IpAddr::V4(address.parse().ok()?)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(parsed.to_canonical())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Nobody has so many proxies of his own.
const MAX_HOPS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ForwardedOptions {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        ForwardedOptions::new(trusted.into_iter().collect())
    }

    fn found(peer: &str, headers: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut text = "GET / HTTP/1.1\r\n".to_owned();
        for (name, value) in headers {
            text.extend([*name, ": ", *value, "\r\n"]);
        }
        let request = Request::parse(text.as_bytes()).unwrap();
        client(peer.parse().unwrap(), &request, &options())
            .map(|client| client.map(|client| client.to_string()))
    }

    const PEER: &str = "10.0.0.9";

    #[test]
    fn the_client_is_the_rightmost_stranger() {
        let table = [
            ("one", "203.0.113.7", "203.0.113.7"),
            ("rightmost", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
            ("past our proxies", "6.6.6.6, 203.0.113.7, 10.1.2.3, fd00::1", "203.0.113.7"),
            ("all ours", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("v6", "2001:db8::7", "2001:db8::7"),
            ("v6 in brackets", "[2001:db8::7]", "2001:db8::7"),
            ("v6 with a port", "[2001:db8::7]:4711", "2001:db8::7"),
            ("v4 with a port", "203.0.113.7:4711", "203.0.113.7"),
            ("mapped", "::ffff:203.0.113.7", "203.0.113.7"),
            ("garbage further left", "unknown, 203.0.113.7", "203.0.113.7"),
        ];
        for (how, value, client) in table {
            assert_eq!(found(PEER, &[("X-Forwarded-For", value)]), Ok(Some(client.into())), "{how}");
        }
    }

    #[test]
    fn only_a_trusted_peer_is_believed_and_only_a_header() {
        assert_eq!(found("203.0.113.9", &[("x-forwarded-for", "1.2.3.4")]), Ok(None));
        assert_eq!(found("203.0.113.9", &[("x-forwarded-for", "garbage")]), Ok(None));
        assert_eq!(found(PEER, &[("host", "broker")]), Ok(None));
        assert_eq!(found("::ffff:10.0.0.9", &[("x-forwarded-for", "1.2.3.4")]), Ok(Some("1.2.3.4".into())));
    }

    #[test]
    fn the_first_configured_header_counts_and_its_lines_are_one_list() {
        let headers =
            [("x-real-ip", "192.0.2.1"), ("x-forwarded-for", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7")];
        assert_eq!(found(PEER, &headers), Ok(Some("203.0.113.7".into())));
        assert_eq!(found(PEER, &headers[..1]), Ok(Some("192.0.2.1".into())));
    }

    #[test]
    fn garbage_is_an_error() {
        let many = ["10.0.0.1"; 65].join(", ");
        let values = [
            "",
            "unknown",
            "203.0.113.7,",
            "1.2.3",
            "fe80::1%eth0",
            "_hidden",
            "1.2.3.4:x",
            "1.2.3.4:",
            "[1.2.3.4]:1",
            "[::1",
            "[::1]:",
            "[::1]1",
            "::1]:5",
            "1.2.3.4:123456",
            "01.2.3.4",
            &many,
        ];
        for value in values {
            let error = found(PEER, &[("x-forwarded-for", value)]).unwrap_err();
            assert!(error.starts_with("x-forwarded-for "), "{value}: {error}");
        }
        let error = found(PEER, &[("x-forwarded-for", "203.0.113.9, unknown")]).unwrap_err();
        assert_eq!(error, "x-forwarded-for holds 'unknown', which is not an address");
    }

    #[test]
    fn blocks_deny_and_allow_hold_for_a_forwarded_client() {
        let options = options();
        options.denied.add("192.0.2.0/24".parse().unwrap(), None);
        options.blocked.add("192.0.2.7".parse().unwrap(), None);
        let refused = |options: &ForwardedOptions, client: &str| {
            options.refuse(client.parse().unwrap()).map(Cause::code)
        };
        assert_eq!(refused(&options, "192.0.2.1"), Some("denied"));
        assert_eq!(refused(&options, "192.0.2.7"), Some("blocked"));
        assert_eq!(refused(&options, "198.51.100.1"), None);
        let allowed = ["198.51.100.0/24".parse().unwrap()].into_iter().collect();
        let options = ForwardedOptions { allowed: Some(allowed), ..options };
        assert_eq!(refused(&options, "198.51.100.1"), None);
        assert_eq!(refused(&options, "203.0.113.1"), Some("denied"));
    }
}
