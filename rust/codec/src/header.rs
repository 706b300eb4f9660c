//! A header that was read or built: its bytes and what they say. This module holds data and parses nothing.

use alloc::boxed::Box;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::v2;

/// A PROXY header, on top of its own bytes.
///
/// `B` holds the bytes. [`decode`](crate::decode) borrows them; the builders and
/// [`to_owned`](Header::to_owned) box them. Two headers are equal when their bytes are.
#[derive(Clone, Copy)]
pub struct Header<B = Box<[u8]>> {
    pub(crate) raw: B,
    pub(crate) parsed: Parsed,
}

impl<B: AsRef<[u8]>> Header<B> {
    /// The version of the format.
    pub const fn version(&self) -> Version {
        self.parsed.version
    }

    /// The command. A version 1 line is always PROXY.
    pub const fn command(&self) -> Command {
        self.parsed.command
    }

    /// The announced family. It is UNSPEC for LOCAL, whatever the header's byte says (R23, C1), and for a
    /// version 1 `UNKNOWN` (R10).
    pub const fn family(&self) -> Family {
        self.parsed.family
    }

    /// The announced transport. It is UNSPEC for LOCAL and `UNKNOWN`, like [`family`](Self::family).
    pub const fn transport(&self) -> Transport {
        self.parsed.transport
    }

    /// The client's address, or `None` where the real endpoints of the connection apply (R10, R23, R26).
    pub fn source(&self) -> Option<Address<'_>> {
        match self.parsed.addresses {
            Addresses::None => None,
            Addresses::Text(source, _) => Some(source.into()),
            Addresses::Block => v2::address(self.raw(), self.parsed.family, 0),
        }
    }

    /// The address that the client connected to, or `None` where the real endpoints apply.
    pub fn destination(&self) -> Option<Address<'_>> {
        match self.parsed.addresses {
            Addresses::None => None,
            Addresses::Text(_, destination) => Some(destination.into()),
            Addresses::Block => v2::address(self.raw(), self.parsed.family, 1),
        }
    }

    /// The bytes of the header, exactly as received or as they are to be sent. A reader of the stream must
    /// skip this many bytes.
    pub fn raw(&self) -> &[u8] {
        self.raw.as_ref()
    }

    /// The same header with bytes of its own.
    #[must_use]
    pub fn to_owned(&self) -> Header {
        Header { raw: self.raw().into(), parsed: self.parsed }
    }

    /// The same header in other storage. The storage must hold the same bytes, because the header is not
    /// parsed again.
    #[must_use]
    pub fn map<C: AsRef<[u8]>>(self, storage: impl FnOnce(B) -> C) -> Header<C> {
        Header { raw: storage(self.raw), parsed: self.parsed }
    }

    /// The storage of the bytes.
    pub fn into_raw(self) -> B {
        self.raw
    }
}

impl<B: AsRef<[u8]>, C: AsRef<[u8]>> PartialEq<Header<C>> for Header<B> {
    fn eq(&self, other: &Header<C>) -> bool {
        self.raw() == other.raw()
    }
}

impl<B: AsRef<[u8]>> Eq for Header<B> {}

impl<B: AsRef<[u8]>> Hash for Header<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw().hash(state);
    }
}

impl<B: AsRef<[u8]>> fmt::Debug for Header<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("version", &self.version())
            .field("command", &self.command())
            .field("family", &self.family())
            .field("transport", &self.transport())
            .field("source", &self.source())
            .field("destination", &self.destination())
            .field("tlvs", &self.tlvs().count())
            .field("len", &self.raw().len())
            .finish()
    }
}

/// What the decoder found, so that the accessors need not parse again.
///
/// It is kept small: filling it takes most of the time of decoding version 2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    pub(crate) version: Version,
    pub(crate) command: Command,
    pub(crate) family: Family,
    pub(crate) transport: Transport,
    /// Where the readable TLVs end. They start behind the addresses. It is 0 for version 1, which has none.
    pub(crate) tlvs_end: usize,
    pub(crate) addresses: Addresses,
}

/// Where the addresses are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Addresses {
    /// The header has none.
    None,
    /// In the block of version 2, at the places that belong to the family (R29).
    Block,
    /// Here: source and destination. This saves parsing the text of version 1 twice.
    Text((IpAddr, u16), (IpAddr, u16)),
}

/// The version of the format. The protocol has these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The text format.
    V1,
    /// The binary format.
    V2,
}

/// What the proxy does with the connection. No other command is valid (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// The proxy speaks for itself, as in a health check (R23).
    Local,
    /// The proxy speaks for a client (R24).
    Proxy,
}

