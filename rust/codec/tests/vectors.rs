//! Every vector of `tests/vectors`: whole, split, byte by byte, with payload behind it, each prefix, and as a
//! datagram.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

use std::fmt::Write;

use proxyproto_codec::{
    Address, Command, Decoder, Error, Family, Header, Options, Reason, Status, Transport, UnixAddress,
    Version, Versions, decode, decode_datagram,
};
use serde::Deserialize;

#[test]
fn whole() {
    for vector in vectors() {
        let bytes = vector.bytes();
        let status = decode(&bytes, &options());
        match (vector.expect, &status) {
            (Expect::Ok, Ok(Status::Complete(header))) => vector.check(header),
            (Expect::Error, Err(_)) => {}
            (Expect::Incomplete, Ok(Status::Partial { needed })) => assert!(*needed >= 1, "{}", vector.name),
            _ => panic!("{}: {status:?}", vector.name),
        }
    }
}

#[test]
fn the_reason_is_the_labelled_one() {
    for vector in vectors().iter().filter(|vector| vector.expect == Expect::Error) {
        let error = decode(&vector.bytes(), &options()).unwrap_err();
        let label = vector.reason.as_deref().unwrap();
        assert!(reasons(label).contains(&error.reason), "{}: {label} is {error}", vector.name);
    }
}

#[test]
fn split_at_every_point() {
    for vector in short_vectors() {
        let bytes = vector.bytes();
        let whole = decode(&bytes, &options()).map(summary);
        for split in 0..=bytes.len() {
            let (first, second) = bytes.split_at(split);
            assert_eq!(feed(&[first, second]), whole, "{} split at {split}", vector.name);
        }
    }
}

#[test]
fn byte_by_byte() {
    for vector in vectors() {
        let bytes = vector.bytes();
        let pieces: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(feed(&pieces), decode(&bytes, &options()).map(summary), "{}", vector.name);
    }
}

#[test]
fn bytes_behind_a_header_never_influence_it() {
    let header = decode(b"PROXY UNKNOWN\r\n", &options());
    assert!(matches!(header, Ok(Status::Complete(_))));
    for vector in vectors().iter().filter(|vector| vector.expect == Expect::Ok) {
        let mut bytes = vector.bytes();
        bytes.truncate(vector.consumed.unwrap());
        for payload in [&b"\r\n"[..], b"\0", b"PROXY TCP4 1.2.3.4 ", b"\x03\x00\x04abcd", &[0xff; 300]] {
            let followed = [&bytes, payload].concat();
            let Ok(Status::Complete(header)) = decode(&followed, &options()) else {
                panic!("{} followed by {payload:?}", vector.name);
            };
            vector.check(&header);
        }
    }
}

#[test]
fn every_prefix_of_a_header_is_partial_and_says_how_much_it_needs() {
    for vector in vectors().iter().filter(|vector| vector.expect == Expect::Ok) {
        let bytes = vector.bytes();
        let header = &bytes[..vector.consumed.unwrap()];
        // Three vectors have 64 KiB: the first and the last bytes of them are enough.
        let skipped = 300..header.len().saturating_sub(300);
        for have in (0..header.len()).filter(|have| !skipped.contains(have)) {
            let status = decode(&header[..have], &options());
            let Ok(Status::Partial { needed }) = status else {
                panic!("{} at {have}: {status:?}", vector.name)
            };
            let remaining = header.len() - have;
            match (vector.version, have) {
                (Some(2), 1..16) => assert_eq!(needed, 16 - have, "{} at {have}", vector.name),
                (Some(2), 16..) => assert_eq!(needed, remaining, "{} at {have}", vector.name),
                _ => assert!((1..=remaining).contains(&needed), "{} at {have}: {needed}", vector.name),
            }
        }
    }
}

#[test]
fn as_a_datagram() {
    for vector in vectors() {
        let bytes = vector.bytes();
        match (vector.expect, decode_datagram(&bytes, &options())) {
            (Expect::Ok, Ok(header)) => vector.check(&header),
            (Expect::Error, Err(error)) => assert_ne!(error.reason, Reason::Truncated, "{}", vector.name),
            (Expect::Incomplete, Err(error)) => {
                let truncated = Error { reason: Reason::Truncated, offset: bytes.len() };
                assert_eq!(error, truncated, "{}", vector.name);
            }
            (_, result) => panic!("{}: {result:?}", vector.name),
        }
    }
}

