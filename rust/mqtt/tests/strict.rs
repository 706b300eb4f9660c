//! What a client may send after its CONNECT: a table over the rules, and any bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proxyproto_mqtt::{Framing, Limits, Sender, Status, Strict, Version};

#[test]
fn what_a_client_may_send() {
    let table: [(&[Version], u8, &[u8]); 36] = [
        (OLD, 0x30, b"\x00\x03a/bx"),
        (OLD, 0x30, b"\x00\x01a"),
        (OLD, 0x31, b"\x00\x01a"),
        (OLD, 0x32, b"\x00\x01a\x00\x07x"),
        (OLD, 0x34, b"\x00\x01a\x00\x01"),
        (OLD, 0x3d, b"\x00\x01a\x00\x07"),
        (OLD, 0x30, b"\x00\x03\xe2\x82\xac"),
        (OLD, 0x30, b"\x00\x02a$\xff"),
        (&[Version::Mqtt31], 0x38, b"\x00\x01a"),
        (ALL, 0x40, b"\x00\x07"),
        (ALL, 0x50, b"\x00\x07"),
        (ALL, 0x62, b"\x00\x07"),
        (ALL, 0x70, b"\xff\xff"),
        (OLD, 0x82, b"\x00\x07\x00\x03a/#\x02"),
        (OLD, 0x82, b"\x00\x07\x00\x01+\x00\x00\x05$SYS/\x01"),
        (&[Version::Mqtt31], 0x8a, b"\x00\x07\x00\x01a\x01"),
        (OLD, 0xa2, b"\x00\x07\x00\x01a\x00\x01b"),
        (ALL, 0xc0, b""),
        (ALL, 0xe0, b""),
        (NEW, 0x30, b"\x00\x01a\x00"),
        (NEW, 0x32, b"\x00\x01a\x00\x07\x00x"),
        (NEW, 0x30, b"\x00\x00\x03\x23\x00\x01"),
        (NEW, 0x30, b"\x00\x01a\x04\x08\x00\x01rx"),
        (NEW, 0x40, b"\x00\x07\x10"),
        (NEW, 0x40, b"\x00\x07\x87\x00"),
        (NEW, 0x50, b"\x00\x07\x80\x05\x1f\x00\x02no"),
        (NEW, 0x62, b"\x00\x07\x92"),
        (NEW, 0x70, b"\x00\x07\x00"),
        (NEW, 0x82, b"\x00\x07\x00\x00\x01a\x2e"),
        (NEW, 0x82, b"\x00\x07\x02\x0b\x01\x00\x01a\x00"),
        (NEW, 0xa2, b"\x00\x07\x00\x00\x01a"),
        (NEW, 0xe0, b"\x04"),
        (NEW, 0xe0, b"\x00\x05\x11\x00\x00\x00\x01"),
        (NEW, 0xf0, b"\x19\x05\x15\x00\x02me"),
        (NEW, 0xf0, b""),
        (NEW, 0x30, b"\x00\x01a\x07\x26\x00\x01k\x00\x01v"),
    ];
    for (versions, first, body) in table {
        for &version in versions {
            let packet = packet(first, body);
            let strict = Strict::new(version, 1000);
            let whole = strict.read(&packet);
            assert!(
                matches!(whole, Ok(Status::Complete(header)) if header.size() as usize == packet.len()),
                "{packet:02x?} in {version}: {whole:?}"
            );
            assert_eq!(strict.read(&[&packet[..], b"\xff\xff"].concat()), whole);
            for have in 0..packet.len() {
                let Ok(Status::Partial { needed }) = strict.read(&packet[..have]) else {
                    panic!("{packet:02x?} at {have}")
                };
                assert!((1..=packet.len() - have).contains(&needed), "{packet:02x?} at {have}: {needed}");
            }
        }
    }
}

