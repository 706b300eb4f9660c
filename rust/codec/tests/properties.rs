//! Properties of any input: no panic, the same result however it is cut into pieces, and built headers are
//! read again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

mod headers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use headers::{SIGNATURE, v2};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proxyproto_codec::{
    Address, Decoder, Error, FirstBytes, Header, Options, Reason, SslInfo, Status, Tlv, Transport,
    UnixAddress, Versions, decode, decode_datagram,
};

proptest! {
    // A failing case becomes a row of a table in the other tests, not a seed in a file.
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_pieces_are_as_good_as_the_whole(
        data in stream(),
        options in options(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(data.len());
        let mut decoder = Decoder::new(options);
        let mut start = 0;
        let mut last = decoder.feed(b"").map(|status| status_of(&decoder, status, 0));
        for end in cuts {
            let piece = &data[start..end];
            last = decoder.feed(piece).map(|status| status_of(&decoder, status, piece.len()));
            start = end;
            if !matches!(last, Ok(Status::Partial { .. })) {
                break;
            }
        }
        prop_assert_eq!(last, decode(&data[..start], &options).map(owned));
    }

    #[test]
    fn a_verdict_is_final(data in stream(), options in options(), payload in vec(any::<u8>(), 0..40)) {
        let whole = decode(&data, &options).map(owned);
        if !matches!(whole, Ok(Status::Partial { .. })) {
            prop_assert_eq!(decode(&[&data[..], &payload].concat(), &options).map(owned), whole);
        }
    }

    #[test]
    fn every_prefix_of_a_header_is_partial(data in stream(), options in options()) {
        if let Ok(Status::Complete(header)) = decode(&data, &options) {
            let len = header.raw().len();
            prop_assert!(len <= options.max_header_size.get());
            for have in 0..len {
                let Ok(Status::Partial { needed }) = decode(&data[..have], &options) else {
                    return Err(TestCaseError::fail(format!("not partial at {have}")));
                };
                prop_assert!(1 <= needed && needed <= len - have, "{needed} at {have} of {len}");
            }
        }
    }

    #[test]
    fn waiting_ends_within_the_limit(data in stream(), options in options()) {
        if let Ok(Status::Partial { needed }) = decode(&data, &options) {
            prop_assert!(needed >= 1 && data.len() + needed <= options.max_header_size.get());
        }
    }

    #[test]
    fn an_error_lies_within_what_was_seen(data in stream(), options in options()) {
        if let Err(Error { reason, offset }) = decode(&data, &options) {
            prop_assert!(offset <= data.len(), "{reason:?} at {offset} of {}", data.len());
        }
    }

    #[test]
    fn a_datagram_is_a_stream_that_has_ended(data in stream(), options in options()) {
        match (decode_datagram(&data, &options), decode(&data, &options)) {
            (Ok(datagram), Ok(Status::Complete(header))) => prop_assert_eq!(datagram, header),
            (Err(error), Err(same)) => prop_assert_eq!(error, same),
            (Err(Error { reason, offset }), Ok(Status::Partial { .. })) => {
                prop_assert_eq!((reason, offset), (Reason::Truncated, data.len()));
            }
            (datagram, stream) => prop_assert!(false, "{datagram:?} {stream:?}"),
        }
    }

    #[test]
    fn every_view_of_every_header_can_be_taken(data in stream(), options in options()) {
        let _ = FirstBytes::of(&data).to_string();
        if let Ok(Status::Complete(header)) = decode(&data, &options) {
            let ids = (
                header.aws_vpc_endpoint_id(),
                header.azure_private_endpoint_link_id(),
                header.gcp_psc_connection_id(),
            );
            let texts = (header.alpn(), header.authority(), header.unique_id(), header.netns());
            let ssl = header.ssl().map(|ssl| (ssl.cn(), ssl.cipher(), ssl.client_cert(), ssl.tlvs().count()));
            let ends = (header.source(), header.destination());
            let views = format!("{header:?} {ids:?} {texts:?} {ssl:?} {ends:?}");
            prop_assert!(!views.is_empty());
            let tlvs: usize = header.tlvs().map(|tlv| 3 + tlv.value.len()).sum();
            prop_assert!(tlvs <= header.raw().len());
        }
    }

    #[test]
    fn strict_headers_are_lenient_headers(data in stream()) {
        if let Ok(Status::Complete(header)) = decode(&data, &Options::default()) {
            let options = Options::default().allow_mixed_families(true).ignore_malformed_tlvs(true);
            let Ok(Status::Complete(lenient)) = decode(&data, &options) else {
                return Err(TestCaseError::fail("refused"));
            };
            prop_assert_eq!(format!("{lenient:?}"), format!("{header:?}"));
            prop_assert!(lenient.tlvs().eq(header.tlvs()));
        }
    }

    #[test]
    fn what_is_built_is_read_again(header in built()) {
        let Ok(Status::Complete(read)) = decode(header.raw(), &options_of(65551)) else {
            return Err(TestCaseError::fail(format!("{:?}", decode(header.raw(), &options_of(65551)))));
        };
        prop_assert_eq!(format!("{read:?}"), format!("{header:?}"));
        prop_assert!(read.tlvs().eq(header.tlvs()));
        prop_assert!(read == header);
    }

    #[test]
    fn r12_c6_what_the_standard_library_reads_as_ipv6_is_read(
        text in "[0-9a-fA-F:.]{0,24}|[0-9a-f:]{0,40}",
    ) {
        let expected = text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
        prop_assert_eq!(source_ip(&format!("PROXY TCP6 {text} ::1 1 2\r\n")), expected);
    }

    #[test]
    fn r11_what_the_standard_library_reads_as_ipv4_is_read(
        text in "[0-9.]{0,16}|([0-9]{1,3}[.]){3}[0-9]{1,3}",
    ) {
        let expected = text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        prop_assert_eq!(source_ip(&format!("PROXY TCP4 {text} 1.2.3.4 1 2\r\n")), expected);
    }
}

fn source_ip(line: &str) -> Option<IpAddr> {
    match decode(line.as_bytes(), &Options::default()) {
        Ok(Status::Complete(header)) => Some(header.source()?.socket_addr()?.ip()),
        _ => None,
    }
}

/// The status, with the header of a decoder that has just taken a piece of `piece` bytes.
fn status_of(decoder: &Decoder, status: Status<&[u8]>, piece: usize) -> Status<Header> {
    match status {
        Status::Complete(rest) => {
            assert!(rest.len() <= piece);
            Status::Complete(decoder.header().unwrap().to_owned())
        }
        Status::Partial { needed } => Status::Partial { needed },
    }
}

fn owned(status: Status<Header<&[u8]>>) -> Status<Header> {
    match status {
        Status::Complete(header) => Status::Complete(header.to_owned()),
        Status::Partial { needed } => Status::Partial { needed },
    }
}

fn options_of(max_header_size: usize) -> Options {
    Options::new(Versions::Both, max_header_size).unwrap()
}

fn options() -> impl Strategy<Value = Options> {
    let versions = select(vec![Versions::Both, Versions::Both, Versions::V1, Versions::V2]);
    let max_header_size = prop_oneof![Just(4096), Just(65551), 16..300_usize];
    (versions, max_header_size, any::<[bool; 3]>()).prop_map(
        |(versions, max_header_size, [mixed, unspec, tlvs])| {
            let options = Options::new(versions, max_header_size).unwrap();
            options.allow_mixed_families(mixed).reject_unspec(unspec).ignore_malformed_tlvs(tlvs)
        },
    )
}

/// The first bytes of a stream: anything, near misses of a header, and headers with a few bytes changed.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = "(PROXY )?(TCP4|TCP6|UNKNOWN)?( ?[0-9a-f.: ]{0,12}){0,8}(\r|\n|\r\n)?";
    let tcp4 = "PROXY TCP4 [0-9.]{7,9} [0-9.]{7,9} [0-9]{1,6} [0-9]{1,6}\r\n.{0,9}";
    let tcp6 = "PROXY TCP6 [0-9a:]{2,6} [0-9a:]{2,6} [0-9]{1,6} [0-9]{1,6}\r\n.{0,9}";
    let v2 = |(command, family, block): (u8, u8, Vec<u8>)| v2(command, family, &block);
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        3 => line.prop_map(String::into_bytes),
        1 => tcp4.prop_map(String::into_bytes),
        2 => tcp6.prop_map(String::into_bytes),
        2 => (any::<u8>(), any::<u8>(), block()).prop_map(v2),
        4 => (select(&[0x20, 0x21][..]), select(&[0x00, 0x01, 0x11, 0x12, 0x20, 0x21, 0x31][..]), block()).prop_map(v2),
        1 => vec(any::<u8>(), 0..30).prop_map(|rest| [&SIGNATURE[..], &rest].concat()),
        4 => (built(), changes(), vec(any::<u8>(), 0..20)).prop_map(|(header, changes, payload)| {
            let mut bytes = header.into_raw().into_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(payload);
            bytes
        }),
        2 => (select(vectors()), changes(), any::<Index>()).prop_map(|(mut bytes, changes, end)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(end.index(2 * bytes.len() + 1));
            bytes
        }),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec((any::<Index>(), any::<u8>()), 0..3)
}

