//! The line of version 1, rule by rule.

#![expect(
    clippy::panic,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions"
)]

use proxyproto_codec::{Error, Family, Header, Options, Reason, Status, Transport, Versions, decode};

const TCP4: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
const TCP6: &str = "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n";

#[test]
fn each_flaw_is_refused_at_its_byte() {
    let table = [
        ("R9", "PROXY\r\n", Reason::NoSpaceAfterProxy, 5),
        ("R9", "PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n", Reason::NoSpaceAfterProxy, 5),
        ("R9", "PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n", Reason::NoSpaceAfterProxy, 5),
        ("R9", "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Reason::UnknownProtocol, 6),
        ("R9", "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", Reason::UnknownProtocol, 6),
        ("R9", "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Reason::UnknownProtocol, 7),
        ("R9", "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", Reason::UnknownProtocol, 9),
        ("R9", "PROXY TCP46 1.2.3.4 5.6.7.8 1 2\r\n", Reason::UnknownProtocol, 10),
        ("R9", "PROXY TCP4\r\n", Reason::UnknownProtocol, 10),
        ("R9", "PROXY UNKNOWNS\r\n", Reason::UnknownProtocol, 13),
        ("R18", "PROXY UNKNOWN\n", Reason::UnknownProtocol, 13),
        ("R18", "PROXY UNKNOWN\r\r\n", Reason::UnknownProtocol, 14),
        ("R9", "PROXY TCP4 \r\n", Reason::MissingField, 11),
        ("R9", "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", Reason::MissingField, 11),
        ("R9", "PROXY TCP4 1.2.3.4\r\n", Reason::MissingField, 18),
        ("R9", "PROXY TCP4 1.2.3.4 \r\n", Reason::MissingField, 19),
        ("R9", "PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n", Reason::MissingField, 27),
        ("R9", "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Reason::MissingField, 28),
        ("R9", "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", Reason::MissingField, 29),
        ("R9", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", Reason::ExtraField, 30),
        ("R9", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Reason::ExtraField, 30),
        ("R11", "PROXY TCP4 256.2.3.4 5.6.7.8 1 2\r\n", Reason::Ipv4OctetTooLarge, 11),
        ("R11", "PROXY TCP4 1.2.3.4 5.6.07.8 1 2\r\n", Reason::Ipv4LeadingZero, 23),
        ("R11", "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", Reason::Ipv4NotFourOctets, 16),
        ("R11", "PROXY TCP4 localhost 5.6.7.8 1 2\r\n", Reason::Ipv4BadCharacter, 11),
        ("R12", "PROXY TCP6 ::1 fe80::1%eth0 1 2\r\n", Reason::Ipv6BadCharacter, 22),
        ("R12", "PROXY TCP6 1::2::3 ::1 1 2\r\n", Reason::Ipv6SecondDoubleColon, 15),
        ("R12", "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", Reason::Ipv6NotEightGroups, 24),
        ("R12", "PROXY TCP6 12345:: ::1 1 2\r\n", Reason::Ipv6GroupTooLong, 11),
        ("R12", "PROXY TCP6 :1 ::1 1 2\r\n", Reason::Ipv6EmptyGroup, 11),
        ("R13", "PROXY TCP4 1.2.3.4 2603::1 1 2\r\n", Reason::FamilyMismatch, 19),
        ("R13", "PROXY TCP6 1.2.3.4 2603::1 1 2\r\n", Reason::FamilyMismatch, 11),
        ("R14", "PROXY TCP4 1.2.3.4 5.6.7.8 080 1\r\n", Reason::PortLeadingZero, 27),
        ("R14", "PROXY TCP4 1.2.3.4 5.6.7.8 +80 1\r\n", Reason::PortNotDecimal, 27),
        ("R14", "PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n", Reason::PortTooLarge, 27),
        ("R14", "PROXY TCP6 ::1 ::2 80 8O\r\n", Reason::PortNotDecimal, 23),
    ];
    for (rule, line, reason, offset) in table {
        let error = Err(Error { reason, offset });
        assert_eq!(decode(line.as_bytes(), &Options::default()), error, "{rule} {line:?}");
    }
}

#[test]
fn r15_the_longest_of_each_protocol() {
    let group = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let lines = [
        (56, "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_owned()),
        (104, format!("PROXY TCP6 {group} {group} 65535 65535\r\n")),
        (15, "PROXY UNKNOWN\r\n".to_owned()),
        (107, format!("PROXY UNKNOWN {group} {group} 65535 65535\r\n")),
    ];
    for (len, line) in lines {
        assert_eq!((line.len(), whole(&line).raw().len()), (len, len));
    }
}

#[test]
fn r17_without_crlf_in_107_bytes() {
    let error = Err(Error { reason: Reason::LineTooLong, offset: 107 });
    for start in ["PROXY UNKNOWN ", "PROXY TCP4 ", "PROXY TCP6 "] {
        let filled = |len: usize| format!("{start}{}", "1".repeat(len - start.len()));
        let partial = |have| decode(filled(have).as_bytes(), &Options::default()).map(needed);
        assert_eq!(partial(105), Ok(2), "{start}");
        assert_eq!(partial(106), Ok(1), "{start}");
        assert_eq!(decode(filled(107).as_bytes(), &Options::default()), error, "{start}");
        // C15: the CRLF comes one byte too late.
        assert_eq!(decode((filled(106) + "\r\n").as_bytes(), &Options::default()), error, "{start}");
    }
}

#[test]
fn a_smaller_max_header_size_limits_the_line_too() {
    let options = |size| Options::new(Versions::Both, size).unwrap();
    assert!(matches!(decode(TCP4.as_bytes(), &options(TCP4.len())), Ok(Status::Complete(_))));
    let limit = TCP4.len() - 1;
    let error = Err(Error { reason: Reason::Oversized, offset: limit });
    assert_eq!(decode(TCP4.as_bytes(), &options(limit)), error);
    assert_eq!(decode(&TCP4.as_bytes()[..limit - 1], &options(limit)).map(needed), Ok(1));
    // Where no TCP6 line fits the limit, the decoder waits for no more than the limit allows.
    assert_eq!(decode(b"PROXY T", &options(16)).map(needed), Ok(9));
}

#[test]
fn r18_a_lone_cr_or_lf_is_refused_wherever_it_stands_and_whatever_follows() {
    for line in [TCP4, TCP6] {
        for at in 11..line.len() - 2 {
            for stray in ["\n", "\rx", "\r\r\n"] {
                let error = Err(Error { reason: Reason::StrayLineBreak, offset: at });
                let broken = format!("{}{stray}", &line[..at]);
                assert_eq!(decode(broken.as_bytes(), &Options::default()), error, "{broken:?}");
                let ended = broken + &line[at..];
                assert_eq!(decode(ended.as_bytes(), &Options::default()), error, "{ended:?}");
            }
        }
    }
}

#[test]
fn r16_addresses_are_judged_when_the_crlf_is_there() {
    let line = b"PROXY TCP4 999.1 x 99999\r\n";
    for have in 11..line.len() {
        assert!(matches!(decode(&line[..have], &Options::default()), Ok(Status::Partial { .. })), "{have}");
    }
    let error = Error { reason: Reason::Ipv4OctetTooLarge, offset: 11 };
    assert_eq!(decode(line, &Options::default()), Err(error));
}

#[test]
fn c13_every_wrong_byte_in_the_fixed_words_is_refused_at_once() {
    let words = ["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN ", "PROXY UNKNOWN\r\n"];
    for word in words {
        for at in 1..word.len() {
            for byte in 0..=u8::MAX {
                let start = [&word.as_bytes()[..at], &[byte]].concat();
                if words.iter().any(|word| word.as_bytes().starts_with(&start)) {
                    continue;
                }
                let reason = match at {
                    ..5 => Reason::BadSignature,
                    5 => Reason::NoSpaceAfterProxy,
                    _ => Reason::UnknownProtocol,
                };
                let error = Err(Error { reason, offset: at });
                assert_eq!(decode(&start, &Options::default()), error, "{}", start.escape_ascii());
            }
        }
    }
}

#[test]
fn r10_c7_whatever_stands_behind_unknown_is_ignored() {
    for tail in ["", " ", " x", "  ", " \n", " \r", " \r\r", " a\nb\rc", " \0\u{ff}", " TCP4 1.2.3.4"] {
        let line = format!("PROXY UNKNOWN{tail}\r\n");
        let header = whole(&line);
        assert_eq!((header.family(), header.transport()), (Family::Unspec, Transport::Unspec));
        assert_eq!((header.source(), header.destination()), (None, None));
        assert_eq!(header.raw(), line.as_bytes());
    }
}

#[test]
fn nginx_may_mix_families_where_it_is_allowed() {
    let options = Options::default().allow_mixed_families(true);
    let table = [
        ("PROXY TCP4 192.0.2.4 2603::1 1 2\r\n", Family::Inet, "192.0.2.4:1", "[2603::1]:2"),
        ("PROXY TCP6 2603::1 192.0.2.4 1 2\r\n", Family::Inet6, "[2603::1]:1", "192.0.2.4:2"),
        ("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Family::Inet6, "1.2.3.4:1", "5.6.7.8:2"),
        ("PROXY TCP4 ::ffff:1.2.3.4 ::1 1 2\r\n", Family::Inet, "[::ffff:1.2.3.4]:1", "[::1]:2"),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Family::Inet, "1.2.3.4:1", "5.6.7.8:2"),
    ];
    for (line, family, source, destination) in table {
        let Ok(Status::Complete(header)) = decode(line.as_bytes(), &options) else { panic!("{line}") };
        let addresses = [header.source(), header.destination()].map(|end| end?.socket_addr());
        assert_eq!(header.family(), family);
        assert_eq!(addresses, [source, destination].map(|end| end.parse().ok()), "{line}");
    }
    let refused = [
        ("PROXY TCP4 localhost 2603::1 1 2\r\n", Reason::Ipv4BadCharacter, 11),
        ("PROXY TCP4 1.2.3 2603::1 1 2\r\n", Reason::Ipv4NotFourOctets, 16),
        ("PROXY TCP4 1.2.3.4 2603:::1 1 2\r\n", Reason::Ipv6EmptyGroup, 25),
        ("PROXY TCP4 1.2.3.4 2603::1 01 2\r\n", Reason::PortLeadingZero, 27),
    ];
    for (line, reason, offset) in refused {
        assert_eq!(decode(line.as_bytes(), &options), Err(Error { reason, offset }), "{line}");
    }
}

#[test]
fn unknown_is_refused_where_an_address_is_wanted() {
    let options = Options::default().reject_unspec(true);
    let error = Err(Error { reason: Reason::UnspecRejected, offset: 6 });
    assert_eq!(decode(b"PROXY UNKNOWN\r\n", &options), error);
    assert_eq!(decode(b"PROXY UNKNOWN ", &options), error);
    assert!(matches!(decode(TCP4.as_bytes(), &options), Ok(Status::Complete(_))));
}

#[test]
fn needed_is_the_shortest_completion() {
    let table = [
        ("", 15),
        ("P", 14),
        ("PROXY", 10),
        ("PROXY U", 8),
        ("PROXY UNKNOWN", 2),
        ("PROXY UNKNOWN\r", 1),
        ("PROXY UNKNOWN ", 2),
        ("PROXY UNKNOWN x\r", 1),
        ("PROXY UNKNOWN x\ry", 2),
        ("PROXY T", 15),
        ("PROXY TCP", 13),
        ("PROXY TCP6", 12),
        ("PROXY TCP6 ", 11),
        ("PROXY TCP4", 22),
        ("PROXY TCP4 ", 21),
        ("PROXY TCP4 1", 20),
        ("PROXY TCP4 1.", 19),
        ("PROXY TCP4 1.2.3.4", 14),
        ("PROXY TCP4 1.2.3.4 ", 13),
        ("PROXY TCP4 1.2.3.4 5.6.7.8", 6),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", 1),
    ];
    for (start, least) in table {
        assert_eq!(decode(start.as_bytes(), &Options::default()).map(needed), Ok(least), "{start:?}");
    }
}

/// Tries all short continuations: `needed` of them can complete the line, fewer cannot.
#[test]
fn no_fewer_than_needed_complete_a_line() {
    let sources =
        ["1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:", "1::", "1:", ":", "", "1::2", "1::2:"];
    let tcp6 = sources.map(|end| (format!("PROXY TCP6 ::1 {end}"), false));
    let tails = [" ", " 1", " 1 ", " 1 2", " 1 2\r"];
    let tcp4 = tails.map(|tail| (format!("PROXY TCP4 1.2.3.4 5.6.7.8{tail}"), false));
    let ports = tails.map(|tail| (format!("PROXY TCP6 ::1 1:2:3:4:5:6:1.2.3.4{tail}"), false));
    let mixed = ["1.2.3.4", "12", "", "1::", "::1.2.3"].map(|end| (format!("PROXY TCP4 ::1 {end}"), true));
    for (start, allow_mixed_families) in [&tcp6[..], &tcp4, &ports, &mixed].concat() {
        let options = Options::default().allow_mixed_families(allow_mixed_families);
        let least = decode(start.as_bytes(), &options).map(needed).unwrap();
        // Behind the addresses only the length varies, so ` 0 0\r\n` stands for continuations too long to
        // try.
        let fixed = [" 0 0\r\n", ""].into_iter().find(|fixed| fixed.len() < least).unwrap_or_default();
        let completed = |len: usize| {
            continuations(len).any(|continuation| {
                let line = [start.as_bytes(), &continuation, fixed.as_bytes()].concat();
                matches!(decode(&line, &options), Ok(Status::Complete(_)))
            })
        };
        assert!(completed(least - fixed.len()), "{start:?} with {least}");
        assert!(!(0..least - fixed.len()).any(completed), "{start:?} with less than {least}");
    }
}

fn continuations(len: usize) -> impl Iterator<Item = Vec<u8>> {
    let alphabet = b"0:. \r\n";
    let count = alphabet.len().pow(u32::try_from(len).unwrap_or(u32::MAX));
    (0..count).map(move |number| {
        let digit = |place| number / alphabet.len().pow(place) % alphabet.len();
        (0..).take(len).map(|place| alphabet.get(digit(place)).copied().unwrap_or_default()).collect()
    })
}

fn whole(line: &str) -> Header {
    match decode(line.as_bytes(), &Options::default()) {
        Ok(Status::Complete(header)) => header.to_owned(),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn needed<T: std::fmt::Debug>(status: Status<T>) -> usize {
    match status {
        Status::Partial { needed } => needed,
        Status::Complete(header) => panic!("complete: {header:?}"),
    }
}