#[test]
fn what_a_client_must_not_send() {
    let table: [Wrong; 51] = [
        // MQTT-2.2.2-2, MQTT-3.1.0-2 and the types of servers
        (NEW, 0xc1, b"", "packet type 12 with flags 0x1", 0),
        (&[Version::Mqtt311, Version::Mqtt5], 0x80, b"", "packet type 8 with flags 0x0", 0),
        (ALL, 0x10, b"", "a CONNECT in an open session", 0),
        (ALL, 0x20, b"", "packet type 2 is not for clients to send", 0),
        (ALL, 0xd0, b"", "packet type 13 is not for clients to send", 0),
        (OLD, 0xf0, b"", "packet type 15 is not for clients to send", 0),
        // PUBLISH: MQTT-3.3.1-4, MQTT-3.3.1-2, MQTT-2.3.1-1, section 3.3.2
        (ALL, 0x36, b"\x00\x01a\x00\x07", "PUBLISH with QoS 3", 0),
        (&[Version::Mqtt311, Version::Mqtt5], 0x38, b"\x00\x01a", "PUBLISH with DUP and QoS 0", 0),
        (ALL, 0x30, b"\x00", "the packet ends inside the topic", 2),
        (ALL, 0x30, b"\x00\x09ab", "the packet ends inside the topic", 2),
        (ALL, 0x30, b"\x00\x02a\xff", "the topic is not UTF-8", 5),
        (ALL, 0x30, b"\x00\x02a\x00", "the topic is empty or holds a NUL", 5),
        (OLD, 0x30, b"\x00\x00x", "the topic is empty or holds a NUL", 2),
        (NEW, 0x30, b"\x00\x00\x00x", "the topic is empty or holds a NUL", 2),
        (ALL, 0x30, b"\x00\x03a/#\x00", "a wildcard in a PUBLISH", 4),
        (ALL, 0x30, b"\x00\x05a/+/b\x00", "a wildcard in a PUBLISH", 4),
        (ALL, 0x30, b"\x00\x06$SYS/a\x00", "topics with $ are the broker's own", 4),
        (ALL, 0x32, b"\x00\x01a", "no packet id, or packet id 0", 5),
        (ALL, 0x32, b"\x00\x01a\x00", "no packet id, or packet id 0", 5),
        (ALL, 0x34, b"\x00\x01a\x00\x00\x00", "no packet id, or packet id 0", 5),
        (NEW, 0x30, b"\x00\x01a", "the packet ends inside the properties", 5),
        (NEW, 0x30, b"\x00\x01a\x05x", "the packet ends inside the properties", 6),
        (NEW, 0x30, b"\x00\x01a\x03\x23\x00\x00", "property 0x23 has a value that is not allowed", 6),
        (NEW, 0x30, b"\x00\x01a\x05\x08\x00\x02/#", "property 0x08 has a value that is not allowed", 6),
        (NEW, 0x30, b"\x00\x01a\x02\x0b\x01", "property 0x0b does not belong to the properties", 6),
        // PUBACK, PUBREC, PUBREL and PUBCOMP
        (ALL, 0x40, b"\x07", "packet type 4 without exactly one packet id", 2),
        (ALL, 0x40, b"\x00\x00", "packet type 4 without exactly one packet id", 2),
        (OLD, 0x70, b"\x00\x07x", "packet type 7 without exactly one packet id", 2),
        (NEW, 0x40, b"\x00\x07\x92", "code 0x92, which this packet cannot have", 4),
        (NEW, 0x62, b"\x00\x07\x10", "code 0x10, which this packet cannot have", 4),
        (NEW, 0x50, b"\x00\x07\x00\x00x", "1 bytes behind the last field", 6),
        (NEW, 0x70, b"\x00\x07\x00\x05\x1f\x00\x02n", "the packet ends inside the properties", 6),
        // SUBSCRIBE and UNSUBSCRIBE: MQTT-3.8.3-3, MQTT-3-8.3-4, MQTT-3.10.3-2, MQTT5-3.8.3-5
        (ALL, 0x82, b"", "no packet id, or packet id 0", 2),
        (ALL, 0x82, b"\x00\x00\x00\x01a\x00", "no packet id, or packet id 0", 2),
        (OLD, 0x82, b"\x00\x07", "no topic filter", 4),
        (NEW, 0x82, b"\x00\x07\x00", "no topic filter", 5),
        (OLD, 0xa2, b"\x00\x07", "no topic filter", 4),
        (OLD, 0x82, b"\x00\x07\x00\x02a", "the packet ends inside the topic filter", 4),
        (OLD, 0x82, b"\x00\x07\x00\x00\x00", "the topic filter is empty or holds a NUL", 4),
        (OLD, 0xa2, b"\x00\x07\x00\x02a\x00", "the topic filter is empty or holds a NUL", 7),
        (OLD, 0x82, b"\x00\x07\x00\x01a", "a topic filter without a QoS of 0 to 2", 7),
        (OLD, 0x82, b"\x00\x07\x00\x01a\x03", "a topic filter without a QoS of 0 to 2", 7),
        (OLD, 0x82, b"\x00\x07\x00\x01a\x04", "a topic filter without a QoS of 0 to 2", 7),
        (NEW, 0x82, b"\x00\x07\x00\x00\x01a\x03", "a topic filter without a QoS of 0 to 2", 8),
        (NEW, 0x82, b"\x00\x07\x00\x00\x01a\x30", "a topic filter without a QoS of 0 to 2", 8),
        (NEW, 0x82, b"\x00\x07\x02\x0b\x00\x00\x01a\x00", "property 0x0b has a value that is not allowed", 5),
        (NEW, 0xa2, b"\x00\x07\x02\x0b\x01\x00\x01a", "property 0x0b does not belong to the properties", 5),
        // PINGREQ, DISCONNECT and AUTH
        (ALL, 0xc0, b"x", "packet type 12 with a body", 2),
        (OLD, 0xe0, b"\x00", "packet type 14 with a body", 2),
        (NEW, 0xe0, b"\x8b", "code 0x8b, which this packet cannot have", 2),
        (NEW, 0xf0, b"\x18\x03\x16\x00\x00", "authentication data without a method", 4),
    ];
    for (versions, first, body, detail, offset) in table {
        for &version in versions {
            let packet = packet(first, body);
            let fault = Strict::new(version, 1000).read(&packet).unwrap_err();
            let (code, _) = [
                ("second-connect", detail.starts_with("a CONNECT")),
                ("bad-topic", detail.contains("wildcard") || detail.contains('$')),
                ("malformed-packet", true),
            ]
            .into_iter()
            .find(|(_, is_it)| *is_it)
            .unwrap();
            assert_eq!(
                (fault.reason.code(), fault.detail.to_string().as_str(), fault.offset),
                (code, detail, offset),
                "{packet:02x?} in {version}"
            );
        }
    }
}

