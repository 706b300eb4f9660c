//! The text about a refusal for the person who reads the log at night: what came, what it probably means, what to change.

use std::fmt;

use proxyproto_codec::{Fault, FirstBytes};

use crate::addresses::PeerAddr;
use crate::cause::Cause;
use crate::refusal::Refusal;
use crate::setting::{Setting, Wording};

/// One line: the facts, then the likely cause and what to change.
pub(crate) fn detail(refusal: &Refusal, name: Wording) -> String {
    let mut facts = describe(refusal, name);
    if !refusal.first_bytes.is_empty() && !is_about_first_bytes(&refusal.cause) {
        facts = format!("{facts}; the first bytes are {}", Hex(&refusal.first_bytes));
    }
    match remedy(refusal, name) {
        Some(remedy) => format!("{facts}. {remedy}"),
        None => facts,
    }
}

/// What was wrong, and what came instead.
fn describe(refusal: &Refusal, name: Wording) -> String {
    let hex = Hex(&refusal.first_bytes);
    match refusal.cause {
        Cause::Untrusted { networks, .. } => match refusal.peer {
            PeerAddr::Unknown(family) => {
                format!("the kernel does not say who the peer is (address family {family})")
            }
            _ => format!(
                "{} is not in {} ({})",
                peer(refusal),
                name(Setting::Trusted),
                count(networks, "network")
            ),
        },
        Cause::RefusedByPolicy => format!("the policy refuses {}", peer(refusal)),
        Cause::MissingHeader(first_bytes) | Cause::UnexpectedHeader(first_bytes) => {
            format!("{hex} is {first_bytes}")
        }
        Cause::Invalid(error) if error.fault() == Fault::VersionNotAllowed => {
            format!("{hex} is {}", FirstBytes::of(&refusal.first_bytes))
        }
        Cause::Invalid(error) => error.to_string(),
        Cause::ImpossibleClient => format!("the header says that the client is {}", client(refusal)),
        Cause::Timeout { seen: 0, limit, .. } => format!("nothing came in {} s", limit.as_secs_f64()),
        Cause::Timeout { seen, needed, limit } => {
            format!(
                "{} of the header came in {} s, {needed} or more are missing",
                count(seen, "byte"),
                limit.as_secs_f64()
            )
        }
        Cause::ReceiveBuffer { size } => {
            format!("the header does not fit into the receive buffer (SO_RCVBUF) of {}", count(size, "byte"))
        }
        Cause::ClosedEarly { seen, needed } => {
            format!(
                "the peer closed after {} of the header, {needed} or more are missing",
                count(seen, "byte")
            )
        }
        Cause::Reset => "the peer reset the connection while its header was read".into(),
        // `deny` has the same name in every face.
        Cause::Denied { entry, list: None } => format!("deny {entry} covers it"),
        Cause::Denied { entry, list: Some(ref list) } => format!("deny {entry} of {list} covers it"),
        Cause::NotAllowed { networks } => {
            format!("{} is not in {} ({})", client(refusal), name(Setting::Allow), count(networks, "network"))
        }
        Cause::NoAddressToAllow => {
            format!("the client has no IP address, so it is not in {}", name(Setting::Allow))
        }
        Cause::RateLimited { client, rate } => {
            let (rate, burst) = (rate.per_second(), rate.burst());
            format!(
                "{client} has used up {} ({rate} in a second, {burst} at once)",
                name(Setting::RatePerClient)
            )
        }
        Cause::TooManyFromClient { client, open, most } => {
            let limit = name(Setting::MaxConnectionsPerClient);
            format!("{client} has {}, and {limit} allows {most}", count(open, "open connection"))
        }
        Cause::TooMany { open, most } => {
            let limit = name(Setting::MaxConnections);
            format!("clients have {}, and {limit} allows {most}", count(open, "open connection"))
        }
        Cause::TlsRequired(tls) | Cause::CertRequired(tls) => tls.to_string(),
        Cause::PendingOverflow { max_pending } => {
            format!("it had waited longest for its header when more than {max_pending} waited")
        }
        Cause::NoDescriptors => {
            "it had waited longest for its header when the process ran out of file descriptors".into()
        }
        Cause::NoMemory => "the kernel has no memory to wait for its header".into(),
    }
}

