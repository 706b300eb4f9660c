//! Why a client was refused or its session ended. MQTT has an answer for some causes; the others close without a word.

use std::fmt;
use std::str::FromStr;

use proxyproto_mqtt::Reason;

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $name:ident, $code:literal;)+) => {
        /// Why a client was refused or its session ended. The code is stable, and for machines.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause {
            /// A reason of MQTT's table, which has the answer to the client.
            Mqtt(Reason),
            $($(#[doc = $doc])+ $name,)+
        }

        impl Cause {
            /// Those that no packet answers.
            const SILENT: &'static [Self] = &[$(Self::$name),+];

            /// The stable lower-case code: `"slow-consumer"`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    Self::Mqtt(reason) => reason.code(),
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

causes! {
    /// No whole CONNECT has come in time.
    NoConnect, "no-connect";
    /// The client has gone before it was let in or refused.
    ClosedEarly, "closed-early";
    /// A PROXY header where none is expected.
    UnexpectedHeader, "unexpected-header";
    /// The operator does not allow the client's address.
    Denied, "denied";
    /// The TLS handshake has failed.
    TlsFailed, "tls-failed";
    /// The WebSocket was not opened.
    WsFailed, "ws-failed";
    /// The client has said goodbye.
    Disconnect, "disconnect";
    /// The client has gone without saying goodbye.
    ConnectionLost, "connection-lost";
    /// A packet of the client was not complete in time.
    PacketTimeout, "packet-timeout";
    /// The client does not read what is sent to it.
    SlowConsumer, "slow-consumer";
    /// The server has broken the rules of MQTT.
    BrokerError, "broker-error";
    /// The server has closed the connection. It is still up.
    UpstreamClosed, "upstream-closed";
    /// The server has gone down.
    UpstreamLost, "upstream-lost";
}

impl Cause {
    /// The row of MQTT's table, which says how the client is answered. `None`: the connection is closed without an answer.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Mqtt(reason) => Some(reason),
            _ => None,
        }
    }
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        Self::Mqtt(reason)
    }
}

impl FromStr for Cause {
    type Err = UnknownCause;

    fn from_str(code: &str) -> Result<Self, UnknownCause> {
        let answered = Reason::ALL.iter().copied().map(Self::Mqtt);
        answered.chain(Self::SILENT.iter().copied()).find(|cause| cause.code() == code).ok_or(UnknownCause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A code that no [`Cause`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCause;

impl fmt::Display for UnknownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such reason")
    }
}

impl std::error::Error for UnknownCause {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_code_names_one_cause() {
        let answered = Reason::ALL.iter().copied().map(Cause::Mqtt);
        let all: Vec<_> = answered.chain(Cause::SILENT.iter().copied()).collect();
        let codes: HashSet<_> = all.iter().map(|cause| cause.code()).collect();
        assert_eq!(codes.len(), all.len());
        for cause in all {
            assert_eq!(cause.code().parse(), Ok(cause));
        }
        assert_eq!("no-such".parse::<Cause>(), Err(UnknownCause));
    }
}
