//! The fixed part and the addresses of version 2, rule by rule.

#![expect(
    clippy::panic,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions"
)]

mod headers;

use headers::{SIGNATURE, v2};
use proxyproto_codec::{
    Address, Command, Error, Family, Header, Options, Reason, Status, Transport, UnixAddress, Version,
    Versions, decode,
};

/// Long enough for the addresses of each family.
const BLOCK: [u8; 216] = [0; 216];

#[test]
fn each_of_the_65536_pairs_of_command_and_family() {
    for command in 0..=u8::MAX {
        for family in 0..=u8::MAX {
            let expected = expected(command, family);
            let bytes = v2(command, family, &BLOCK);
            let found = decode(&bytes, &Options::default()).map(|status| match status {
                Status::Complete(header) => (header.command(), header.family(), header.transport()),
                Status::Partial { needed } => panic!("{command:02x} {family:02x} needs {needed}"),
            });
            assert_eq!(found, expected, "{command:02x} {family:02x}");
            // C13: a wrong byte is refused when it arrives, and not before.
            for have in 12..16 {
                let early = decode(&bytes[..have], &Options::default());
                match expected {
                    Err(error) if error.offset < have => assert_eq!(early, Err(error)),
                    _ => assert_eq!(early, Ok(Status::Partial { needed: 16 - have })),
                }
            }
        }
    }
}

/// What R21 to R23, R25 and C1 say of bytes 12 and 13.
fn expected(command: u8, family: u8) -> Result<(Command, Family, Transport), Error> {
    let refused = |reason, offset| Err(Error { reason, offset });
    match command {
        0x20 => return Ok((Command::Local, Family::Unspec, Transport::Unspec)),
        0x21 => {}
        0x22..=0x2f => return refused(Reason::BadCommand, 12),
        _ => return refused(Reason::BadVersion, 12),
    }
    let transport = match family & 0x0f {
        0 => Transport::Unspec,
        1 => Transport::Stream,
        2 => Transport::Dgram,
        _ if family >= 0x40 => return refused(Reason::BadFamily, 13),
        _ => return refused(Reason::BadTransport, 13),
    };
    match family >> 4 {
        0 => Ok((Command::Proxy, Family::Unspec, transport)),
        1 => Ok((Command::Proxy, Family::Inet, transport)),
        2 => Ok((Command::Proxy, Family::Inet6, transport)),
        3 => Ok((Command::Proxy, Family::Unix, transport)),
        _ => refused(Reason::BadFamily, 13),
    }
}

#[test]
fn r20_each_byte_of_the_signature() {
    for at in 1..SIGNATURE.len() {
        let needed = 16 - at;
        assert_eq!(decode(&SIGNATURE[..at], &Options::default()), Ok(Status::Partial { needed }));
        let mut broken = v2(0x20, 0, b"");
        broken[at] ^= 0x20;
        let error = Err(Error { reason: Reason::BadSignature, offset: at });
        assert_eq!(decode(&broken, &Options::default()), error);
        assert_eq!(decode(&broken[..=at], &Options::default()), error);
    }
}

#[test]
fn r29_the_length_must_hold_the_addresses() {
    for (family, addresses) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for len in 0..=300 {
            let header = v2(0x21, family, &vec![0; len]);
            let found = decode(&header[..16], &Options::default());
            if len < addresses {
                let error = Err(Error { reason: Reason::LengthTooShort, offset: 14 });
                assert_eq!(found, error, "{family:02x} with {len}");
            } else {
                assert_eq!(found, Ok(Status::Partial { needed: len }), "{family:02x} with {len}");
            }
        }
    }
}

#[test]
fn r26_c5_without_family_or_transport_any_length_holds_no_addresses() {
    for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        for len in 0..=220 {
            let header = whole(&v2(0x21, family, &vec![0xc0; len]));
            assert_eq!((header.source(), header.destination()), (None, None), "{family:02x} with {len}");
            assert_eq!(header.raw().len(), 16 + len);
        }
    }
}