/// The vectors that every implementation is tested against, without the few that are too long to be cut
/// often.
fn vectors() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let hex = vectors.iter().filter_map(|vector| vector["hex"].as_str());
    let bytes = hex.map(|hex| {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    });
    bytes.filter(|bytes: &Vec<u8>| (1..1000).contains(&bytes.len())).collect()
}

/// A block that may start with addresses and continues with mostly well-formed TLVs.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let addresses = prop_oneof![Just(0_usize), Just(12), Just(36), Just(216), 0..220_usize];
    let value = prop_oneof![vec(any::<u8>(), 0..10), vec(any::<u8>(), 120..135)];
    let tlv = (select(&[0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30, 0xe0, 0xea, 0xee][..]), value);
    (addresses, vec(tlv, 0..4), vec(any::<u8>(), 0..3)).prop_map(|(addresses, tlvs, rest)| {
        let mut block = vec![0xac; addresses];
        for (kind, value) in tlvs {
            block.push(kind);
            block.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            block.extend(value);
        }
        block.extend(rest);
        block
    })
}

/// Anything that the builders can make.
fn built() -> impl Strategy<Value = Header> {
    let v4 = any::<(Ipv4Addr, u16)>().prop_map(|(ip, port)| SocketAddr::V4(SocketAddrV4::new(ip, port)));
    let v6 =
        any::<(Ipv6Addr, u16)>().prop_map(|(ip, port)| SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)));
    let pair = prop_oneof![(v4.clone(), v4), (v6.clone(), v6)];
    let transport = || select(&[Transport::Stream, Transport::Dgram][..]);
    let path = || vec(1..=u8::MAX, 0..=108_usize);
    prop_oneof![
        Just(Header::unknown()),
        pair.clone().prop_map(|(from, to)| Header::v1(from.into(), to.into()).unwrap()),
        (pair, transport(), sent_tlvs(), any::<bool>()).prop_map(
            |((from, to), transport, tlvs, checksum)| {
                Header::v2(from.into(), to.into(), transport, &borrowed(&tlvs), checksum).unwrap()
            }
        ),
        (path(), path(), transport(), sent_tlvs(), any::<bool>()).prop_map(
            |(from, to, transport, tlvs, checksum)| {
                let (from, to) = (UnixAddress::Path(&from), UnixAddress::Path(&to));
                Header::v2(Address::Unix(from), Address::Unix(to), transport, &borrowed(&tlvs), checksum)
                    .unwrap()
            }
        ),
        (sent_tlvs(), any::<bool>())
            .prop_map(|(tlvs, checksum)| Header::local(&borrowed(&tlvs), checksum).unwrap()),
    ]
}

fn sent_tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let ssl = ("[ -~]{0,9}", any::<u8>(), any::<u32>()).prop_map(|(text, client, verify)| {
        let tlvs = [Tlv::new(Tlv::SSL_CIPHER, text.as_bytes()), Tlv::new(Tlv::SSL_VERSION, b"TLSv1.3")];
        (Tlv::SSL, SslInfo::encode(client, verify, &tlvs).unwrap())
    });
    let bytes = (select(&[0x01, 0x04, 0x05, 0xe0, 0xea, 0xef][..]), vec(any::<u8>(), 0..=128_usize));
    let text = "[^\\p{Cc}]{0,9}".prop_map(|text| (Tlv::AUTHORITY, text.into_bytes()));
    vec(prop_oneof![ssl, bytes, text], 0..4)
}

fn borrowed(tlvs: &[(u8, Vec<u8>)]) -> Vec<Tlv<'_>> {
    tlvs.iter().map(|(kind, value)| Tlv::new(*kind, value)).collect()
}