#[test]
fn a_packet_that_is_too_large_is_refused_before_it_is_here() {
    let fault = Strict::new(Version::Mqtt311, 1000).read(b"\x30\xe6\x07").unwrap_err();
    assert_eq!(fault.to_string(), "packet-too-large at byte 2: 1001 bytes, at most 1000 are read");
    let Ok(Status::Partial { needed: 997 }) = Strict::new(Version::Mqtt311, 1000).read(b"\x30\xe5\x07")
    else {
        panic!("it is not too large")
    };
}

proptest! {
    /// What the checks let through has the boundaries that the scan sees.
    #[test]
    fn any_packet_passes_or_has_a_reason(first in any::<u8>(), body in body()) {
        let packet = packet(first, &body);
        for version in Version::ALL {
            let scan = Framing::new(Limits::new(Sender::Client, version, 1000)).scan(&packet, |_| {});
            match Strict::new(version, 1000).read(&packet) {
                Ok(Status::Complete(header)) => {
                    prop_assert_eq!(header.size() as usize, packet.len());
                    prop_assert!(scan.is_ok());
                }
                Ok(Status::Partial { .. }) => prop_assert!(false, "it is whole"),
                Err(fault) => prop_assert!(fault.offset <= packet.len()),
            }
        }
    }
}

/// Bodies that are often nearly right.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let head =
        prop::sample::select(vec![&b""[..], b"\x00\x07", b"\x00\x07\x00", b"\x00\x01a", b"\x00\x01a\x00"]);
    (head, vec(prop_oneof![any::<u8>(), 0u8..3], 0..20)).prop_map(|(head, rest)| [head, &rest].concat())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).unwrap()], body].concat()
}

/// The versions, the first byte and the body of a packet; the text and the byte of its fault.
type Wrong = (&'static [Version], u8, &'static [u8], &'static str, usize);

const ALL: &[Version] = &Version::ALL;
const OLD: &[Version] = &[Version::Mqtt31, Version::Mqtt311];
const NEW: &[Version] = &[Version::Mqtt5];
