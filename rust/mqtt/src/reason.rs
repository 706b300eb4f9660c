//! Why a client is refused or its session ended: [`Reason`], the one table of codes and of MQTT's answers.

use core::fmt;

use crate::Version;

/// Writes [`Reason`] and its table, so that every variant has a code, a text and its answers.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident, $code:literal, $text:literal, $v3:tt, $v5:tt, $end:tt;)+) => {
        /// Every reason for which MQTT has an answer: the one published table.
        ///
        /// A client that logs in is answered with a CONNACK; a session of MQTT 5 ends with a DISCONNECT.
        /// Where the table has no code, the connection is closed without an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable lower-case code, for machines: `"bad-credentials"`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The text for people, lower case and without a full stop.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The code of the CONNACK that refuses a client. `None`: the connection is closed without one.
            #[must_use]
            pub const fn connack(self, version: Version) -> Option<u8> {
                match (self, version) {
                    $(
                        (Self::$name, Version::Mqtt31 | Version::Mqtt311) => answer!($v3),
                        (Self::$name, Version::Mqtt5) => answer!($v5),
                    )+
                }
            }

            /// The code of the DISCONNECT that ends a session of MQTT 5. `None`: the connection is closed
            /// without one, as it always is in 3.1 and 3.1.1.
            #[must_use]
            pub const fn disconnect(self) -> Option<u8> {
                match self { $(Self::$name => answer!($end),)+ }
            }
        }
    };
}

macro_rules! answer {
    (_) => {
        None
    };
    ($code:literal) => {
        Some($code)
    };
}

reasons! {
    /// Nobody knows the user, or the password is wrong.
    BadCredentials, "bad-credentials", "user name or password is wrong", 5, 0x86, _;
    /// Whoever decides about passwords has failed.
    AuthError, "auth-error", "the login could not be checked", 3, 0x88, _;
    /// A block covers the client.
    Blocked, "blocked", "the client is blocked", 5, 0x8a, 0x98;
    /// An access rule forbids the client, or what it wants.
    AccessDenied, "access-denied", "an access rule forbids it", 5, 0x87, _;
    /// The client has no certificate, or not the one that its login takes.
    CertRequired, "cert-required", "a client certificate is required", 5, 0x87, _;
    /// A version of MQTT that is not served.
    ProtocolVersion, "protocol-version", "the version of MQTT is not served", 1, 0x84, _;
    /// A client id that is not served.
    IdentifierRejected, "identifier-rejected", "the client id is rejected", 2, 0x85, _;
    /// The first packet is no valid CONNECT.
    MalformedConnect, "malformed-connect", "not a valid CONNECT", _, 0x81, _;
    /// There are as many sessions as may be.
    TooManySessions, "too-many-sessions", "too many sessions", 3, 0x97, _;
    /// The server has more logins to check than it can.
    Busy, "busy", "too many logins wait", _, 0x89, _;
    /// No upstream server takes the client.
    UpstreamUnavailable, "upstream-unavailable", "no upstream server is available", 3, 0x88, _;
    /// The upstream server has refused the client. Its own answer goes to the client.
    UpstreamRefused, "upstream-refused", "the upstream server has refused the client", _, _, _;
    /// The client sends more than it may.
    RateLimited, "rate-limited", "the client exceeds its rate", _, 0x9f, 0x96;
    /// A packet, or the CONNECT, that is larger than the receiver wants.
    PacketTooLarge, "packet-too-large", "the packet is too large", _, 0x95, 0x95;
    /// An operator has ended the session.
    Administrative, "administrative", "an operator has ended the session", _, _, 0x98;
    /// The client has been silent for one and a half times its keep-alive (MQTT-3.1.2-24).
    KeepAlive, "keep-alive", "the client has been silent for too long", _, _, 0x8d;
    /// A topic to which the client must not publish.
    BadTopic, "bad-topic", "the topic is not valid", _, _, 0x90;
    /// A second CONNECT (MQTT-3.1.0-2).
    SecondConnect, "second-connect", "a second CONNECT", _, _, 0x82;
    /// A packet that breaks a rule of MQTT.
    MalformedPacket, "malformed-packet", "not a valid packet", _, _, 0x81;
    /// The server ends.
    ServerShutdown, "server-shutdown", "the server ends", _, _, 0x8b;
    /// Another connection has logged in with the same client id (MQTT-3.1.4-2).
    TakenOver, "taken-over", "another connection has taken the client id", _, _, 0x8e;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::code::{Carrier, is_allowed};

    #[test]
    fn codes_are_the_names_and_texts_are_unique() {
        let mut texts = HashSet::new();
        for reason in Reason::ALL {
            let name = format!("{reason:?}");
            let code = name.char_indices().fold(String::new(), |code, (at, letter)| match letter {
                'A'..='Z' if at > 0 => code + "-" + &letter.to_ascii_lowercase().to_string(),
                letter => code + &letter.to_ascii_lowercase().to_string(),
            });
            assert_eq!(reason.code(), code);
            assert!(texts.insert(reason.text()), "{code}");
            assert!(!reason.text().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn answers_are_codes_of_their_packet() {
        for &reason in Reason::ALL {
            for version in [Version::Mqtt31, Version::Mqtt311] {
                assert!(reason.connack(version).is_none_or(|code| (1..=5).contains(&code)), "{reason:?}");
            }
            let connack = reason.connack(Version::Mqtt5);
            assert!(connack.is_none_or(|code| is_allowed(code, Carrier::Connack)), "{reason:?}");
            let disconnect = reason.disconnect();
            assert!(disconnect.is_none_or(|code| is_allowed(code, Carrier::ServerDisconnect)), "{reason:?}");
        }
    }
}