/// The address family. No other is valid (R25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Unspecified: no addresses.
    Unspec = 0,
    /// IPv4.
    Inet = 1,
    /// IPv6.
    Inet6 = 2,
    /// UNIX sockets.
    Unix = 3,
}

/// The transport. No other is valid (R25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Unspecified.
    Unspec = 0,
    /// A stream: TCP, or a UNIX stream socket.
    Stream = 1,
    /// Datagrams: UDP, or a UNIX datagram socket.
    Dgram = 2,
}

/// The address of one end, as the header gives it. The decoder does not check whether a client can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// An IPv4 address and a port.
    Inet(SocketAddrV4),
    /// An IPv6 address and a port. Flow information and scope are 0, because a header cannot carry them.
    Inet6(SocketAddrV6),
    /// The address of a UNIX socket.
    Unix(UnixAddress<'a>),
}

impl Address<'_> {
    /// The address and port of an IP address, `None` for a UNIX address.
    #[must_use]
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match *self {
            Self::Inet(address) => Some(SocketAddr::V4(address)),
            Self::Inet6(address) => Some(SocketAddr::V6(address)),
            Self::Unix(_) => None,
        }
    }

    /// The family of this address.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Inet(_) => Family::Inet,
            Self::Inet6(_) => Family::Inet6,
            Self::Unix(_) => Family::Unix,
        }
    }
}

impl From<(IpAddr, u16)> for Address<'_> {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        SocketAddr::new(ip, port).into()
    }
}

impl From<SocketAddr> for Address<'_> {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::Inet(address),
            SocketAddr::V6(address) => Self::Inet6(address),
        }
    }
}

/// The address of a UNIX socket, read from its field of 108 bytes (R29, C14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnixAddress<'a> {
    /// A path: the field up to its first NUL, or the whole field. It may hold any bytes, not only UTF-8. It
    /// is empty for an unnamed socket.
    Path(&'a [u8]),
    /// A name in Linux' abstract namespace, with its leading NUL and without trailing ones.
    Abstract(&'a [u8]),
}

impl<'a> UnixAddress<'a> {
    /// The length of the field on the wire, in bytes.
    pub const WIRE_LEN: usize = 108;

    /// The bytes as in a socket address: the path, or the abstract name with its leading NUL.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        match *self {
            Self::Path(bytes) | Self::Abstract(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Options, Status, decode};

    fn read(data: &[u8]) -> Header<&[u8]> {
        match decode(data, &Options::default()) {
            Ok(Status::Complete(header)) => header,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn headers_are_equal_when_their_bytes_are_whatever_holds_them() {
        let short = read(b"PROXY UNKNOWN\r\nand payload");
        let long = read(b"PROXY UNKNOWN \r\n");
        assert_eq!(short, short.to_owned());
        assert_eq!(short.map(<[u8]>::to_vec), Header::unknown());
        assert_ne!(short, long);
        let set = HashSet::from([short.to_owned(), long.to_owned(), Header::unknown()]);
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn a_header_says_the_same_in_other_storage() {
        let header = read(b"PROXY TCP6 ::1 ::2 3 4\r\n");
        for other in [header.to_owned(), header.map(Box::from)] {
            assert_eq!(format!("{other:?}"), format!("{header:?}"));
            assert_eq!(other.into_raw()[..], *header.raw());
        }
    }

    #[test]
    fn a_map_to_other_bytes_is_a_wrong_header_but_no_panic() {
        let bytes = [&v2::SIGNATURE[..], b"\x21\x31\0\xdc", &[b'x'; 216], b"\x02\0\x01y"].concat();
        let header = read(&bytes);
        assert_eq!(header.authority(), Some("y"));
        for len in [0, 20, 130] {
            let other = header.map(|raw| raw.get(..len).unwrap_or_default());
            assert_eq!((other.source(), other.authority(), other.tlvs().count()), (None, None, 0), "{len}");
        }
    }

    #[test]
    fn an_address_has_a_family_and_a_socket_address_if_it_is_one_of_ip() {
        let (v4, v6) = ("1.2.3.4:5".parse().unwrap(), "[::ffff:1.2.3.4]:5".parse().unwrap());
        assert_eq!(Address::from(v4).socket_addr(), Some(v4));
        assert_eq!(Address::from(v6).socket_addr(), Some(v6));
        assert_eq!((Address::from(v4).family(), Address::from(v6).family()), (Family::Inet, Family::Inet6));
        let path = UnixAddress::Path(b"/run/a");
        assert_eq!((Address::Unix(path).socket_addr(), Address::Unix(path).family()), (None, Family::Unix));
        assert_eq!(
            (path.as_bytes(), UnixAddress::Abstract(b"\0a").as_bytes()),
            (&b"/run/a"[..], &b"\0a"[..])
        );
    }
}
