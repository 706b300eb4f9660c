//! The record of refused connections.

use std::sync::Arc;
use std::time::SystemTime;

use crate::addresses::{ClientAddr, Host, PeerAddr};
use crate::cause::Cause;
use crate::detail::detail;
use crate::outcome::Outcome;
use crate::setting::{Setting, Wording};

/// How many of the first bytes a record holds: a signature and some bytes behind it.
const MOST_FIRST_BYTES: usize = 24;

/// A refused connection, or several that came from one address and were refused for one reason.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The reason.
    pub outcome: Outcome,
    /// The peer of the latest connection.
    pub peer: PeerAddr,
    /// The client: the one that the header names, or a peer that would have been served directly. `None` if no header was
    /// read.
    pub client: Option<ClientAddr>,
    /// The first bytes of the latest connection, at most 24.
    pub first_bytes: Vec<u8>,
    /// The listener's address.
    pub listener: Arc<str>,
    /// How many connections this record stands for.
    pub count: u64,
    /// When the latest connection was refused.
    pub time: SystemTime,
    pub(crate) cause: Cause,
}

impl Refusal {
    /// A record of one connection.
    pub(crate) fn new(
        cause: Cause,
        (peer, client): (PeerAddr, Option<ClientAddr>),
        first_bytes: &[u8],
        listener: &Arc<str>,
    ) -> Self {
        Self {
            outcome: cause.outcome(),
            peer,
            client,
            first_bytes: first_bytes.iter().take(MOST_FIRST_BYTES).copied().collect(),
            listener: Arc::clone(listener),
            count: 1,
            time: SystemTime::now(),
            cause,
        }
    }

    /// One line for people about the latest connection: what was wrong, at which byte, what came instead, and what to change.
    #[must_use]
    pub fn detail(&self) -> String {
        self.detail_in(Setting::in_rust)
    }

    /// As [`Refusal::detail`], with other names for the settings.
    #[must_use]
    pub fn detail_in(&self, wording: Wording) -> String {
        detail(self, wording)
    }

