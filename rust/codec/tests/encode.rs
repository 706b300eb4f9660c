//! The sender's side: what is sent, that it is read again as it was meant, and what the builders refuse.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

use std::net::SocketAddr;

use proxyproto_codec::{
    Address, EncodeError, Header, Options, SslInfo, Status, Tlv, Transport, UnixAddress, decode,
};

fn inet(text: &str) -> Address<'static> {
    text.parse::<SocketAddr>().unwrap().into()
}

fn v4() -> (Address<'static>, Address<'static>) {
    (inet("192.0.2.1:56324"), inet("198.51.100.2:443"))
}

fn v6() -> (Address<'static>, Address<'static>) {
    (inet("[2001:db8::1]:0"), inet("[::ffff:1.2.3.4]:65535"))
}

fn path(path: &[u8]) -> Address<'_> {
    Address::Unix(UnixAddress::Path(path))
}

fn name(name: &[u8]) -> Address<'_> {
    Address::Unix(UnixAddress::Abstract(name))
}

/// Decoding the bytes of a built header finds the same header.
fn assert_read_again(header: &Header) {
    let Ok(Status::Complete(read)) = decode(header.raw(), &Options::default()) else { panic!("{header:?}") };
    assert_eq!(read, *header);
    assert_eq!(format!("{read:?}"), format!("{header:?}"));
    assert!(read.tlvs().eq(header.tlvs()));
}

