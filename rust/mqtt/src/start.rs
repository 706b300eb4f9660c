//! What a stranger's first bytes look like when they are no CONNECT.

use core::fmt;

/// The first bytes of something, at most 16 of them.
///
/// ```
/// use proxyproto_mqtt::Start;
///
/// assert_eq!(Start::of(b"SSH-2.0-x").to_string(), "SSH (53 53 48 2d 32 2e 30 2d)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Start {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Start {
    /// The start of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        let mut start = Self { bytes: [0; Self::MAX], len: 0 };
        for (place, byte) in start.bytes.iter_mut().zip(data) {
            *place = *byte;
            start.len += 1;
        }
        start
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether it is a PROXY header of either version. A second one behind the first is payload, and some
    /// load balancers let clients send one.
    #[must_use]
    pub fn is_proxy_header(&self) -> bool {
        [PROXY_V1, PROXY_V2].iter().any(|signature| self.as_bytes().starts_with(signature))
    }

    /// How many bytes are missing before it is clear which protocol this is; 0 if it is clear now.
    pub(crate) fn undecided(&self) -> usize {
        let known = KNOWN.iter().map(|(prefix, _)| prefix);
        let longer = known.filter(|prefix| prefix.starts_with(self.as_bytes()));
        longer.map(|prefix| prefix.len() - self.as_bytes().len()).min().unwrap_or(0)
    }

    const MAX: usize = 16;
}

/// The protocol, and at most 8 of the bytes in hex.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.as_bytes();
        let known = KNOWN.iter().find(|(prefix, _)| bytes.starts_with(prefix));
        match (known, bytes.first()) {
            (Some((_, name)), _) => f.write_str(name)?,
            // 0 and 15 are rather another protocol's, and so are letters.
            (None, Some(first @ 0x10..0xf0)) if !first.is_ascii_alphabetic() => {
                write!(f, "MQTT packet type {}", first >> 4)?;
            }
            _ => f.write_str("unknown bytes")?,
        }
        for (index, byte) in bytes.iter().take(8).enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { " (" } else { " " })?;
        }
        f.write_str(if bytes.is_empty() { "" } else { ")" })
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Start(b\"{}\")", self.as_bytes().escape_ascii())
    }
}

const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const KNOWN: [(&[u8], &str); 11] = [
    (PROXY_V1, "a second PROXY header"),
    (PROXY_V2, "a second PROXY header"),
    (b"\x16\x03", "a TLS ClientHello, and this port has no TLS"),
    (b"GET ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"CONNECT ", "HTTP"),
    (b"PRI * HTTP/2", "HTTP/2"),
    (b"SSH-", "SSH"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_named() {
        let table: [(&[u8], &str); 10] = [
            (b"PROXY TCP4 192.0.2.1", "a second PROXY header (50 52 4f 58 59 20 54 43)"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "a second PROXY header (0d 0a 0d 0a 00 0d 0a 51)"),
            (b"\x16\x03\x01\x02\0", "a TLS ClientHello, and this port has no TLS (16 03 01 02 00)"),
            (b"GET / HTTP/1.1\r\n", "HTTP (47 45 54 20 2f 20 48 54)"),
            (b"PRI * HTTP/2.0\r\n", "HTTP/2 (50 52 49 20 2a 20 48 54)"),
            (b"SSH-2", "SSH (53 53 48 2d 32)"),
            (b"\xc0\x00", "MQTT packet type 12 (c0 00)"),
            (b"\x11\x00", "MQTT packet type 1 (11 00)"),
            (b"EHLO example.org", "unknown bytes (45 48 4c 4f 20 65 78 61)"),
            (b"\xf0", "unknown bytes (f0)"),
        ];
        for (data, text) in table {
            assert_eq!(Start::of(data).to_string(), text);
            assert_eq!(Start::of(data).is_proxy_header(), text.contains("PROXY"));
            assert_eq!(Start::of(data).undecided(), 0, "{text}");
        }
    }

    #[test]
    fn it_is_waited_for_the_rest_of_a_known_start() {
        for (data, missing) in [
            (&b"P"[..], 3),
            (b"PR", 4),
            (b"PRI ", 8),
            (b"\r\n\r\n\0", 7),
            (b"\x16", 1),
            (b"PX", 0),
            (b"\x20", 0),
        ] {
            assert_eq!(Start::of(data).undecided(), missing, "{}", data.escape_ascii());
        }
    }
}
