//! A header that is built, or read and built anew, reads as what it was built from.
#![no_main]

use std::net::SocketAddr;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use proxyproto_codec::{
    Address, Command, Header, SslInfo, Status, Tlv, Transport, UnixAddress, Version, decode,
};
use proxyproto_fuzz::with_max;

fuzz_target!(|data: &[u8]| {
    rebuild(data);
    if let Ok(parts) = Parts::arbitrary(&mut Unstructured::new(data)) {
        build(&parts);
    }
});

/// What a caller may ask a builder for. The builders refuse much of it.
#[derive(Arbitrary, Debug)]
struct Parts<'a> {
    source: End<'a>,
    destination: End<'a>,
    dgram: bool,
    checksum: bool,
    ssl: Option<(u8, u32, Vec<(u8, &'a [u8])>)>,
    tlvs: Vec<(u8, &'a [u8])>,
}

#[derive(Arbitrary, Debug)]
enum End<'a> {
    Ip(SocketAddr),
    Path(&'a [u8]),
    Abstract(&'a [u8]),
}

impl<'a> From<&End<'a>> for Address<'a> {
    fn from(end: &End<'a>) -> Self {
        match *end {
            // A header cannot carry flow information or a scope.
            End::Ip(address) => SocketAddr::new(address.ip(), address.port()).into(),
            End::Path(path) => Self::Unix(UnixAddress::Path(path)),
            End::Abstract(name) => Self::Unix(UnixAddress::Abstract(name)),
        }
    }
}

fn build(parts: &Parts<'_>) {
    let (source, destination) = (Address::from(&parts.source), Address::from(&parts.destination));
    let transport = if parts.dgram { Transport::Dgram } else { Transport::Stream };
    let ssl = parts.ssl.as_ref().and_then(|(client, verify, tlvs)| {
        SslInfo::encode(*client, *verify, &to_tlvs(tlvs)).ok().filter(|value| value.len() <= 0xffff)
    });
    let mut tlvs = to_tlvs(&parts.tlvs);
    tlvs.extend(ssl.as_deref().map(|value| Tlv::new(Tlv::SSL, value)));

    if let Ok(header) = Header::v1(source, destination) {
        assert!(header.raw().len() <= 107); // R15
        let read = read_again(&header);
        assert_eq!((read.source(), read.destination()), (Some(source), Some(destination)));
    }
    if let Ok(header) = Header::v2(source, destination, transport, &tlvs, parts.checksum) {
        let read = read_again(&header);
        assert_eq!((read.source(), read.destination()), (Some(source), Some(destination)));
        assert_eq!((read.command(), read.transport()), (Command::Proxy, transport));
        assert_tlvs(&read, &tlvs, parts.checksum);
    }
    if let Ok(header) = Header::local(&tlvs, parts.checksum) {
        let read = read_again(&header);
        assert_eq!((read.command(), read.source(), read.destination()), (Command::Local, None, None));
        assert_tlvs(&read, &tlvs, parts.checksum);
    }
}

/// Reads `data`, builds a header that says the same as far as the sender's rules allow, and reads that.
fn rebuild(data: &[u8]) {
    let Ok(Status::Complete(header)) = decode(data, &with_max(65551)) else { return };
    let checksum = header.tlv(Tlv::CRC32C).is_some();
    let tlvs: Vec<Tlv<'_>> = header.tlvs().filter(|tlv| tlv.kind != Tlv::CRC32C).collect();
    let built = match (header.version(), header.source().zip(header.destination())) {
        (Version::V1, None) => Ok(Header::unknown()),
        (Version::V1, Some((source, destination))) => Header::v1(source, destination),
        (Version::V2, None) => Header::local(&tlvs, checksum),
        (Version::V2, Some((source, destination))) => {
            Header::v2(source, destination, header.transport(), &tlvs, checksum)
        }
    };
    let Ok(built) = built else {
        assert_eq!(header.version(), Version::V2, "a line that was read can be sent");
        return;
    };
    let read = read_again(&built);
    assert_eq!((read.source(), read.destination()), (header.source(), header.destination()));
    assert_tlvs(&read, &tlvs, checksum);
}

fn read_again(header: &Header) -> Header<&[u8]> {
    let Ok(Status::Complete(read)) = decode(header.raw(), &with_max(65551)) else {
        panic!("{header:?} is not read again: {:?}", header.raw());
    };
    assert_eq!(read, *header);
    assert_eq!((read.version(), read.command()), (header.version(), header.command()));
    assert_eq!((read.family(), read.transport()), (header.family(), header.transport()));
    assert_eq!((read.source(), read.destination()), (header.source(), header.destination()));
    assert!(read.tlvs().eq(header.tlvs()));
    read
}

fn assert_tlvs(read: &Header<&[u8]>, tlvs: &[Tlv<'_>], checksum: bool) {
    let mut found = read.tlvs();
    if checksum {
        assert_eq!(found.next().map(|tlv| (tlv.kind, tlv.value.len())), Some((Tlv::CRC32C, 4)));
    }
    assert!(found.eq(tlvs.iter().copied()));
}

fn to_tlvs<'a>(pairs: &[(u8, &'a [u8])]) -> Vec<Tlv<'a>> {
    pairs.iter().map(|(kind, value)| Tlv::new(*kind, value)).collect()
}