/// The likely cause and what to change, if there is something. A rule that works as its operator wants needs no remedy.
fn remedy(refusal: &Refusal, name: Wording) -> Option<String> {
    Some(match refusal.cause {
        Cause::Untrusted { without_scope: Some(entry), .. } => {
            let peer = peer(refusal);
            format!("{entry} is there without its interface, and so it trusts nobody: write {peer}")
        }
        Cause::Untrusted { .. } => match refusal.peer {
            PeerAddr::Ip(_) => format!(
                "Only these proxies may connect here: if {} is one of yours, add it; if clients come straight to this port \
                 too, set {}",
                peer(refusal),
                name(Setting::UntrustedDirect)
            ),
            _ => return None,
        },
        Cause::MissingHeader(_) => {
            "This port wants a PROXY header first: in HAProxy add \"send-proxy-v2\" to the server line, in nginx \
             \"proxy_protocol on\", on an AWS NLB proxy_protocol_v2.enabled=true"
                .into()
        }
        Cause::UnexpectedHeader(_) => format!(
            "This port is set to {}: set it to {} (and {} to the proxy's address), or take send-proxy out of the proxy's \
             configuration",
            name(Setting::ProxyProtocolOff),
            name(Setting::ProxyProtocolRequired),
            name(Setting::Trusted)
        ),
        Cause::Invalid(error) => return remedy_for(error, refusal, name),
        Cause::ImpossibleClient => {
            "No client can have this address: the proxy does not know its client's".into()
        }
        Cause::ReceiveBuffer { .. } => {
            "The kernel lets the peer send no more until the header is read: give the listening socket a larger SO_RCVBUF, \
             or leave it to the kernel"
                .into()
        }
        Cause::Timeout { seen: 0, .. } => format!(
            "The peer said nothing: it is no proxy, or one that sends its header with the first data (an AWS NLB does): \
             raise {}",
            name(Setting::HeaderTimeout)
        ),
        Cause::Timeout { .. } => "The rest of the header never came: the peer is slow or hostile".into(),
        Cause::TlsRequired(_) => format!(
            "{} is set: in HAProxy it takes \"send-proxy-v2-ssl\" behind a bind line with ssl",
            name(Setting::RequireTls)
        ),
        Cause::CertRequired(_) => format!(
            "{} is set: in HAProxy it takes \"send-proxy-v2-ssl-cn\" behind a bind line with verify",
            name(Setting::RequireClientCert)
        ),
        Cause::PendingOverflow { .. } => format!(
            "Raise {}, lower {}, or set {}",
            name(Setting::MaxPending),
            name(Setting::HeaderTimeout),
            name(Setting::Trusted)
        ),
        Cause::NoDescriptors => {
            format!("Raise LimitNOFILE= (ulimit -n), or lower {}", name(Setting::MaxPending))
        }
        _ => return None,
    })
}

fn remedy_for(error: proxyproto_codec::Error, refusal: &Refusal, name: Wording) -> Option<String> {
    match error.fault() {
        Fault::VersionNotAllowed => {
            let is_version_1 = FirstBytes::of(&refusal.first_bytes) == FirstBytes::ProxyV1;
            let other = if is_version_1 { "\"send-proxy-v2\"" } else { "\"send-proxy\"" };
            let versions = name(Setting::Versions);
            Some(format!(
                "{versions} leaves this version out: add it, or let the proxy send the other one ({other} in HAProxy)"
            ))
        }
        Fault::Oversized => {
            let size = name(Setting::MaxHeaderSize);
            Some(format!("If the proxy is right to send so much, raise {size}"))
        }
        Fault::BadChecksum => Some(
            "The header was damaged, or the proxy computes CRC32C wrongly: it covers the whole header with its own four \
             bytes zeroed"
                .into(),
        ),
        Fault::NoHeader | Fault::Malformed => None,
    }
}

/// Whether the description shows the first bytes already.
fn is_about_first_bytes(cause: &Cause) -> bool {
    match cause {
        Cause::MissingHeader(_) | Cause::UnexpectedHeader(_) => true,
        Cause::Invalid(error) => error.fault() == Fault::VersionNotAllowed,
        _ => false,
    }
}

fn peer(refusal: &Refusal) -> String {
    refusal.peer.host().map_or_else(|| refusal.peer.to_string(), |host| host.to_string())
}

fn client(refusal: &Refusal) -> String {
    refusal.client.map_or_else(|| "unknown".into(), |client| client.host().to_string())
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Writes the first bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}
