//! The header that a proxy would send, of another client each time, and the request and reply behind it.

use std::net::Ipv4Addr;

/// What a client says.
pub(crate) const REQUEST: &[u8] = b"ping\r\n";

/// What a server answers before it closes.
pub(crate) const REPLY: &[u8] = b"pong\r\n";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    V1,
    V2,
}

impl Kind {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }
}

/// What the connection with this number opens with.
pub(crate) fn opening(kind: Kind, number: u32) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | number & 0xffff);
    let port = 1024 + u16::try_from(number % 60_000).unwrap_or_default();
    let mut bytes = match kind {
        Kind::None => Vec::new(),
        Kind::V1 => format!("PROXY TCP4 {client} 198.51.100.7 {port} 1883\r\n").into_bytes(),
        Kind::V2 => {
            let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            bytes.extend(client.octets());
            bytes.extend([198, 51, 100, 7]);
            bytes.extend(port.to_be_bytes());
            bytes.extend(1883_u16.to_be_bytes());
            bytes
        }
    };
    bytes.extend(REQUEST);
    bytes
}
