//! What is measured: the headers of `benches/headers.txt`, and the readers, each of which finds the client's address.

use std::net::{IpAddr, SocketAddr};

/// A header to read.
pub struct Line {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Whether TLVs stand behind the addresses: we check them, the rivals skip them.
    pub has_tlvs: bool,
}

/// A crate that reads headers.
#[derive(Clone, Copy)]
pub struct Reader {
    pub name: &'static str,
    pub read: fn(&[u8]) -> Client,
}

/// The client's address, if the header has one.
pub type Client = Result<Option<SocketAddr>, Refused>;

/// The reader does not take this header.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

/// Ours first.
pub const READERS: [Reader; 5] = [
    Reader { name: "proxyproto-codec", read: ours },
    Reader { name: "ppp", read: ppp },
    Reader { name: "proxy-header", read: proxy_header },
    Reader { name: "haproxy-protocol", read: haproxy_protocol },
    Reader { name: "proxy-protocol", read: proxy_protocol },
];

/// # Panics
///
/// If `benches/headers.txt` is not what its first line says.
#[must_use]
pub fn lines() -> Vec<Line> {
    let text = include_str!("../../headers.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .map(|fields| match fields[..] {
            [name, hex, kind] => Line { name, bytes: unhex(hex), has_tlvs: kind == "tlvs" },
            _ => panic!("not a line of headers.txt: {fields:?}"),
        })
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn ours(data: &[u8]) -> Client {
    match proxyproto_codec::decode(data, &proxyproto_codec::Options::default()) {
        Ok(proxyproto_codec::Status::Complete(header)) => {
            Ok(header.source().and_then(|source| source.socket_addr()))
        }
        _ => Err(Refused),
    }
}

fn ppp(data: &[u8]) -> Client {
    use ppp::{HeaderResult, v1, v2};
    match HeaderResult::parse(data) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
            v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
            v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(Refused),
    }
}

fn proxy_header(data: &[u8]) -> Client {
    let (header, _) =
        proxy_header::ProxyHeader::parse(data, proxy_header::ParseConfig::default()).map_err(|_| Refused)?;
    Ok(header.proxied_address().map(|addresses| addresses.source))
}

fn haproxy_protocol(data: &[u8]) -> Client {
    use haproxy_protocol::{ProxyHdrV1, ProxyHdrV2, RemoteAddress};
    let remote = if data.starts_with(b"P") {
        ProxyHdrV1::parse(data).map_err(|_| Refused)?.1.to_remote_addr()
    } else {
        ProxyHdrV2::parse(data).map_err(|_| Refused)?.1.to_remote_addr()
    };
    Ok(match remote {
        RemoteAddress::TcpV4 { src, .. } | RemoteAddress::UdpV4 { src, .. } => Some(src.into()),
        RemoteAddress::TcpV6 { src, .. } | RemoteAddress::UdpV6 { src, .. } => Some(src.into()),
        RemoteAddress::Local | RemoteAddress::Invalid => None,
    })
}

fn proxy_protocol(mut data: &[u8]) -> Client {
    use proxy_protocol::{ProxyHeader, version1, version2};
    Ok(match proxy_protocol::parse(&mut data).map_err(|_| Refused)? {
        ProxyHeader::Version1 { addresses } => match addresses {
            version1::ProxyAddresses::Ipv4 { source, .. } => Some(source.into()),
            version1::ProxyAddresses::Ipv6 { source, .. } => Some(source.into()),
            version1::ProxyAddresses::Unknown => None,
        },
        ProxyHeader::Version2 { addresses, .. } => match addresses {
            version2::ProxyAddresses::Ipv4 { source, .. } => Some(source.into()),
            version2::ProxyAddresses::Ipv6 { source, .. } => Some(source.into()),
            version2::ProxyAddresses::Unix { .. } | version2::ProxyAddresses::Unspec => None,
        },
        _ => None,
    })
}

/// An address without flow and scope, which some readers set and some do not.
#[must_use]
pub fn ends(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}