#[test]
fn by_default_4096_bytes_pass_and_4097_are_refused_at_their_length() {
    let header = |len: u16| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x20\x00".to_vec();
        header.extend(len.to_be_bytes());
        header.resize(16 + usize::from(len), 0);
        header
    };
    let largest = header(4096 - 16);
    assert!(
        matches!(decode(&largest, &Options::default()), Ok(Status::Complete(header)) if header.raw() == largest)
    );
    let error = Error { reason: Reason::Oversized, offset: 14 };
    assert_eq!(decode(&header(4097 - 16)[..16], &Options::default()), Err(error));
    let over: Vec<_> = vectors().into_iter().filter(|vector| vector.consumed > Some(4096)).collect();
    assert_eq!(over.len(), 4);
    for vector in over {
        assert_eq!(decode(&vector.bytes(), &Options::default()), Err(error), "{}", vector.name);
    }
}

/// One line of `vectors.json`; its README says what the labels mean.
#[derive(Deserialize)]
struct Vector {
    name: String,
    hex: String,
    expect: Expect,
    reason: Option<String>,
    version: Option<u8>,
    command: Option<String>,
    family: Option<String>,
    transport: Option<String>,
    src: Option<String>,
    dst: Option<String>,
    consumed: Option<usize>,
    tlvs: Vec<(u8, String)>,
}

#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Ok,
    Error,
    Incomplete,
}

fn vectors() -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.json");
    let vectors: Vec<Vector> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(vectors.len(), 480);
    vectors
}

/// The vectors short enough to try every split.
fn short_vectors() -> impl Iterator<Item = Vector> {
    vectors().into_iter().filter(|vector| vector.hex.len() < 2 * 5000)
}

fn options() -> Options {
    Options::new(Versions::Both, 65551).unwrap()
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        unhex(&self.hex)
    }

    fn check(&self, header: &Header<&[u8]>) {
        let tlvs = header.tlvs().map(|tlv| (tlv.kind, hex(tlv.value))).collect();
        let found = Vector {
            name: self.name.clone(),
            hex: self.hex.clone(),
            expect: Expect::Ok,
            reason: None,
            version: Some(match header.version() {
                Version::V1 => 1,
                Version::V2 => 2,
            }),
            command: Some(
                match header.command() {
                    Command::Local => "LOCAL",
                    Command::Proxy => "PROXY",
                }
                .into(),
            ),
            family: Some(
                match header.family() {
                    Family::Unspec => "UNSPEC",
                    Family::Inet => "INET",
                    Family::Inet6 => "INET6",
                    Family::Unix => "UNIX",
                }
                .into(),
            ),
            transport: Some(
                match header.transport() {
                    Transport::Unspec => "UNSPEC",
                    Transport::Stream => "STREAM",
                    Transport::Dgram => "DGRAM",
                }
                .into(),
            ),
            src: header.source().map(label),
            dst: header.destination().map(label),
            consumed: Some(header.raw().len()),
            tlvs,
        };
        assert_eq!(found.labels(), self.labels(), "{}", self.name);
        assert_eq!(header.raw(), &self.bytes()[..header.raw().len()], "{}", self.name);
        assert_eq!(header.to_owned(), *header, "{}", self.name);
    }

    #[expect(clippy::type_complexity, reason = "all labels at once, for one comparison")]
    fn labels(&self) -> (Option<u8>, [&Option<String>; 5], Option<usize>, &[(u8, String)]) {
        let texts = [&self.command, &self.family, &self.transport, &self.src, &self.dst];
        (self.version, texts, self.consumed, &self.tlvs)
    }
}

/// What a vector gives, however its bytes arrive.
type Summary = Result<Header, usize>;

fn summary(status: Status<Header<&[u8]>>) -> Summary {
    match status {
        Status::Complete(header) => Ok(header.to_owned()),
        Status::Partial { needed } => Err(needed),
    }
}