#[test]
fn s2_version_1() {
    let (source, destination) = v4();
    let header = Header::v1(source, destination).unwrap();
    assert_eq!(header.raw(), b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_read_again(&header);

    let (source, destination) = v6();
    let header = Header::v1(source, destination).unwrap();
    assert_eq!(header.raw(), b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 0 65535\r\n");
    assert_read_again(&header);

    let header = Header::unknown();
    assert_eq!(header.raw(), b"PROXY UNKNOWN\r\n");
    assert_read_again(&header);
}

#[test]
fn s4_version_2() {
    let (source, destination) = v4();
    let header = Header::v2(source, destination, Transport::Stream, &[], false).unwrap();
    assert_eq!(
        header.raw(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb"
    );
    assert_read_again(&header);

    let (source, destination) = v6();
    let header = Header::v2(source, destination, Transport::Dgram, &[Tlv::new(4, b"")], true).unwrap();
    assert_eq!((&header.raw()[..16], header.raw().len()), (&b"\r\n\r\n\0\r\nQUIT\n\x21\x22\0\x2e"[..], 62));
    assert_read_again(&header);

    let header = Header::v2(path(b"/run/a"), name(b"\0b"), Transport::Stream, &[], false).unwrap();
    assert_eq!((&header.raw()[12..23], header.raw().len()), (&b"\x21\x31\0\xd8/run/a\0"[..], 232));
    assert_read_again(&header);
}

#[test]
fn s5_local() {
    let header = Header::local(&[], false).unwrap();
    assert_eq!(header.raw(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_read_again(&header);
    // The bytes that nginx sends, with their checksum.
    let header = Header::local(&[], true).unwrap();
    assert_eq!(header.raw(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07\x03\0\x04\xa9\xb8\x7e\x8f");
    assert_read_again(&header);
}

#[test]
fn s8_the_checksum_stands_first_and_covers_the_rest() {
    let tlvs = [Tlv::new(Tlv::AUTHORITY, b"example.com"), Tlv::new(0xe5, b"x"), Tlv::new(0xe5, b"y")];
    let (source, destination) = v4();
    let header = Header::v2(source, destination, Transport::Stream, &tlvs, true).unwrap();
    assert_read_again(&header);
    assert_eq!(header.tlvs().next().map(|tlv| tlv.kind), Some(Tlv::CRC32C));
    assert!(header.tlvs().skip(1).eq(tlvs));
}

#[test]
fn s11_ssl() {
    let tlvs = [Tlv::new(Tlv::SSL_VERSION, b"TLSv1.3"), Tlv::new(Tlv::SSL_CN, "Zoë".as_bytes())];
    let value = SslInfo::encode(SslInfo::CLIENT_SSL | SslInfo::CLIENT_CERT_CONN, 0, &tlvs).unwrap();
    assert_eq!(value, "\x03\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x04Zoë".as_bytes());
    let (source, destination) = v4();
    let ssl = [Tlv::new(Tlv::SSL, &value)];
    let header = Header::v2(source, destination, Transport::Stream, &ssl, false).unwrap();
    let info = header.ssl().unwrap();
    assert_eq!((info.verified(), info.version(), info.cn()), (true, Some("TLSv1.3"), Some("Zoë")));
    assert_read_again(&header);
}

#[test]
fn a_pair_that_cannot_be_sent() {
    let ((v4, _), (v6, _)) = (v4(), v6());
    let (long, nul) = ([b'x'; 109], b"/a\0b");
    let table = [
        (v4, v6, EncodeError::MixedFamilies, "source and destination are of different families"),
        (v4, path(b"/a"), EncodeError::MixedFamilies, "source and destination are of different families"),
        (
            path(&long),
            path(b"/a"),
            EncodeError::UnixTooLong { len: 109 },
            "a UNIX address of 109 bytes, where at most 108 fit",
        ),
        (path(b"/a"), path(nul), EncodeError::UnixNotAPath, "a UNIX path that holds a NUL"),
    ];
    for (source, destination, error, text) in table {
        assert_eq!(Header::v2(source, destination, Transport::Stream, &[], false), Err(error));
        assert_eq!(error.to_string(), text);
    }
    for not_abstract in [&b""[..], b"name", b"\0", b"\0name\0"] {
        let result = Header::v2(name(not_abstract), path(b"/a"), Transport::Stream, &[], false);
        assert_eq!(result, Err(EncodeError::UnixNotAbstract), "{}", not_abstract.escape_ascii());
    }
    assert_eq!(Header::v1(v4, v6), Err(EncodeError::MixedFamilies));
    assert_eq!(Header::v1(path(b"/a"), path(b"/b")), Err(EncodeError::UnixInV1));
    assert_eq!(Header::v2(v4, v4, Transport::Unspec, &[], false), Err(EncodeError::UnspecTransport));
}

#[test]
fn a_tlv_that_must_not_be_sent() {
    let long = vec![0; 65536];
    let kind = Tlv::SSL_CIPHER;
    let table: [(u8, &[u8], EncodeError); 14] = [
        (Tlv::CRC32C, b"abcd", EncodeError::ChecksumByHand),
        (Tlv::UNIQUE_ID, &[0; 129], EncodeError::UniqueIdTooLong { len: 129 }),
        (0xf0, b"", EncodeError::ReservedType { kind: 0xf0 }),
        (0xf7, b"", EncodeError::ReservedType { kind: 0xf7 }),
        (0xff, b"", EncodeError::ReservedType { kind: 0xff }),
        (0xe0, &long, EncodeError::TlvTooLong { kind: 0xe0, len: 65536 }),
        (0xe0, &long[..65533], EncodeError::TooLong { len: 65536 }),
        (Tlv::AUTHORITY, b"\xff", EncodeError::NotText { kind: Tlv::AUTHORITY }),
        (Tlv::NETNS, "ü".as_bytes(), EncodeError::NotText { kind: Tlv::NETNS }),
        (Tlv::SSL, b"", EncodeError::SslMalformed),
        (Tlv::SSL, b"\0\0\0\0\0\x21\0\x09x", EncodeError::SslMalformed),
        (Tlv::SSL, b"\x01\0\0\0\0", EncodeError::SslWithoutVersion),
        (Tlv::SSL, b"\x01\0\0\0\0\x22\0\x01x", EncodeError::SslWithoutVersion),
        (Tlv::SSL, b"\0\0\0\0\0\x23\0\x01\xff", EncodeError::NotText { kind }),
    ];
    for (kind, value, error) in table {
        assert_eq!(Header::local(&[Tlv::new(kind, value)], false), Err(error), "{kind:02x}");
    }
    let longest = Header::local(&[Tlv::new(0xe0, &long[..65532])], false).unwrap();
    assert_eq!(longest.raw().len(), 65551);
    let twice = [Tlv::new(0xe0, &long[..40_000]), Tlv::new(0xe1, &long[..40_000])];
    assert_eq!(Header::local(&twice, true), Err(EncodeError::TooLong { len: 80_013 }));
    assert_eq!(SslInfo::encode(0, 0, &[Tlv::new(kind, b"\r\n")]), Err(EncodeError::NotText { kind }));
}

#[test]
fn the_texts_name_the_numbers() {
    let table = [
        (EncodeError::UnixInV1, "version 1 cannot carry UNIX addresses"),
        (EncodeError::UnixNotAbstract, "an abstract UNIX name must start with a NUL and not end with one"),
        (EncodeError::UnspecTransport, "addresses need a transport: stream or datagram"),
        (EncodeError::TooLong { len: 65536 }, "65536 bytes of addresses and TLVs, where at most 65535 fit"),
        (
            EncodeError::TlvTooLong { kind: 1, len: 65536 },
            "a TLV of type 0x01 with 65536 bytes, where at most 65535 fit",
        ),
        (
            EncodeError::UniqueIdTooLong { len: 129 },
            "a UNIQUE_ID of 129 bytes, where at most 128 are allowed",
        ),
        (EncodeError::ChecksumByHand, "a CRC32C TLV is computed, not given: ask for the checksum"),
        (
            EncodeError::ReservedType { kind: 0xf0 },
            "TLV type 0xf0 must not be sent: F0 to F7 are for experiments, F8 to FF are reserved",
        ),
        (EncodeError::SslMalformed, "an SSL TLV without its five fixed bytes, or with broken sub-TLVs"),
        (EncodeError::SslWithoutVersion, "an SSL TLV that says TLS needs a VERSION sub-TLV"),
        (EncodeError::NotText { kind: 2 }, "a TLV of type 0x02 that is not printable text"),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
    }
}
