//! What a stranger's first bytes look like. The log line says it when they are no header.

use core::fmt;

use crate::decoder::common_prefix;
use crate::{v1, v2};

/// The protocol of a sender who did not send a header, judged by the first bytes of the stream.
///
/// ```
/// use proxyproto_codec::FirstBytes;
///
/// assert_eq!(FirstBytes::of(b"\x10\x1e\0\x04MQTT").to_string(), "an MQTT CONNECT");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FirstBytes {
    /// No byte at all.
    Nothing,
    /// A CONNECT packet of MQTT.
    MqttConnect,
    /// A `ClientHello` of TLS.
    TlsClientHello,
    /// An HTTP request, or the preface of HTTP/2.
    Http,
    /// A banner of SSH.
    Ssh,
    /// Other text in US-ASCII.
    Text,
    /// A PROXY header of version 1, perhaps a broken one.
    ProxyV1,
    /// A PROXY header of version 2, perhaps a broken one.
    ProxyV2,
    /// None of these.
    Unknown,
}

impl FirstBytes {
    /// What `data`, the first bytes of a stream, looks like. At most 16 bytes count.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        match data.get(..16).unwrap_or(data) {
            [] => Self::Nothing,
            data if data.starts_with(&v1::SIGNATURE) => Self::ProxyV1,
            // No other protocol starts with the signature up to its NUL.
            data if common_prefix(data, &v2::SIGNATURE) >= 5 => Self::ProxyV2,
            [0x10, ..] => Self::MqttConnect,
            [0x16, 0x03, ..] => Self::TlsClientHello,
            data if HTTP.iter().any(|method| data.starts_with(method)) => Self::Http,
            data if data.starts_with(b"SSH-") => Self::Ssh,
            data if data.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~')) => Self::Text,
            _ => Self::Unknown,
        }
    }
}

/// The text includes the article, for sentences such as `expected a PROXY header, got {}`.
impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing at all",
            Self::MqttConnect => "an MQTT CONNECT",
            Self::TlsClientHello => "a TLS ClientHello",
            Self::Http => "an HTTP request",
            Self::Ssh => "an SSH banner",
            Self::Text => "other text",
            Self::ProxyV1 => "a PROXY header of version 1",
            Self::ProxyV2 => "a PROXY header of version 2",
            Self::Unknown => "an unknown protocol",
        })
    }
}

/// How a request starts: a method of RFC 9110 or RFC 5789, or the preface of HTTP/2.
const HTTP: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/2",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_recognised() {
        let mut header = v2::SIGNATURE.to_vec();
        header.extend(b"\x20\0\0\0");
        let table: [(&[u8], FirstBytes); 22] = [
            (b"", FirstBytes::Nothing),
            (b"\x10\x1e\0\x04MQTT\x05", FirstBytes::MqttConnect),
            (b"\x10", FirstBytes::MqttConnect),
            (b"\x16\x03\x01\x02\0\x01", FirstBytes::TlsClientHello),
            (b"\x16", FirstBytes::Unknown),
            (b"GET / HTTP/1.1\r\n", FirstBytes::Http),
            (b"OPTIONS * HTTP/1.1", FirstBytes::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM", FirstBytes::Http),
            (b"POST", FirstBytes::Text),
            (b"GETAWAY", FirstBytes::Text),
            (b"SSH-2.0-OpenSSH_9.9", FirstBytes::Ssh),
            (b"EHLO example.org\r\n", FirstBytes::Text),
            (b"\r\n\r\n", FirstBytes::Text),
            (b"PROXY", FirstBytes::ProxyV1),
            (b"PROXY TCP4 1.2.3.4", FirstBytes::ProxyV1),
            (b"PROX", FirstBytes::Text),
            (b"\r\n\r\n\0", FirstBytes::ProxyV2),
            (&header, FirstBytes::ProxyV2),
            (b"\0\0\0\x2a\xffSMB", FirstBytes::Unknown),
            (b"caf\xc3\xa9", FirstBytes::Unknown),
            (b"sixteen letters.\xff", FirstBytes::Text),
            (b"\x7f", FirstBytes::Unknown),
        ];
        for (data, kind) in table {
            assert_eq!(FirstBytes::of(data), kind, "{}", data.escape_ascii());
        }
    }

    #[test]
    fn each_kind_has_its_words() {
        let words = [
            (FirstBytes::Nothing, "nothing at all"),
            (FirstBytes::MqttConnect, "an MQTT CONNECT"),
            (FirstBytes::TlsClientHello, "a TLS ClientHello"),
            (FirstBytes::Http, "an HTTP request"),
            (FirstBytes::Ssh, "an SSH banner"),
            (FirstBytes::Text, "other text"),
            (FirstBytes::ProxyV1, "a PROXY header of version 1"),
            (FirstBytes::ProxyV2, "a PROXY header of version 2"),
            (FirstBytes::Unknown, "an unknown protocol"),
        ];
        for (kind, text) in words {
            assert_eq!(kind.to_string(), text);
        }
    }
}
