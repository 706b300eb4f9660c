//! The scan of a stream gives the same over every split as over the whole.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proxyproto_mqtt::{Fault, FixedHeader, Framing, Limits, PacketType, Sender, Version};

#[test]
fn every_split_gives_what_the_whole_gives() {
    for stream in &streams() {
        for limits in all_limits() {
            let whole = scanned(limits, &[stream]);
            let bytes: Vec<_> = stream.chunks(1).collect();
            assert_eq!(scanned(limits, &bytes), whole, "{stream:02x?}");
            for second in 0..=stream.len() {
                // In three pieces, or in two where that would be too many.
                let all = if stream.len() < 60 { 0 } else { second };
                for first in all..=second {
                    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                    assert_eq!(scanned(limits, &pieces), whole, "{stream:02x?} at {first} and {second}");
                }
            }
        }
    }
}

#[test]
fn a_whole_stream_is_read_as_a_simple_reader_reads_it() {
    for stream in streams() {
        let mut rest = &stream[..];
        let mut expected = Vec::new();
        while let [first, after @ ..] = rest {
            let digits = after.iter().take_while(|digit| **digit & 0x80 != 0).count() + 1;
            let remaining =
                after[..digits].iter().rev().fold(0, |sum, digit| sum << 7 | usize::from(digit & 0x7f));
            rest = &after[digits + remaining..];
            expected.push((PacketType::of(*first).unwrap(), first & 0x0f, 1 + digits + remaining));
        }
        let scanned = scanned(limits(Sender::Client, Version::Mqtt5), &[&stream]);
        assert_eq!(scanned.ended, expected);
        assert_eq!((scanned.boundary, scanned.fault), (stream.len(), None));
    }
}

#[test]
fn inside_a_packet_it_says_how_much_is_missing() {
    let stream = publish(300);
    let mut framing = Framing::new(limits(Sender::Client, Version::Mqtt311));
    for (at, byte) in stream.iter().enumerate() {
        let needed = match at {
            0 => 0,
            1 | 2 => 1,
            _ => u32::try_from(stream.len() - at).unwrap(),
        };
        assert_eq!((framing.needed(), framing.at_boundary()), (needed, at == 0));
        let begun = framing.begun().map(|header| (header.packet_type(), header.size() as usize));
        assert_eq!(begun, (at > 2).then_some((PacketType::Publish, stream.len())));
        framing
            .scan(&[*byte], |header| assert_eq!((at, header.remaining()), (stream.len() - 1, 300)))
            .unwrap();
    }
    assert!(framing.at_boundary());
}

#[test]
fn a_stream_can_be_cut_between_two_packets() {
    let stream = [publish(300), publish(2)].concat();
    let mut framing = Framing::new(limits(Sender::Server, Version::Mqtt5));
    framing.scan(&stream[..1], |_| {}).unwrap();
    let mut at = 1;
    while !framing.at_boundary() {
        let next = at + framing.needed() as usize;
        framing.scan(&stream[at..next], |_| {}).unwrap();
        at = next;
    }
    assert_eq!(at, publish(300).len());
}

#[test]
fn a_fault_stays() {
    let mut framing = Framing::new(limits(Sender::Client, Version::Mqtt311));
    let fault = framing.scan(b"\xc0\x00\x90", |_| {}).unwrap_err();
    assert_eq!((framing.boundary(), framing.needed(), framing.at_boundary()), (2, 0, false));
    assert_eq!(framing.scan(b"\xc0\x00", |_| panic!("nothing ends behind a fault")), Err(fault));
    assert_eq!(framing.boundary(), 0);
}

#[test]
fn the_largest_packet_is_counted_to_its_end() {
    let mut framing = Framing::new(limits(Sender::Client, Version::Mqtt5));
    let piece = vec![0; 1 << 20];
    framing.scan(b"\x30\xff\xff\xff\x7f", |_| {}).unwrap();
    for _ in 0..255 {
        framing.scan(&piece, |_| panic!("it has one byte less than 256 MiB")).unwrap();
    }
    assert_eq!(framing.needed(), (1 << 20) - 1);
    let mut ended = 0;
    framing.scan(&piece[1..], |header| ended = header.size()).unwrap();
    assert_eq!((ended, framing.at_boundary()), (268_435_460, true));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces(
        stream in vec(prop_oneof![any::<u8>(), 0u8..4], 0..200),
        sizes in vec(0usize..9, 1..40),
    ) {
        for limits in all_limits() {
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for size in sizes.iter().cycle().take(stream.len() * sizes.len()) {
                let (piece, next) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = next;
            }
            pieces.push(rest);
            prop_assert_eq!(scanned(limits, &pieces), scanned(limits, &[&stream]));
        }
    }
}

/// What a scan has found.
#[derive(Debug, PartialEq)]
struct Scanned {
    ended: Vec<(PacketType, u8, usize)>,
    /// Where the last packet ends, in the whole stream.
    boundary: usize,
    begun: Option<FixedHeader>,
    needed: u32,
    fault: Option<Fault>,
}

fn scanned(limits: Limits, pieces: &[&[u8]]) -> Scanned {
    let mut framing = Framing::new(limits);
    let mut ended = Vec::new();
    let (mut before, mut boundary, mut fault) = (0, 0, None);
    for piece in pieces {
        let scan = framing.scan(piece, |header| {
            ended.push((header.packet_type(), header.flags(), header.size() as usize));
        });
        if framing.boundary() > 0 {
            boundary = before + framing.boundary();
        }
        before += piece.len();
        fault = fault.or(scan.err());
        assert_eq!(scan.err(), fault);
    }
    assert_eq!(ended.iter().map(|packet| packet.2).sum::<usize>(), boundary);
    Scanned { ended, boundary, begun: framing.begun(), needed: framing.needed(), fault }
}

/// Streams of a client of MQTT 5.
fn streams() -> Vec<Vec<u8>> {
    vec![
        b"\xc0\x00\xc0\x00\xe0\x00".to_vec(),
        [publish(0), publish(1), publish(127), publish(128)].concat(),
        [b"\x82\x05\x00\x01\x00\x00\x00".to_vec(), b"\x40\x02\x00\x01\x62\x02\x00\x02".to_vec()].concat(),
    ]
}

/// A PUBLISH of a client, with `remaining` bytes that look like fixed headers.
fn publish(remaining: usize) -> Vec<u8> {
    let mut packet = vec![0x3b];
    let mut length = remaining;
    while length >= 0x80 {
        packet.push(u8::try_from(length & 0x7f | 0x80).unwrap());
        length >>= 7;
    }
    packet.push(u8::try_from(length).unwrap());
    packet.extend(std::iter::repeat_n(b"\xc0\x00\xff", remaining).flatten().take(remaining));
    packet
}

fn limits(sender: Sender, version: Version) -> Limits {
    Limits::new(sender, version, u32::MAX)
}

fn all_limits() -> Vec<Limits> {
    let mut all = Vec::new();
    for sender in [Sender::Client, Sender::Server] {
        for version in Version::ALL {
            all.extend([100, u32::MAX].map(|max| Limits::new(sender, version, max)));
        }
    }
    all
}