/// Feeds a decoder until it is done. It must lose no byte, and must repeat its verdict.
fn feed(pieces: &[&[u8]]) -> Result<Summary, Error> {
    let mut decoder = Decoder::new(options());
    let mut taken = 0;
    let mut last = decode(b"", &options()).map(summary)?;
    for piece in pieces {
        match decoder.feed(piece) {
            Ok(Status::Complete(rest)) => {
                let header = decoder.header().unwrap();
                taken += piece.len() - rest.len();
                assert_eq!(header.raw().len(), taken);
                assert_eq!(decoder.feed(b"later"), Ok(Status::Complete(&b"later"[..])));
                return Ok(Ok(decoder.into_header().unwrap()));
            }
            Ok(Status::Partial { needed }) => last = Err(needed),
            Err(error) => {
                assert_eq!(decoder.feed(b"later"), Err(error));
                assert!(decoder.header().is_none());
                return Err(error);
            }
        }
        taken += piece.len();
    }
    Ok(last)
}

fn label(address: Address<'_>) -> String {
    match address {
        Address::Inet(address) => address.to_string(),
        Address::Inet6(address) => address.to_string(),
        Address::Unix(UnixAddress::Path(path)) => {
            path.utf8_chunks().fold("unix:".into(), |mut label, chunk| {
                label.push_str(chunk.valid());
                chunk.invalid().iter().for_each(|byte| write!(label, "\\x{byte:02x}").unwrap());
                label
            })
        }
        Address::Unix(UnixAddress::Abstract(name)) => format!("unix-abstract:{}", hex(name)),
    }
}

/// The reasons that may stand for the label of an error.
fn reasons(label: &str) -> &'static [Reason] {
    match label {
        "no signature" => &[Reason::BadSignature],
        "no single space after PROXY" => &[Reason::NoSpaceAfterProxy],
        "protocol token" | "protocol token cannot match" => &[Reason::UnknownProtocol],
        "no CRLF in the first 107 bytes" => &[Reason::LineTooLong, Reason::UnknownProtocol],
        "bare CR or LF" => &[Reason::StrayLineBreak],
        // The label judges the whole line; we read it from left to right.
        "token count" => &[
            Reason::MissingField,
            Reason::ExtraField,
            Reason::UnknownProtocol,
            Reason::StrayLineBreak,
            Reason::Ipv4BadCharacter,
        ],
        "v1 IPv4 characters" => &[Reason::Ipv4BadCharacter, Reason::FamilyMismatch],
        "v1 IPv4 needs 4 numbers" => &[Reason::Ipv4NotFourOctets],
        "v1 IPv4 number" => &[Reason::Ipv4OctetTooLarge, Reason::Ipv4LeadingZero, Reason::Ipv4NotFourOctets],
        "v1 IPv4 text in TCP6" => &[Reason::FamilyMismatch],
        "v1 IPv6 characters" => &[Reason::Ipv6BadCharacter],
        "v1 IPv6 group" => &[Reason::Ipv6GroupTooLong, Reason::Ipv6EmptyGroup],
        "v1 IPv6 double colon twice" => &[Reason::Ipv6SecondDoubleColon],
        "v1 IPv6 needs 8 groups" | "v1 IPv6 too many groups with ::" => &[Reason::Ipv6NotEightGroups],
        "v1 port" => {
            &[Reason::PortNotDecimal, Reason::PortLeadingZero, Reason::PortTooLarge, Reason::StrayLineBreak]
        }
        "version nibble" => &[Reason::BadVersion],
        "command nibble" => &[Reason::BadCommand],
        "family or transport nibble" => &[Reason::BadFamily, Reason::BadTransport],
        "length shorter than the address block" => &[Reason::LengthTooShort],
        "TLV header truncated" => &[Reason::TlvTruncated],
        "TLV value past the end" => &[Reason::TlvOverrun],
        "CRC32C TLV length is not 4" => &[Reason::ChecksumLength],
        "CRC32C mismatch" => &[Reason::ChecksumMismatch, Reason::ChecksumTwice],
        "UNIQUE_ID longer than 128" => &[Reason::UniqueIdTooLong],
        "SSL TLV shorter than 5" => &[Reason::SslTooShort],
        "SSL sub-TLV: TLV value past the end" => &[Reason::SslTlvOverrun],
        _ => &[],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect()
}
