//! What the person who reads the log at night is told: what came, what it probably means, and what to change.

use proxyproto_codec::FirstBytes;

use crate::outcome::Outcome;
use crate::refusal::{Hex, Refusal};
use crate::verdict::Detail;

/// What was wrong and what came instead, where the outcome's name does not say it.
pub(crate) fn describe(refusal: &Refusal) -> Option<String> {
    let hex = Hex(&refusal.first_bytes);
    Some(match refusal.detail {
        Detail::FirstBytes(first_bytes) => format!("{hex} is {first_bytes}"),
        Detail::Codec(error) => format!("{error}; the first bytes are {hex}"),
        Detail::ReceiveBuffer(_) => format!("{}; the first bytes are {hex}", refusal.detail),
        Detail::Plain if refusal.first_bytes.is_empty() => return None,
        Detail::Plain => format!("the first bytes are {hex}"),
    })
}

/// The likely cause with what to change, where there is one.
pub(crate) fn remedy(refusal: &Refusal) -> Option<String> {
    let ip = || refusal.peer.ip().map_or_else(|| "the peer".into(), |ip| ip.to_string());
    Some(match refusal.outcome {
        Outcome::Untrusted => format!(
            "Only the proxies in trusted= may connect here: if {} is one of yours, add it; if clients come \
             straight to this port too, set untrusted=\"direct\"",
            ip()
        ),
        Outcome::MissingHeader => {
            "This port wants a PROXY header first: in HAProxy add \"send-proxy-v2\" to the server line, in nginx \
             \"proxy_protocol on\", on an AWS NLB proxy_protocol_v2.enabled=true"
                .into()
        }
        Outcome::UnexpectedHeader => {
            "This port is set to proxy_protocol=\"off\": set it to \"required\" (and trusted= to the proxy's address), \
             or take send-proxy out of the proxy's configuration"
                .into()
        }
        Outcome::VersionNotAllowed => {
            let other = if is_version_1(refusal) { "\"send-proxy-v2\"" } else { "\"send-proxy\"" };
            format!("versions= leaves this one out: add it, or let the proxy send the other one ({other} in HAProxy)")
        }
        Outcome::Oversized => "If the proxy is right to send so much, raise max_header_size=".into(),
        Outcome::BadChecksum => {
            "The header was damaged, or the proxy computes CRC32C wrongly: it covers the whole header with its own four \
             bytes zeroed"
                .into()
        }
        Outcome::Timeout if matches!(refusal.detail, Detail::ReceiveBuffer(_)) => {
            "The kernel lets the peer send no more until the header is read: give the listening socket a larger SO_RCVBUF, \
             or leave it to the kernel"
                .into()
        }
        Outcome::Timeout if refusal.first_bytes.is_empty() => {
            "The peer said nothing: it is no proxy, or one that sends its header with the first data (an AWS NLB does): \
             raise header_timeout="
                .into()
        }
        Outcome::Timeout => "The rest of the header never came: the peer is slow or hostile".into(),
        Outcome::PendingOverflow => {
            "Too many connections wait for their header: raise max_pending=, lower header_timeout=, or set trusted="
                .into()
        }
        Outcome::Malformed if matches!(refusal.detail, Detail::Plain) => {
            "No client can have this address: the proxy does not know its client's".into()
        }
        Outcome::TlsRequired => {
            "require_tls is set, and the header does not say that the client used TLS: in HAProxy it takes \
             \"send-proxy-v2-ssl\" behind a bind line with ssl"
                .into()
        }
        Outcome::CertRequired => {
            "require_client_cert is set, and the header does not say that a client certificate was verified: in HAProxy \
             it takes \"send-proxy-v2-ssl-cn\" behind a bind line with verify"
                .into()
        }
        _ => return None,
    })
}

fn is_version_1(refusal: &Refusal) -> bool {
    matches!(FirstBytes::of(&refusal.first_bytes), FirstBytes::ProxyV1)
        || refusal.first_bytes.starts_with(b"P")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::tests::refusal;

    #[test]
    fn a_missing_header_is_named_and_the_cure_too() {
        let mut refusal = refusal(Outcome::MissingHeader, "10.0.3.7:51724");
        refusal.first_bytes = b"\x10\x1e\0\x04MQTT".to_vec();
        refusal.detail = Detail::FirstBytes(FirstBytes::of(&refusal.first_bytes));
        assert_eq!(describe(&refusal).unwrap(), "10 1e 00 04 4d 51 54 54 is an MQTT CONNECT");
        assert!(remedy(&refusal).unwrap().contains("send-proxy-v2"));
    }

    #[test]
    fn the_other_version_is_named() {
        let mut refusal = refusal(Outcome::VersionNotAllowed, "10.0.3.7:51724");
        refusal.first_bytes = b"PROXY TCP4".to_vec();
        assert!(remedy(&refusal).unwrap().contains("\"send-proxy-v2\""));
        refusal.first_bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        assert!(remedy(&refusal).unwrap().contains("\"send-proxy\""));
    }

    #[test]
    fn a_rule_of_the_operators_needs_no_cure() {
        for outcome in [Outcome::Denied, Outcome::RateLimited, Outcome::TooMany, Outcome::TooManyFromClient] {
            assert_eq!(remedy(&refusal(outcome, "10.0.3.7:51724")), None, "{outcome}");
        }
    }
}