    /// The address to blame: the client's if a header names one, otherwise the peer's. `None` if it is not an IP address.
    pub(crate) fn culprit(&self) -> Option<Host> {
        self.client.map(ClientAddr::host).or_else(|| self.peer.host())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::addresses::UnixName;
    use crate::cause::ClientTls;
    use crate::network::Network;
    use crate::rate::Rate;
    use proxyproto_codec::{FirstBytes, decode};
    use std::time::Duration;

    /// The refusal of a peer that was too slow.
    pub(crate) fn timeout(peer: &str) -> Refusal {
        refusal(Cause::Timeout { seen: 0, needed: 1, limit: Duration::from_secs(5) }, peer)
    }

    /// The refusal of a peer that sent no header.
    pub(crate) fn missing_header(peer: &str) -> Refusal {
        refusal(Cause::MissingHeader(FirstBytes::Nothing), peer)
    }

    fn refusal(cause: Cause, peer: &str) -> Refusal {
        let peer = PeerAddr::Ip(peer.parse().unwrap());
        Refusal::new(cause, (peer, None), b"", &"192.0.2.9:1883".into())
    }

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";

    fn invalid(bytes: &[u8], options: proxyproto_codec::Options) -> Cause {
        Cause::Invalid(decode(bytes, &options).unwrap_err())
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    /// The one name that another face has for every setting. A text that does not ask for the name does not contain it.
    fn keyword(_: Setting) -> &'static str {
        "KEYWORD"
    }

    /// A cause, the first bytes, the outcome, and the detail in Rust's words.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn cases() -> Vec<(Cause, &'static [u8], &'static str, String)> {
        let any = proxyproto_codec::Options::default();
        let mut v2_only = any;
        v2_only.versions = proxyproto_codec::Versions::V2;
        let rate = Rate::new(0.5, Some(3)).unwrap();
        let oversized = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
        let checksum = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07\x03\0\x04\0\0\0\0";
        let limit = Duration::from_secs(5);
        let tls = "Options::require_tls is set: in HAProxy it takes \"send-proxy-v2-ssl\" behind a bind line with ssl";
        let certificate = "Options::require_client_cert is set: in HAProxy it takes \"send-proxy-v2-ssl-cn\" behind a bind \
                           line with verify";
        let cases: &[(Cause, &'static [u8], &str, &str)] = &[
            (
                Cause::Untrusted { networks: 3, without_scope: None },
                b"",
                "untrusted",
                "10.0.3.7 is not in Options::trusted (3 networks). Only these proxies may connect here: if 10.0.3.7 is one of \
                 yours, add it; if clients come straight to this port too, set Untrusted::Direct",
            ),
            (
                Cause::Untrusted { networks: 1, without_scope: Some(network("fe80::1")) },
                b"",
                "untrusted",
                "10.0.3.7 is not in Options::trusted (1 network). fe80::1 is there without its interface, and so it trusts \
                 nobody: write 10.0.3.7",
            ),
            (Cause::RefusedByPolicy, b"", "untrusted", "the policy refuses 10.0.3.7"),
            (
                Cause::MissingHeader(FirstBytes::MqttConnect),
                b"\x10\x1e\0\x04MQTT",
                "missing-header",
                "10 1e 00 04 4d 51 54 54 is an MQTT CONNECT. This port wants a PROXY header first: in HAProxy add \
                 \"send-proxy-v2\" to the server line, in nginx \"proxy_protocol on\", on an AWS NLB \
                 proxy_protocol_v2.enabled=true",
            ),
            (
                Cause::UnexpectedHeader(FirstBytes::ProxyV1),
                b"PROXY ",
                "unexpected-header",
                "50 52 4f 58 59 20 is a PROXY header of version 1. This port is set to ProxyProtocol::Off: set it to \
                 ProxyProtocol::Required (and Options::trusted to the proxy's address), or take send-proxy out of the \
                 proxy's configuration",
            ),
            (
                invalid(b"PROXY TCP5 ", any),
                b"PROXY TCP5 ",
                "malformed",
                "invalid PROXY header at byte 9: the protocol is none of TCP4, TCP6 and UNKNOWN; the first bytes are 50 52 4f \
                 58 59 20 54 43 50 35 20",
            ),
            (
                Cause::ImpossibleClient,
                b"",
                "malformed",
                "the header says that the client is 192.0.2.1. No client can have this address: the proxy does not know its \
                 client's",
            ),
            (
                invalid(oversized, any),
                oversized,
                "oversized",
                "invalid PROXY header at byte 14: longer than the largest header accepted here; the first bytes are 0d 0a 0d \
                 0a 00 0d 0a 51 55 49 54 0a 21 11 ff ff. If the proxy is right to send so much, raise \
                 codec::Options::max_header_size",
            ),
            (
                invalid(checksum, any),
                b"\r\n\r\n",
                "bad-checksum",
                "invalid PROXY header at byte 19: the CRC32C does not match the header; the first bytes are 0d 0a 0d 0a. The \
                 header was damaged, or the proxy computes CRC32C wrongly: it covers the whole header with its own four \
                 bytes zeroed",
            ),
            (
                Cause::Timeout { seen: 0, needed: 1, limit },
                b"",
                "timeout",
                "nothing came in 5 s. The peer said nothing: it is no proxy, or one that sends its header with the first data (an AWS NLB \
                 does): raise Options::header_timeout",
            ),
            (
                Cause::Timeout { seen: 1, needed: 15, limit: Duration::from_millis(1500) },
                b"\r",
                "timeout",
                "1 byte of the header came in 1.5 s, 15 or more are missing; the first bytes are 0d. The rest of the \
                 header never came: the peer is slow or hostile",
            ),
            (
                Cause::ReceiveBuffer { size: 2304 },
                b"\r",
                "timeout",
                "the header does not fit into the receive buffer (SO_RCVBUF) of 2304 bytes; the first bytes are 0d. The \
                 kernel lets the peer send no more until the header is read: give the listening socket a larger SO_RCVBUF, \
                 or leave it to the kernel",
            ),
            (
                Cause::ClosedEarly { seen: 10, needed: 2 },
                b"PROXY TCP4",
                "closed-early",
                "the peer closed after 10 bytes of the header, 2 or more are missing; the first bytes are 50 52 4f 58 59 20 \
                 54 43 50 34",
            ),
            (Cause::Reset, b"", "closed-early", "the peer reset the connection while its header was read"),
            (
                invalid(V1, v2_only),
                b"PROXY TCP4",
                "version-not-allowed",
                "50 52 4f 58 59 20 54 43 50 34 is a PROXY header of version 1. codec::Options::versions leaves this version \
                 out: add it, or let the proxy send the other one (\"send-proxy-v2\" in HAProxy)",
            ),
            (
                invalid(V1, v2_only),
                b"\r\n\r\n\0\r\nQUIT\n",
                "version-not-allowed",
                "0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a is a PROXY header of version 2. codec::Options::versions leaves this \
                 version out: add it, or let the proxy send the other one (\"send-proxy\" in HAProxy)",
            ),
            (
                Cause::Denied { entry: network("192.0.2.0/24"), list: None },
                b"",
                "denied",
                "deny 192.0.2.0/24 covers it",
            ),
            (
                Cause::Denied { entry: network("192.0.2.0/24"), list: Some("crowdsec".into()) },
                b"",
                "denied",
                "deny 192.0.2.0/24 of crowdsec covers it",
            ),
            (
                Cause::NotAllowed { networks: 2 },
                b"",
                "denied",
                "192.0.2.1 is not in Options::allow (2 networks)",
            ),
            (
                Cause::NoAddressToAllow,
                b"",
                "denied",
                "the client has no IP address, so it is not in Options::allow",
            ),
            (
                Cause::RateLimited { client: network("2001:db8::/64"), rate },
                b"",
                "rate-limited",
                "2001:db8::/64 has used up PerClient::rate (0.5 in a second, 3 at once)",
            ),
            (
                Cause::TooManyFromClient { client: network("192.0.2.1"), open: 1, most: 1 },
                b"",
                "too-many-from-client",
                "192.0.2.1 has 1 open connection, and PerClient::max_connections allows 1",
            ),
            (
                Cause::TooMany { open: 20, most: 10 },
                b"",
                "too-many",
                "clients have 20 open connections, and Options::max_connections allows 10",
            ),
            (
                Cause::TlsRequired(ClientTls::NoHeader),
                b"",
                "tls-required",
                &format!("there is no header that could tell of the client's TLS. {tls}"),
            ),
            (
                Cause::TlsRequired(ClientTls::Version1),
                b"",
                "tls-required",
                &format!("a header of version 1 cannot tell of the client's TLS. {tls}"),
            ),
            (
                Cause::TlsRequired(ClientTls::NoTlv),
                b"",
                "tls-required",
                &format!("the header tells nothing of the client's TLS (no SSL TLV). {tls}"),
            ),
            (
                Cause::TlsRequired(ClientTls::Unused),
                b"",
                "tls-required",
                &format!("the header says that the client did not use TLS. {tls}"),
            ),
            (
                Cause::CertRequired(ClientTls::NoCertificate),
                b"",
                "cert-required",
                &format!("the header says that the client gave no certificate. {certificate}"),
            ),
            (
                Cause::CertRequired(ClientTls::NotVerified(10)),
                b"",
                "cert-required",
                &format!(
                    "the header says that the proxy could not verify the client's certificate (error 10). {certificate}"
                ),
            ),
            (
                Cause::PendingOverflow { max_pending: 1 },
                b"",
                "pending-overflow",
                "it had waited longest for its header when more than 1 waited. Raise Options::max_pending, lower \
                 Options::header_timeout, or set Options::trusted",
            ),
            (
                Cause::NoDescriptors,
                b"",
                "pending-overflow",
                "it had waited longest for its header when the process ran out of file descriptors. Raise LimitNOFILE= \
                 (ulimit -n), or lower Options::max_pending",
            ),
            (Cause::NoMemory, b"", "pending-overflow", "the kernel has no memory to wait for its header"),
        ];
        let owned = cases.iter();
        owned
            .map(|(cause, bytes, outcome, text)| (cause.clone(), *bytes, *outcome, (*text).to_owned()))
            .collect()
    }

    #[test]
    fn every_refusal_says_what_it_was() {
        let client = ClientAddr::new("192.0.2.1:51000".parse().unwrap());
        let mut told = Vec::new();
        for (cause, first_bytes, outcome, text) in cases() {
            let addresses = (PeerAddr::Ip("10.0.3.7:51724".parse().unwrap()), Some(client));
            let refusal = Refusal::new(cause, addresses, first_bytes, &"192.0.2.9:1883".into());
            assert_eq!((refusal.outcome.name(), refusal.detail()), (outcome, text));
            let in_other_words = refusal.detail_in(keyword);
            let names = Setting::ALL.iter().map(|setting| setting.in_rust());
            let expected = names.fold(refusal.detail(), |text, name| text.replace(name, "KEYWORD"));
            assert_eq!(in_other_words, expected);
            told.push(refusal.outcome);
        }
        for outcome in Outcome::ALL.iter().filter(|outcome| !outcome.is_accepted()) {
            assert!(told.contains(outcome), "{outcome} is not in the table");
        }
    }

    #[test]
    fn a_peer_without_an_address_is_told_as_that() {
        let untrusted = Cause::Untrusted { networks: 1, without_scope: None };
        for (peer, expected) in [
            (PeerAddr::Unknown(40), "the kernel does not say who the peer is (address family 40)"),
            (PeerAddr::Unix(UnixName::default()), "unix: is not in Options::trusted (1 network)"),
        ] {
            let refusal = Refusal::new(untrusted.clone(), (peer, None), b"", &"x".into());
            assert_eq!(refusal.detail(), expected);
        }
    }

    #[test]
    fn first_bytes_are_bounded() {
        let peer = PeerAddr::Ip("192.0.2.1:1".parse().unwrap());
        let cause = Cause::MissingHeader(FirstBytes::Unknown);
        let refusal = Refusal::new(cause, (peer, None), &[0x10; 100], &"x".into());
        assert_eq!(refusal.first_bytes.len(), MOST_FIRST_BYTES);
    }
}