#[test]
fn r23_r28_local_skips_any_block() {
    for family in [0x00, 0x11, 0x21, 0x31, 0xff] {
        for len in [0, 1, 12, 36, 215, 216, 4080] {
            let header = whole(&v2(0x20, family, &vec![0xc0; len]));
            assert_eq!(header.raw().len(), 16 + len);
            assert_eq!((header.command(), header.family()), (Command::Local, Family::Unspec));
            assert_eq!((header.source(), header.tlvs().count()), (None, 0));
        }
    }
}

#[test]
fn r29_addresses_and_ports_in_network_order() {
    let header = whole(&v2(0x21, 0x11, b"\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb"));
    assert_eq!(header.version(), Version::V2);
    assert_eq!(socket_addrs(&header), ["192.0.2.1:56324".parse().ok(), "198.51.100.2:443".parse().ok()]);

    let block = *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\xdc\x04\x01\xbb";
    let header = whole(&v2(0x21, 0x22, &block));
    assert_eq!(header.transport(), Transport::Dgram);
    assert_eq!(
        socket_addrs(&header),
        ["[2001:db8::1]:56324".parse().ok(), "[::ffff:1.2.3.4]:443".parse().ok()]
    );
}

fn socket_addrs(header: &Header) -> [Option<std::net::SocketAddr>; 2] {
    [header.source(), header.destination()].map(|end| end?.socket_addr())
}

#[test]
fn c14_unix_paths_and_abstract_names() {
    let full = [b'x'; 108];
    let table: [(&[u8], UnixAddress<'_>); 9] = [
        (b"/run/a.sock", UnixAddress::Path(b"/run/a.sock")),
        (b"/a\0rest", UnixAddress::Path(b"/a")),
        (b"\xff\xfe", UnixAddress::Path(b"\xff\xfe")),
        (&full, UnixAddress::Path(&full)),
        (b"", UnixAddress::Path(b"")),
        (b"\0name", UnixAddress::Abstract(b"\0name")),
        (b"\0a\0b\0\0", UnixAddress::Abstract(b"\0a\0b")),
        (b"\0\0x", UnixAddress::Abstract(b"\0\0x")),
        (&[&[0], &full[1..]].concat(), UnixAddress::Abstract(&[&[0], &full[1..]].concat())),
    ];
    for (name, address) in table {
        let mut block = BLOCK;
        block[..name.len()].copy_from_slice(name);
        block[108..][..3].copy_from_slice(b"/to");
        let header = whole(&v2(0x21, 0x31, &block));
        assert_eq!(header.source(), Some(Address::Unix(address)), "{}", name.escape_ascii());
        assert_eq!(header.destination(), Some(Address::Unix(UnixAddress::Path(b"/to"))));
    }
}

#[test]
fn the_limit_is_the_length_of_the_whole_header() {
    for limit in [16, 17, 28, 536, 4096, 65551] {
        let options = Options::new(Versions::V2, limit).unwrap();
        let longest = v2(0x20, 0, &vec![0xc0; limit - 16]);
        assert!(matches!(decode(&longest, &options), Ok(Status::Complete(_))), "{limit}");
        if limit < 65551 {
            let longer = v2(0x20, 0, &vec![0xc0; limit - 15]);
            let error = Err(Error { reason: Reason::Oversized, offset: 14 });
            assert_eq!(decode(&longer[..16], &options), error, "{limit}");
        }
    }
}

#[test]
fn whoever_speaks_for_nobody_is_refused_where_an_address_is_wanted() {
    let options = Options::default().reject_unspec(true);
    for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        let error = Err(Error { reason: Reason::UnspecRejected, offset: 13 });
        assert_eq!(decode(&v2(0x21, family, &BLOCK)[..14], &options), error, "{family:02x}");
    }
    for (command, family) in [(0x20, 0x00), (0x20, 0x11), (0x21, 0x11), (0x21, 0x32)] {
        let header = v2(command, family, &BLOCK);
        assert!(matches!(decode(&header, &options), Ok(Status::Complete(_))), "{command:02x} {family:02x}");
    }
}

fn whole(bytes: &[u8]) -> Header {
    match decode(bytes, &Options::default()) {
        Ok(Status::Complete(header)) => header.to_owned(),
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}
