//! The TLVs: their structure, the checksum, and the views of their values.

#![expect(
    clippy::panic,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions"
)]

mod headers;

use headers::v2;
use proxyproto_codec::{Error, Header, Options, Reason, Status, Tlv, decode};

const ADDRESSES: &[u8] = b"\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";

/// Where the TLVs of a TCP4 header start.
const AT: usize = 28;

fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[ADDRESSES, tlvs].concat())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    [&[kind], &len.to_be_bytes()[..], value].concat()
}

/// A TCP4 header with these TLVs around a CRC32C, computed here in the simplest way (R34).
fn with_checksum(before: &[u8], behind: &[u8]) -> Vec<u8> {
    let header = |checksum: u32| tcp4(&[before, &tlv(Tlv::CRC32C, &checksum.to_be_bytes()), behind].concat());
    header(crc32c::crc32c(&header(0)))
}

fn read(bytes: &[u8], options: Options) -> Result<Header, Error> {
    match decode(bytes, &options)? {
        Status::Complete(header) => Ok(header.to_owned()),
        Status::Partial { needed } => panic!("needs {needed}"),
    }
}

fn lenient() -> Options {
    Options::default().ignore_malformed_tlvs(true)
}

#[test]
fn r33_c11_wire_order_with_duplicates_and_unknown_types() {
    let tlvs = [tlv(0xe5, b"a"), tlv(0x01, b"h2"), tlv(0x00, b""), tlv(0x01, b"http/1.1"), tlv(0xff, b"z")];
    let header = read(&tcp4(&tlvs.concat()), Options::default()).unwrap();
    let found: Vec<_> = header.tlvs().map(|tlv| (tlv.kind, tlv.value)).collect();
    let expected: [(u8, &[u8]); 5] = [(0xe5, b"a"), (1, b"h2"), (0, b""), (1, b"http/1.1"), (0xff, b"z")];
    assert_eq!(found, expected);
    assert_eq!(header.tlv(0x01), Some(&b"h2"[..]));
    assert_eq!(header.tlv(0x02), None);
}

#[test]
fn c8_c9_c10_a_broken_structure_is_refused_unless_it_may_be_ignored() {
    let authority = tlv(Tlv::AUTHORITY, b"example.com");
    let long_id = tlv(Tlv::UNIQUE_ID, &[b'x'; 129]);
    let ssl = |value: &[u8]| tlv(Tlv::SSL, value);
    let table = [
        ("C8", b"\0".to_vec(), Reason::TlvTruncated, 0, 0),
        ("C8", b"\0\0".to_vec(), Reason::TlvTruncated, 0, 0),
        ("C8", b"\0\0\x01".to_vec(), Reason::TlvOverrun, 0, 0),
        ("C8", b"\xe0\xff\xffab".to_vec(), Reason::TlvOverrun, 0, 0),
        ("C10", long_id, Reason::UniqueIdTooLong, 0, 1),
        ("C9", ssl(b""), Reason::SslTooShort, 3, 1),
        ("C9", ssl(b"\x01\0\0\0"), Reason::SslTooShort, 3, 1),
        ("C9", ssl(b"\x01\0\0\0\0\x21\0"), Reason::SslTlvTruncated, 8, 1),
        ("C9", ssl(b"\x01\0\0\0\0\x21\0\x01"), Reason::SslTlvOverrun, 8, 1),
        ("C9", ssl(b"\0\0\0\0\0\x21\0\x01x\x22\0\x02y"), Reason::SslTlvOverrun, 12, 1),
    ];
    for (rule, broken, reason, at, kept) in table {
        let header = tcp4(&[&authority[..], &broken].concat());
        let error = Error { reason, offset: AT + authority.len() + at };
        assert_eq!(read(&header, Options::default()), Err(error), "{rule} {reason}");

        let header = read(&header, lenient()).unwrap();
        assert_eq!(header.tlvs().count(), 1 + kept, "{rule} {reason}");
        assert_eq!(header.authority(), Some("example.com"));
        assert!(header.unique_id().is_none() && header.ssl().is_none(), "{rule} {reason}");
        assert_eq!(header.source().unwrap().socket_addr(), "192.0.2.1:56324".parse().ok());
    }
}

#[test]
fn r34_a_right_checksum_wherever_it_stands() {
    let (a, b) = (tlv(0x02, b"example.com"), tlv(0x04, &[7; 40]));
    for (before, behind) in
        [(&b""[..], &b""[..]), (b"", &a), (&a, b""), (&a, &b), (&b, &[&a[..], &b].concat())]
    {
        let header = read(&with_checksum(before, behind), Options::default()).unwrap();
        assert_eq!(header.tlv(Tlv::CRC32C).unwrap().len(), 4);
        assert!(read(&with_checksum(before, behind), lenient()).is_ok());
    }
}

