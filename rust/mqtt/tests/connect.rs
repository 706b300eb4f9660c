//! Every CONNECT of `tests/vectors/mqtt_connects.json`: whole, each prefix, with a packet behind it; and
//! what a front changes in it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests may panic as they do; clippy only knows of the test functions themselves"
)]

use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proxyproto_mqtt::{
    Connect, Detail, EncodeError, Field, Properties, Reason, Status, Value, Version, Versions, Will,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

#[test]
fn whole() {
    for row in rows() {
        let packet = row.packet();
        match (row.expect, Connect::decode(&packet, Versions::ALL)) {
            (Expect::Ok, Ok(connect)) => row.check(&connect),
            (Expect::Refused, Err(refusal)) => {
                assert_eq!(Some(refusal.reason.code()), row.reason.as_deref(), "{}", row.name);
                assert_eq!(Some(refusal.detail.to_string()), row.detail, "{}", row.name);
                assert_eq!(Some(refusal.offset), row.offset, "{}", row.name);
                assert_eq!(refusal.version.map(|version| version.to_string()), row.version, "{}", row.name);
                assert_eq!(refusal.client_id, row.client_id, "{}", row.name);
                assert_eq!(refusal.connack(), row.connack, "{}", row.name);
                assert_eq!(refusal.is_bridge_probe(), row.name.starts_with("bridge-"), "{}", row.name);
            }
            (_, result) => panic!("{}: {result:?}", row.name),
        }
    }
}

#[test]
fn with_another_packet_behind_it() {
    for row in rows().iter().filter(|row| row.expect == Expect::Ok) {
        let stream = [&row.packet()[..], b"\xc0\x00"].concat();
        let Ok(Status::Complete(connect)) = Connect::read(&stream, Versions::ALL, 16384) else {
            panic!("{}", row.name)
        };
        row.check(&connect);
        let refusal = Connect::decode(&stream, Versions::ALL).unwrap_err();
        assert_eq!(refusal.detail, Detail::BytesBehind { count: 2 }, "{}", row.name);
    }
}

#[test]
fn every_prefix_says_how_much_it_needs_or_what_is_wrong() {
    for row in rows() {
        let packet = row.packet();
        let whole = Connect::read(&packet, Versions::ALL, 16384);
        for have in 0..packet.len() {
            let remaining = packet.len() - have;
            match Connect::read(&packet[..have], Versions::ALL, 16384) {
                Ok(Status::Partial { needed }) => {
                    assert!((1..=remaining).contains(&needed), "{} at {have}: {needed}", row.name);
                }
                Err(refusal) => {
                    let whole = whole.clone().unwrap_err();
                    assert_eq!(
                        (refusal.reason, refusal.offset),
                        (whole.reason, whole.offset),
                        "{}",
                        row.name
                    );
                }
                Ok(Status::Complete(_)) => panic!("{} at {have}", row.name),
            }
        }
    }
}

#[test]
fn a_connect_that_is_not_whole_is_refused_where_all_of_it_must_be_there() {
    let packet = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03de";
    let refusal = Connect::decode(packet, Versions::ALL).unwrap_err();
    assert_eq!(refusal.to_string(), "malformed-connect at byte 16: the packet ends inside the body");
}

#[test]
fn a_connect_that_is_too_large_is_refused_at_its_length_where_nobody_can_be_told() {
    let refusal = Connect::read(b"\x10\xff\xff\x7f", Versions::of(&[Version::Mqtt311]), 16384).unwrap_err();
    assert_eq!((refusal.reason, refusal.version), (Reason::MalformedConnect, None));
    assert!(refusal.detail.to_string().contains("at most 16384"), "{}", refusal.detail);
}

#[test]
fn a_connect_that_is_too_large_is_refused_once_its_version_is_known() {
    let table = [
        (&b"\x10\xff\x7f\x00\x04MQTT\x05"[..], Some(Version::Mqtt5), Some(0x95)),
        (b"\x10\xff\x7f\x00\x04MQTT\x04", Some(Version::Mqtt311), None),
        (b"\x10\xff\x7f\x00\x06MQIsdp\x03", Some(Version::Mqtt31), None),
        (b"\x10\xff\x7f\x00\x04MQTT\x06", None, None),
        (b"\x10\xff\x7f\x00\x04HTTP\x06", None, None),
        (b"\x10\xff\x7f\xff\xff0123456", None, None),
    ];
    for (packet, version, connack) in table {
        let refusal = Connect::read(packet, Versions::ALL, 1000).unwrap_err();
        assert_eq!((refusal.reason, refusal.version), (Reason::PacketTooLarge, version));
        assert_eq!(refusal.detail.to_string(), "a CONNECT of 16386 bytes, at most 1000 are read");
        assert_eq!(refusal.connack(), connack);
        let Ok(Status::Partial { needed: 1 }) = Connect::read(&packet[..8], Versions::ALL, 1000) else {
            panic!("{packet:02x?}")
        };
    }
    // It ends before it can have said its version.
    assert!(Connect::read(b"\x10\x01\x00", Versions::ALL, 2).is_err());
    let row = rows().into_iter().find(|row| row.name == "5").unwrap().packet();
    let size = u32::try_from(row.len()).unwrap();
    assert!(Connect::read(&row, Versions::ALL, size).is_ok());
    assert!(Connect::read(&row, Versions::ALL, size - 1).is_err());
}

#[test]
fn a_version_that_is_not_served_is_refused_with_its_client_id() {
    for row in rows().iter().filter(|row| row.expect == Expect::Ok) {
        let packet = row.packet();
        let version = Connect::decode(&packet, Versions::ALL).unwrap().version();
        let others: Vec<_> = Version::ALL.into_iter().filter(|other| *other != version).collect();
        let refusal = Connect::decode(&packet, Versions::of(&others)).unwrap_err();
        let connack = if version == Version::Mqtt5 { 0x84 } else { 1 };
        assert_eq!((refusal.reason, refusal.version), (Reason::ProtocolVersion, Some(version)));
        assert_eq!((&refusal.client_id, refusal.connack()), (&row.client_id, Some(connack)));
    }
    let only_311 = Versions::of(&[Version::Mqtt311]);
    for (packet, detail) in [
        (&b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02id"[..], "MQTT 5; MQTT 3.1.1 is served"),
        (b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02id", "MQTT 3.1; MQTT 3.1.1 is served"),
        (b"\x10\x0e\x00\x04MQTT\x84\x02\x00\x3c\x00\x02id", "protocol level 132; MQTT 3.1.1 is served"),
    ] {
        let refusal = Connect::decode(packet, only_311).unwrap_err();
        assert_eq!((refusal.detail.to_string().as_str(), refusal.client_id.as_str()), (detail, "id"));
    }
}

#[test]
fn unchanged_it_has_the_bytes_that_were_received() {
    for row in rows().iter().filter(|row| row.expect == Expect::Ok) {
        let packet = row.packet();
        let connect = Connect::decode(&packet, Versions::ALL).unwrap();
        let username = connect.username().map(ToOwned::to_owned);
        let change = connect.change().client_id(connect.client_id()).username(username.as_deref());
        assert_eq!(change.encode().unwrap().raw(), packet, "{}", row.name);
    }
}

#[test]
fn a_change_changes_nothing_else() {
    for row in rows().iter().filter(|row| row.expect == Expect::Ok) {
        let packet = row.packet();
        let connect = Connect::decode(&packet, Versions::ALL).unwrap();
        let long = "x".repeat(300);
        let changed =
            connect.change().client_id("auto-1").username(Some(&long)).password(Some(b"\x00")).encode();
        let changed = changed.unwrap();
        assert_eq!((changed.client_id(), changed.username()), ("auto-1", Some(&*long)));
        assert_eq!(changed.password(), Some(&b"\x00"[..]));
        assert_eq!((changed.version(), changed.keep_alive()), (connect.version(), connect.keep_alive()));
        assert_eq!(changed.clean_start(), connect.clean_start());
        assert_eq!(will(changed.will()), will(connect.will()));
        assert!(changed.properties().eq(connect.properties()));

        let back = changed.change().client_id(connect.client_id());
        let back = back.username(connect.username()).password(connect.password()).encode();
        // In 3.1.1 a client without a client id must ask for a clean session. This one did.
        let back = back.unwrap();
        // What 3.1 leaves out or disregards, and a length with needless bytes, are not written again.
        if !["3.1-user-name-is-missing", "3.1-password-is-missing", "3.1.1-length-with-needless-bytes"]
            .contains(&row.name.as_str())
        {
            assert_eq!(back.raw(), packet, "{}", row.name);
        }
        let alone = connect.change().username(None).password(None).encode().unwrap();
        assert_eq!((alone.username(), alone.password()), (None, None));
    }
}

#[test]
fn what_a_client_must_not_send_is_not_written() {
    let packet = b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03dev";
    let connect = Connect::decode(packet, Versions::ALL).unwrap();
    let long = "x".repeat(65536);
    let table = [
        (connect.change().client_id(""), EncodeError::Invalid(Detail::EmptyClientId)),
        (connect.change().client_id("\0"), EncodeError::Invalid(Detail::HoldsNul(Field::ClientId))),
        (connect.change().username(Some("\0")), EncodeError::Invalid(Detail::HoldsNul(Field::Username))),
        (connect.change().password(Some(b"p")), EncodeError::Invalid(Detail::PasswordAlone)),
        (connect.change().username(Some(&long)), EncodeError::TooLong { field: Field::Username, len: 65536 }),
    ];
    for (change, error) in table {
        assert_eq!(change.encode().unwrap_err(), error);
    }
}

#[test]
fn a_password_is_not_shown() {
    let packet = b"\x10\x19\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03dev\x00\x01u\x00\x05xyzzy";
    let connect = Connect::decode(packet, Versions::ALL).unwrap();
    let shown = format!("{connect:?} {:?}", connect.to_owned().change());
    assert!(
        shown.contains("has_password: true") && !shown.contains("xyzzy") && !shown.contains("120, 121"),
        "{shown}"
    );
}

#[test]
fn a_session_is_kept_as_the_version_says() {
    let expiry = |name: &str| {
        let packet = rows().into_iter().find(|row| row.name == name).unwrap().packet();
        Connect::decode(&packet, Versions::ALL).unwrap().session_expiry_interval()
    };
    assert_eq!((expiry("3.1.1-clean"), expiry("3.1.1-kept")), (0, u32::MAX));
    assert_eq!((expiry("5"), expiry("5-all-properties"), expiry("5-largest-numbers")), (0, 7, u32::MAX));
}

proptest! {
    #[test]
    fn any_body_is_a_connect_or_has_a_reason(
        head in prop::sample::select(HEADS),
        body in vec(any::<u8>(), 0..120),
    ) {
        let mut packet = vec![0x10, u8::try_from(head.len() + body.len()).unwrap() & 0x7f];
        packet.extend(head.iter().chain(&body));
        packet.truncate(2 + usize::from(packet[1]));
        if let Ok(connect) = Connect::decode(&packet, Versions::ALL) {
            prop_assert_eq!(connect.raw(), &packet);
            prop_assert_eq!(connect.change().encode().unwrap(), connect);
        }
    }
}

const HEADS: &[&[u8]] = &[
    b"",
    b"\x00\x06MQIsdp\x03",
    b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01x",
    b"\x00\x04MQTT\x04\xf6\x00\x00\x00\x01x\x00\x01t\x00\x00",
    b"\x00\x04MQTT\x05",
    b"\x00\x04MQTT\x05\x02\x00\x00",
    b"\x00\x04MQTT\x05\xc6\x00\x00\x00\x00\x01x",
];

/// One line of `mqtt_connects.json`; its README says what the labels mean.
#[derive(Deserialize)]
struct Row {
    name: String,
    hex: String,
    expect: Expect,
    version: Option<String>,
    client_id: String,
    clean_start: Option<bool>,
    keep_alive: Option<u16>,
    will: Option<Json>,
    username: Option<String>,
    password: Option<String>,
    #[serde(default)]
    properties: Vec<Json>,
    reason: Option<String>,
    detail: Option<String>,
    offset: Option<usize>,
    connack: Option<u8>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Ok,
    Refused,
}

impl Row {
    fn packet(&self) -> Vec<u8> {
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
        let (pairs, []) = self.hex.as_bytes().as_chunks() else { panic!("{}", self.name) };
        pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
    }

    fn check(&self, connect: &Connect<&[u8]>) {
        let name = &self.name;
        assert_eq!(connect.raw(), self.packet(), "{name}");
        assert_eq!(Some(connect.version().to_string()), self.version, "{name}");
        assert_eq!(connect.client_id(), self.client_id, "{name}");
        assert_eq!(Some(connect.clean_start()), self.clean_start, "{name}");
        assert_eq!(Some(connect.keep_alive()), self.keep_alive, "{name}");
        assert_eq!(will(connect.will()), self.will, "{name}");
        assert_eq!(connect.username(), self.username.as_deref(), "{name}");
        assert_eq!(connect.password().map(hex), self.password, "{name}");
        assert_eq!(properties(connect.properties()), self.properties, "{name}");
    }
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connects.json");
    let rows: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(rows.len(), 148);
    rows
}

/// A will, as the file writes it.
fn will(will: Option<Will<'_>>) -> Option<Json> {
    will.map(|will| {
        json!({
            "topic": will.topic,
            "message": hex(will.message),
            "qos": will.qos,
            "retain": will.retain,
            "properties": properties(will.properties),
        })
    })
}

/// Properties, as the file writes them.
fn properties(properties: Properties<'_>) -> Vec<Json> {
    let value = |value| match value {
        Value::Byte(number) => json!(number),
        Value::Two(number) => json!(number),
        Value::Four(number) | Value::Varint(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Binary(data) => json!(hex(data)),
        Value::Pair(name, value) => json!([name, value]),
    };
    properties.map(|property| json!([property.id, value(property.value)])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}
