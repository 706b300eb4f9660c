//! What a stranger's first bytes look like, for the log line that says why they are no header.

use std::fmt;

/// What somebody spoke who did not send a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FirstBytes {
    /// No byte at all.
    Nothing,
    /// The CONNECT packet of MQTT.
    MqttConnect,
    /// The `ClientHello` of TLS.
    TlsClientHello,
    /// A request of HTTP/1 or the preface of HTTP/2.
    Http,
    /// The banner of SSH.
    Ssh,
    /// Some other text.
    Text,
    /// A PROXY header of version 1.
    ProxyV1,
    /// A PROXY header of version 2.
    ProxyV2,
    /// None of these.
    Unknown,
}

impl FirstBytes {
    /// What `data`, the first bytes of a stream, look like. Looks at 16 bytes at most.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        if data.is_empty() { Self::Nothing } else { Self::Unknown }
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing at all",
            Self::MqttConnect => "an MQTT CONNECT",
            Self::TlsClientHello => "a TLS ClientHello",
            Self::Http => "an HTTP request",
            Self::Ssh => "an SSH banner",
            Self::Text => "a line of text",
            Self::ProxyV1 => "a PROXY header of version 1",
            Self::ProxyV2 => "a PROXY header of version 2",
            Self::Unknown => "unknown bytes",
        })
    }
}