#[test]
fn r34_one_wrong_bit_anywhere_behind_the_fixed_part() {
    let right = with_checksum(b"\xe5\0\x01a", b"\xe6\0\x01b");
    let values_and_addresses = (16..AT).chain([AT + 3, AT + 7, AT + 8, AT + 9, AT + 10, AT + 14]);
    for at in values_and_addresses {
        for bit in 0..8 {
            let mut wrong = right.clone();
            wrong[at] ^= 1 << bit;
            let error = Err(Error { reason: Reason::ChecksumMismatch, offset: AT + 7 });
            assert_eq!(read(&wrong, Options::default()), error, "bit {bit} of byte {at}");
            assert_eq!(read(&wrong, lenient()), error, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn r34_c12_a_checksum_that_is_none_stays_refused_when_the_rest_may_be_broken() {
    let once = with_checksum(b"", b"");
    let twice = [&once[AT..], &once[AT..]].concat();
    let table = [
        (tlv(Tlv::CRC32C, b"abc"), Reason::ChecksumLength, AT),
        (tlv(Tlv::CRC32C, b"abcde"), Reason::ChecksumLength, AT),
        (twice, Reason::ChecksumTwice, AT + 7),
    ];
    for (tlvs, reason, offset) in table {
        for options in [Options::default(), lenient()] {
            assert_eq!(read(&tcp4(&tlvs), options), Err(Error { reason, offset }));
        }
    }
    let torn = [&tlv(Tlv::CRC32C, b"abcd")[..], b"\0"].concat();
    let error = Error { reason: Reason::ChecksumMismatch, offset: AT + 3 };
    assert_eq!(read(&tcp4(&torn), lenient()), Err(error));
}

#[test]
fn c2_c3_a_block_to_be_ignored_has_tlvs_only_if_all_of_it_reads_as_such() {
    let unique = tlv(Tlv::UNIQUE_ID, b"id");
    let checksum = tlv(Tlv::CRC32C, b"abcd");
    let wrong = Err(Error { reason: Reason::ChecksumMismatch, offset: 19 });
    let table = [
        (unique.clone(), Ok(1)),
        ([&unique[..], &unique].concat(), Ok(2)),
        ([&unique[..], b"\0"].concat(), Ok(0)),
        ([ADDRESSES, &unique].concat(), Ok(0)),
        (tlv(Tlv::UNIQUE_ID, &[0; 129]), Ok(0)),
        (tlv(Tlv::SSL, b"\x01"), Ok(0)),
        (tlv(Tlv::CRC32C, b"abc"), Ok(0)),
        (checksum.clone(), wrong),
        ([&checksum[..], &checksum].concat(), Err(Error { reason: Reason::ChecksumTwice, offset: 23 })),
        ([&checksum[..], &checksum, b"\0"].concat(), Ok(0)),
        ([&checksum[..], b"\0"].concat(), Ok(0)),
    ];
    for (block, expected) in table {
        for (command, family) in [(0x20, 0x00), (0x20, 0x11), (0x20, 0xff), (0x21, 0x00), (0x21, 0x20)] {
            for options in [Options::default(), lenient()] {
                let found = read(&v2(command, family, &block), options).map(|header| header.tlvs().count());
                assert_eq!(found, expected, "{command:02x} {family:02x} {}", block.escape_ascii());
            }
        }
    }
}

#[test]
fn text_is_never_repaired() {
    let table: [(&[u8], Option<&str>, Option<&str>); 8] = [
        (b"example.com", Some("example.com"), Some("example.com")),
        (b"", Some(""), Some("")),
        ("bücher.example".as_bytes(), Some("bücher.example"), None),
        (b"a\xffb", None, None),
        (b"a\0", None, None),
        (b"a\r\nb", None, None),
        (b"a\x7f", None, None),
        ("a\u{85}".as_bytes(), None, None),
    ];
    for (value, utf8, ascii) in table {
        let tlvs = [tlv(Tlv::AUTHORITY, value), tlv(Tlv::NETNS, value)].concat();
        let header = read(&tcp4(&tlvs), Options::default()).unwrap();
        assert_eq!((header.authority(), header.netns()), (utf8, ascii), "{}", value.escape_ascii());
        assert_eq!(header.tlv(Tlv::AUTHORITY), Some(value));
    }
}

#[test]
fn r36_ids_and_alpn_are_bytes() {
    let id = [0xff; 128];
    let tlvs = [tlv(Tlv::UNIQUE_ID, &id), tlv(Tlv::ALPN, b"\xff\0")].concat();
    let header = read(&tcp4(&tlvs), Options::default()).unwrap();
    assert_eq!(header.unique_id(), Some(&id[..]));
    assert_eq!(header.alpn(), Some(&b"\xff\0"[..]));
}

#[test]
fn a_line_of_version_1_has_no_tlvs() {
    let header = read(b"PROXY UNKNOWN \x01\0\0\x02\0\0\r\n", Options::default()).unwrap();
    assert_eq!(header.tlvs().count(), 0);
    assert!(header.authority().is_none() && header.ssl().is_none());
}
