//! The codes in packets: what they are called, and which packets have them (MQTT 5, section 2.4).

use crate::Version;

/// A packet that carries a code. What a client and a server may say in a DISCONNECT differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Connack = 0x01,
    /// PUBACK and PUBREC.
    Puback = 0x02,
    /// PUBREL and PUBCOMP.
    Pubrel = 0x04,
    /// A DISCONNECT of a client.
    Disconnect = 0x08,
    ServerDisconnect = 0x10,
    Auth = 0x20,
}

/// Whether MQTT 5 allows the code in this packet.
pub(crate) const fn is_allowed(code: u8, carrier: Carrier) -> bool {
    row(code).1 & carrier as u8 != 0
}

/// What a code means, in the words of MQTT.
pub(crate) const fn text(code: u8, version: Version) -> &'static str {
    match (version, code) {
        (Version::Mqtt5, _) => row(code).0,
        (_, 0) => "accepted",
        (_, 1) => "unacceptable protocol version",
        (_, 2) => "identifier rejected",
        (_, 3) => "server unavailable",
        (_, 4) => "bad user name or password",
        (_, 5) => "not authorized",
        _ => UNKNOWN,
    }
}

macro_rules! codes {
    ($($code:literal, $text:literal, [$($carrier:ident)*];)+) => {
        const fn row(code: u8) -> (&'static str, u8) {
            match code {
                $($code => ($text, 0 $(| Carrier::$carrier as u8)*),)+
                _ => (UNKNOWN, 0),
            }
        }
    };
}

codes! {
    0x00, "success", [Connack Puback Pubrel Disconnect ServerDisconnect Auth];
    0x04, "disconnect with will message", [Disconnect];
    0x10, "no matching subscribers", [Puback];
    0x18, "continue authentication", [Auth];
    0x19, "re-authenticate", [Auth];
    0x80, "unspecified error", [Connack Puback Disconnect ServerDisconnect];
    0x81, "malformed packet", [Connack Disconnect ServerDisconnect];
    0x82, "protocol error", [Connack Disconnect ServerDisconnect];
    0x83, "implementation specific error", [Connack Puback Disconnect ServerDisconnect];
    0x84, "unsupported protocol version", [Connack];
    0x85, "client identifier not valid", [Connack];
    0x86, "bad user name or password", [Connack];
    0x87, "not authorized", [Connack Puback ServerDisconnect];
    0x88, "server unavailable", [Connack];
    0x89, "server busy", [Connack ServerDisconnect];
    0x8a, "banned", [Connack];
    0x8b, "server shutting down", [ServerDisconnect];
    0x8c, "bad authentication method", [Connack];
    0x8d, "keep alive timeout", [ServerDisconnect];
    0x8e, "session taken over", [ServerDisconnect];
    0x8f, "topic filter invalid", [ServerDisconnect];
    0x90, "topic name invalid", [Connack Puback Disconnect ServerDisconnect];
    0x91, "packet identifier in use", [Puback];
    0x92, "packet identifier not found", [Pubrel];
    0x93, "receive maximum exceeded", [Disconnect ServerDisconnect];
    0x94, "topic alias invalid", [Disconnect ServerDisconnect];
    0x95, "packet too large", [Connack Disconnect ServerDisconnect];
    0x96, "message rate too high", [Disconnect ServerDisconnect];
    0x97, "quota exceeded", [Connack Puback Disconnect ServerDisconnect];
    0x98, "administrative action", [Disconnect ServerDisconnect];
    0x99, "payload format invalid", [Connack Puback Disconnect ServerDisconnect];
    0x9a, "retain not supported", [Connack ServerDisconnect];
    0x9b, "QoS not supported", [Connack ServerDisconnect];
    0x9c, "use another server", [Connack ServerDisconnect];
    0x9d, "server moved", [Connack ServerDisconnect];
    0x9e, "shared subscriptions not supported", [ServerDisconnect];
    0x9f, "connection rate exceeded", [Connack ServerDisconnect];
    0xa0, "maximum connect time", [ServerDisconnect];
    0xa1, "subscription identifiers not supported", [ServerDisconnect];
    0xa2, "wildcard subscriptions not supported", [ServerDisconnect];
}

const UNKNOWN: &str = "a code that is not defined";
