//! Tells the versions apart, says how many bytes are needed, and repeats its verdict in later calls.

use proxyproto_codec::{Decoder, Error, Options, Reason, Status, Versions, decode, decode_datagram};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";

fn options(versions: Versions) -> Options {
    Options::default().versions(versions)
}

#[test]
fn r32_nothing_yet_needs_the_shortest_header_that_is_allowed() {
    for (versions, needed) in [(Versions::Both, 15), (Versions::V1, 15), (Versions::V2, 16)] {
        assert_eq!(decode(b"", &options(versions)), Ok(Status::Partial { needed }));
        assert_eq!(Decoder::new(options(versions)).feed(b""), Ok(Status::Partial { needed }));
    }
}

#[test]
fn r32_p_and_cr_alone_stay_open() {
    assert_eq!(decode(b"P", &Options::default()), Ok(Status::Partial { needed: 14 }));
    assert_eq!(decode(b"\r", &Options::default()), Ok(Status::Partial { needed: 15 }));
}

#[test]
fn a_version_that_is_not_allowed_is_refused_when_its_signature_is_there() {
    for (versions, header, signature) in [(Versions::V2, V1, 5), (Versions::V1, V2, 12)] {
        let error = Err(Error { reason: Reason::VersionNotAllowed, offset: 0 });
        assert_eq!(decode(header, &options(versions)), error);
        assert_eq!(decode(&header[..signature], &options(versions)), error);
        for have in 1..signature {
            let needed = signature - have;
            assert_eq!(decode(&header[..have], &options(versions)), Ok(Status::Partial { needed }));
        }
    }
    let other = Err(Error { reason: Reason::BadSignature, offset: 1 });
    assert_eq!(decode(b"POST / HTTP/1.1\r\n", &options(Versions::V2)), other);
    assert_eq!(decode(b"\r\r", &options(Versions::V1)), other);
}

#[test]
fn r39_other_protocols_are_refused_at_the_first_byte_that_does_not_fit() {
    let table: [(&[u8], usize); 8] = [
        (b"GET / HTTP/1.1\r\n", 0),
        (b"PUT / HTTP/1.1\r\n", 1),
        (b"PROPFIND / HTTP/1.1\r\n", 3),
        (b"\x16\x03\x01\x02\0\x01", 0),
        (b"\x10\x1e\0\x04MQTT", 0),
        (b"EHLO example.org\r\n", 0),
        (b"\r\nHELO", 2),
        (b"\r\n\r\n\0\r\nQUIT\r\n", 11),
    ];
    for (data, offset) in table {
        let error = Err(Error { reason: Reason::BadSignature, offset });
        assert_eq!(decode(data, &Options::default()), error, "{}", data.escape_ascii());
        assert_eq!(decode(&data[..=offset], &Options::default()), error);
    }
}

#[test]
fn r6_a_datagram_that_ends_inside_its_header_is_an_error() {
    for header in [V1, V2] {
        let found = decode_datagram(&[header, b"payload"].concat(), &Options::default())
            .map(|header| header.to_owned());
        assert_eq!(found.unwrap().raw(), header);
        for have in 0..header.len() {
            let error = Error { reason: Reason::Truncated, offset: have };
            assert_eq!(decode_datagram(&header[..have], &Options::default()), Err(error));
        }
    }
}

#[test]
fn waiting_for_no_more_than_is_needed_never_takes_payload() {
    for header in [V1, V2, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x\ry\r\n"] {
        let stream = [header, b"PROXY and other payload"].concat();
        let mut decoder = Decoder::new(Options::default());
        let mut taken = 0;
        let mut needed = 0;
        let mut calls = 0;
        while taken < header.len() {
            calls += 1;
            match decoder.feed(&stream[taken..taken + needed]) {
                Ok(Status::Partial { needed: more }) => (taken, needed) = (taken + needed, more),
                complete => {
                    assert_eq!(complete, Ok(Status::Complete(&b""[..])));
                    taken += needed;
                }
            }
        }
        assert_eq!(decoder.into_header().unwrap().raw(), header);
        assert!(calls < 10, "{calls} calls for {}", header.escape_ascii());
    }
}

#[test]
fn a_decoder_keeps_what_it_has_said() {
    let mut decoder = Decoder::new(Options::default());
    assert!(decoder.header().is_none());
    assert_eq!(decoder.feed(&V2[..20]), Ok(Status::Partial { needed: 8 }));
    assert!(decoder.header().is_none());
    assert_eq!(decoder.feed(&[&V2[20..], b"one"].concat()), Ok(Status::Complete(&b"one"[..])));
    assert_eq!(decoder.feed(V1), Ok(Status::Complete(V1)));
    assert_eq!(decoder.header().unwrap().raw(), V2);
    assert_eq!(decoder.into_header().unwrap().raw(), V2);

    let mut decoder = Decoder::new(Options::default());
    assert_eq!(decoder.feed(&V2[..12]), Ok(Status::Partial { needed: 4 }));
    let error = Err(Error { reason: Reason::BadVersion, offset: 12 });
    assert_eq!(decoder.feed(b"\x11"), error);
    assert_eq!(decoder.feed(&V2[13..]), error);
    assert!(decoder.header().is_none());
    assert!(decoder.into_header().is_none());
}
