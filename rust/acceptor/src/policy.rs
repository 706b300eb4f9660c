//! Decides whether a connection is wanted: the rules and limits for its client.

use std::sync::Arc;
use std::time::Instant;

use proxyproto_codec::{Command, Header, SslInfo, Version};

use crate::addresses::{ClientAddr, PeerAddr};
use crate::cause::{Cause, ClientTls};
use crate::options::{HealthChecks, Options};
use crate::outcome::Outcome;
use crate::permit::{OpenConnections, Permit};

/// What to do with a connection that no rule forbids, and the outcome under which it counts.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Serve it.
    Serve(Outcome, Permit),
    /// Count it and close it: it is a health check.
    Close(Outcome),
}

/// Decides on a connection from `peer`. Its header, if it has one, is valid.
///
/// The error is the rule or limit that forbids it, with the client.
pub(crate) fn decide<B: AsRef<[u8]>>(
    header: Option<&Header<B>>,
    peer: &PeerAddr,
    options: &Options,
    open: &Arc<OpenConnections>,
    now: Instant,
) -> Result<Admission, (Cause, Option<ClientAddr>)> {
    let outcome = accepted_as(header);
    if matches!(outcome, Outcome::Local | Outcome::Unknown) {
        // The proxy speaks for itself or names nobody, so rules about clients do not apply.
        return Ok(match options.health_checks {
            HealthChecks::Deliver => Admission::Serve(outcome, open.admit_unlimited()),
            HealthChecks::Close => Admission::Close(outcome),
        });
    }
    let client = client_of(header, peer);
    match admit(header, client, options, open, now) {
        Ok(permit) => Ok(Admission::Serve(outcome, permit)),
        Err(cause) => Err((cause, client)),
    }
}

/// The client: whom `header` names, or the peer if there is no header. `None` if it has no IP address.
pub(crate) fn client_of<B: AsRef<[u8]>>(header: Option<&Header<B>>, peer: &PeerAddr) -> Option<ClientAddr> {
    match (header, peer) {
        (Some(header), _) => Some(ClientAddr::new(header.source()?.socket_addr()?)),
        (None, PeerAddr::Ip(address)) => Some(ClientAddr::new(*address)),
        (None, PeerAddr::Unix(_) | PeerAddr::Unknown(_)) => None,
    }
}

fn accepted_as<B: AsRef<[u8]>>(header: Option<&Header<B>>) -> Outcome {
    match header {
        None => Outcome::Direct,
        Some(header) if header.command() == Command::Local => Outcome::Local,
        Some(header) if header.source().is_none() => Outcome::Unknown,
        Some(header) if header.version() == Version::V1 => Outcome::V1,
        Some(_) => Outcome::V2,
    }
}

/// Applies the rules, the cheapest first. The limits come last, so that a refused connection uses up none of them.
fn admit<B: AsRef<[u8]>>(
    header: Option<&Header<B>>,
    client: Option<ClientAddr>,
    options: &Options,
    open: &Arc<OpenConnections>,
    now: Instant,
) -> Result<Permit, Cause> {
    if header.is_some() && client.is_some_and(|client| !client.can_be_a_client()) {
        return Err(Cause::ImpossibleClient);
    }
    check_lists(client, options, now)?;
    let ssl = header.and_then(Header::ssl);
    if options.require_tls && !ssl.as_ref().is_some_and(SslInfo::client_tls) {
        return Err(Cause::TlsRequired(ClientTls::of(header)));
    }
    if options.require_client_cert && !ssl.as_ref().is_some_and(SslInfo::verified) {
        return Err(Cause::CertRequired(ClientTls::of(header)));
    }
    let permit = open.admit(options.max_connections)?;
    match client {
        // A refusal here drops the permit, which gives the place back.
        Some(client) => Ok(permit.and(options.client_limits.admit(client.ip, now)?)),
        None => Ok(permit),
    }
}

fn check_lists(client: Option<ClientAddr>, options: &Options, now: Instant) -> Result<(), Cause> {
    let Some(client) = client else {
        // The client has no address that could be on a list. So `deny` cannot name it, and `allow` leaves it out.
        return if options.allow.is_some() { Err(Cause::NoAddressToAllow) } else { Ok(()) };
    };
    let host = client.host();
    if let Some((entry, list)) = options.deny.as_ref().and_then(|deny| deny.denying_entry_for(host, now)) {
        return Err(Cause::Denied { entry, list });
    }
    match &options.allow {
        Some(allow) if !allow.contains(host, now) => Err(Cause::NotAllowed { networks: allow.held(now) }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_set::AddressSet;
    use crate::permit::{ClientLimits, PerClient};
    use crate::rate::Rate;
    use proxyproto_codec::{Status, decode};

    const PEER: &str = "10.0.0.1:40000";

    fn word(bytes: &[u8], options: &Options) -> &'static str {
        let header = match decode(bytes, &options.codec).unwrap() {
            Status::Complete(header) => Some(header),
            Status::Partial { .. } => None,
        };
        let open = Arc::new(OpenConnections::default());
        match decide(header.as_ref(), &PeerAddr::Ip(PEER.parse().unwrap()), options, &open, Instant::now()) {
            Ok(Admission::Serve(outcome, _)) => outcome.name(),
            Err((cause, _)) => cause.outcome().name(),
            Ok(Admission::Close(_)) => "close",
        }
    }

    fn v2(source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
        let length = u8::try_from(12 + tlvs.len()).unwrap();
        let mut bytes = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".as_slice(), &[length]].concat();
        bytes.extend(source);
        bytes.extend([198, 51, 100, 1, 0x30, 0x39, 0x07, 0x5b]);
        bytes.extend(tlvs);
        bytes
    }

    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";

    fn set(texts: &[&str]) -> AddressSet {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn served_connections_count_under_what_they_are() {
        let options = Options::default();
        for (bytes, expected) in [(V1, "v1"), (LOCAL, "local"), (UNKNOWN, "unknown"), (b"", "direct")] {
            assert_eq!(word(bytes, &options), expected);
        }
        assert_eq!(word(&v2([192, 0, 2, 1], b""), &options), "v2");
    }

    #[test]
    fn a_header_that_names_nobodys_address_is_malformed() {
        for source in [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
            assert_eq!(word(&v2(source, b""), &Options::default()), "malformed");
        }
    }

    #[test]
    fn lists_are_about_the_client_not_the_proxy() {
        let deny = |texts: &[&str]| Options { deny: Some(set(texts)), ..Options::default() };
        assert_eq!(word(V1, &deny(&["192.0.2.0/24"])), "denied");
        assert_eq!(word(V1, &deny(&["10.0.0.0/8"])), "v1");
        assert_eq!(word(b"", &deny(&["10.0.0.0/8"])), "denied");
        assert_eq!(word(LOCAL, &deny(&["0.0.0.0/0"])), "local");
        assert_eq!(word(UNKNOWN, &deny(&["0.0.0.0/0"])), "unknown");
        let allow = |texts: &[&str]| Options { allow: Some(set(texts)), ..Options::default() };
        assert_eq!(word(V1, &allow(&["192.0.2.1"])), "v1");
        assert_eq!(word(V1, &allow(&[])), "denied");
        let both = Options { deny: Some(set(&["192.0.2.1"])), ..allow(&["192.0.2.0/24"]) };
        assert_eq!(word(V1, &both), "denied");
    }

    #[test]
    fn a_refusal_names_the_list_and_the_entry() {
        let networks = |texts: &[&str]| -> AddressSet { set(texts) };
        let cases = [
            (
                Options::default().deny(networks(&["192.0.2.0/24", "10.0.0.0/8"])),
                Cause::Denied { entry: "192.0.2.0/24".parse().unwrap(), list: None },
            ),
            (Options::default().allow(networks(&["10.0.0.0/8"])), Cause::NotAllowed { networks: 1 }),
        ];
        let open = Arc::new(OpenConnections::default());
        let Ok(Status::Complete(header)) = decode(V1, &Options::default().codec) else { panic!("a header") };
        for (options, expected) in cases {
            let peer = PeerAddr::Ip(PEER.parse().unwrap());
            let decision = decide(Some(&header), &peer, &options, &open, Instant::now());
            let Err((cause, Some(_))) = decision else { panic!("{decision:?}") };
            assert_eq!(cause, expected);
        }
        let unix = PeerAddr::Unix(crate::UnixName::default());
        let nobody = Options::default().allow(networks(&[]));
        let decision = decide(None::<&Header<&[u8]>>, &unix, &nobody, &open, Instant::now());
        assert!(matches!(decision, Err((Cause::NoAddressToAllow, None))), "{decision:?}");
    }

    #[test]
    fn a_denied_link_local_client_does_not_come_in_by_another_interface() {
        let peer = PeerAddr::Ip("[fe80::1%3]:1".parse().unwrap());
        let word = |options: &Options| {
            let open = Arc::new(OpenConnections::default());
            match decide(None::<&Header<&[u8]>>, &peer, options, &open, Instant::now()) {
                Err((cause, _)) => cause.outcome().name(),
                _ => "served",
            }
        };
        assert_eq!(word(&Options::default().deny(set(&["fe80::1"]))), "denied");
        assert_eq!(word(&Options::default().deny(set(&["fe80::1%3"]))), "denied");
        assert_eq!(word(&Options::default().deny(set(&["fe80::1%4"]))), "served");
        assert_eq!(word(&Options::default().allow(set(&["fe80::1%3"]))), "served");
        assert_eq!(word(&Options::default().allow(set(&["fe80::1"]))), "denied");
    }

    #[test]
    fn tls_is_required_before_a_certificate_and_fails_closed() {
        let tls = Options { require_tls: true, ..Options::default() };
        let certificate = Options { require_client_cert: true, ..Options::default() };
        let both = Options { require_client_cert: true, ..tls.clone() };
        let ssl = |client: u8, verify: u8| v2([192, 0, 2, 1], &[0x20, 0, 5, client, 0, 0, 0, verify]);
        let cases: &[(&Options, Vec<u8>, &str)] = &[
            (&tls, V1.to_vec(), "tls-required"),
            (&tls, v2([192, 0, 2, 1], b""), "tls-required"),
            (&tls, ssl(0, 0), "tls-required"),
            (&tls, ssl(1, 0), "v2"),
            (&both, v2([192, 0, 2, 1], b""), "tls-required"),
            (&both, ssl(1, 0), "cert-required"),
            (&both, ssl(3, 1), "cert-required"),
            (&both, ssl(3, 0), "v2"),
            (&certificate, ssl(5, 0), "v2"),
            (&certificate, V1.to_vec(), "cert-required"),
            (&both, LOCAL.to_vec(), "local"),
        ];
        for (options, bytes, expected) in cases {
            assert_eq!(word(bytes, options), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn limits_are_spent_by_the_admitted_alone() {
        let client_limits = ClientLimits::new(PerClient { max_connections: Some(1), ..PerClient::default() });
        let options = Options { client_limits, max_connections: Some(2), ..Options::default() };
        let open = Arc::new(OpenConnections::default());
        let decide_on = |source: u8| {
            let bytes = v2([192, 0, 2, source], b"");
            let Ok(Status::Complete(header)) = decode(&bytes, &options.codec) else {
                panic!("a good header")
            };
            decide(Some(&header), &PeerAddr::Ip(PEER.parse().unwrap()), &options, &open, Instant::now())
        };
        let Ok(Admission::Serve(_, first)) = decide_on(1) else { panic!("a free place") };
        assert!(matches!(decide_on(1), Err((Cause::TooManyFromClient { open: 1, most: 1, .. }, Some(_)))));
        let Ok(Admission::Serve(_, _second)) = decide_on(2) else { panic!("a free place") };
        assert!(matches!(decide_on(3), Err((Cause::TooMany { open: 2, most: 2 }, Some(_)))));
        drop(first);
        assert!(matches!(decide_on(3), Ok(Admission::Serve(..))));
    }

    #[test]
    fn whoever_is_refused_for_want_of_a_place_keeps_its_rate() {
        let rate = Rate::new(0.001, Some(2)).unwrap();
        let per_client = |limits: PerClient| ClientLimits::new(limits.rate(rate));
        let cases = [
            Options::default().client_limits(per_client(PerClient::default().max_connections(1))),
            Options::default().client_limits(per_client(PerClient::default())).max_connections(1),
        ];
        for options in cases {
            let open = Arc::new(OpenConnections::default());
            let peer = PeerAddr::Ip(PEER.parse().unwrap());
            let decide_on_one = || decide(None::<&Header<&[u8]>>, &peer, &options, &open, Instant::now());
            let Ok(Admission::Serve(_, first)) = decide_on_one() else { panic!("a free place") };
            for _ in 0..5 {
                let Err((cause, _)) = decide_on_one() else { panic!("no free place") };
                assert!(matches!(cause, Cause::TooMany { .. } | Cause::TooManyFromClient { .. }));
            }
            drop(first);
            let Ok(Admission::Serve(_, second)) = decide_on_one() else { panic!("its rate was spent") };
            drop(second);
            let Err((Cause::RateLimited { .. }, _)) = decide_on_one() else { panic!("no rate") };
            // A client that is too fast takes no place either.
            assert_eq!(open.count(), 0);
        }
    }

    #[test]
    fn health_checks_can_be_closed() {
        let options = Options { health_checks: HealthChecks::Close, ..Options::default() };
        assert_eq!(word(LOCAL, &options), "close");
        assert_eq!(word(UNKNOWN, &options), "close");
        assert_eq!(word(V1, &options), "v1");
    }
}
