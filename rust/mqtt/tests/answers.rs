//! CONNACK, DISCONNECT and AUTH: what is read, what is refused at which byte, and what is written.

use proxyproto_mqtt::{
    Auth, Connack, Disconnect, EncodeError, Field, Property, Reason, Sender, Value, Version,
};

const V5: Version = Version::Mqtt5;
const V311: Version = Version::Mqtt311;
const V31: Version = Version::Mqtt31;

#[test]
fn each_reason_has_its_answers() {
    let table = [
        // reason, CONNACK of 3.1 and 3.1.1, CONNACK of 5, DISCONNECT of 5
        ("bad-credentials", Some(5), Some(0x86), None),
        ("auth-error", Some(3), Some(0x88), None),
        ("blocked", Some(5), Some(0x8a), Some(0x98)),
        ("access-denied", Some(5), Some(0x87), None),
        ("cert-required", Some(5), Some(0x87), None),
        ("protocol-version", Some(1), Some(0x84), None),
        ("identifier-rejected", Some(2), Some(0x85), None),
        ("malformed-connect", None, Some(0x81), None),
        ("too-many-sessions", Some(3), Some(0x97), None),
        ("busy", None, Some(0x89), None),
        ("upstream-unavailable", Some(3), Some(0x88), None),
        ("upstream-refused", None, None, None),
        ("rate-limited", None, Some(0x9f), Some(0x96)),
        ("packet-too-large", None, Some(0x95), Some(0x95)),
        ("administrative", None, None, Some(0x98)),
        ("keep-alive", None, None, Some(0x8d)),
        ("bad-topic", None, None, Some(0x90)),
        ("second-connect", None, None, Some(0x82)),
        ("malformed-packet", None, None, Some(0x81)),
        ("server-shutdown", None, None, Some(0x8b)),
        ("taken-over", None, None, Some(0x8e)),
    ];
    assert_eq!(table.len(), Reason::ALL.len());
    for ((code, v3, v5, end), &reason) in table.into_iter().zip(Reason::ALL) {
        assert_eq!(reason.code(), code);
        for version in Version::ALL {
            let expected = if version == V5 { v5 } else { v3 };
            let connack = Connack::refuse(reason, version);
            assert_eq!(connack.as_ref().map(Connack::code), expected, "{code} in {version}");
            if let Some(connack) = connack {
                assert_eq!(Connack::decode(connack.raw(), version).unwrap().to_owned(), connack);
                assert!(connack.refused().is_some(), "{code} in {version}");
            }
            let disconnect = Disconnect::end(reason, version);
            let expected = end.filter(|_| version == V5);
            assert_eq!(disconnect.as_ref().map(Disconnect::code), expected, "{code} in {version}");
            if let Some(disconnect) = disconnect {
                let read = Disconnect::decode(disconnect.raw(), version, Sender::Server).unwrap();
                assert_eq!(read.code(), disconnect.code());
            }
        }
    }
}

#[test]
fn a_client_is_let_in() {
    for (version, present, raw) in [
        (V31, false, &b"\x20\x02\x00\x00"[..]),
        (V311, true, b"\x20\x02\x01\x00"),
        (V5, false, b"\x20\x03\x00\x00\x00"),
        (V5, true, b"\x20\x03\x01\x00\x00"),
    ] {
        let connack = Connack::accept(version, present);
        assert_eq!(connack.raw(), raw);
        assert_eq!((connack.session_present(), connack.refused()), (present, None));
        assert_eq!(Connack::decode(raw, version).unwrap().to_owned(), connack);
    }
}

#[test]
fn what_upstream_answers_has_a_reason() {
    let table = [
        (V311, 1, Some(Reason::UpstreamRefused), "unacceptable protocol version"),
        (V311, 2, Some(Reason::UpstreamRefused), "identifier rejected"),
        (V311, 3, Some(Reason::UpstreamUnavailable), "server unavailable"),
        (V31, 4, Some(Reason::BadCredentials), "bad user name or password"),
        (V311, 5, Some(Reason::BadCredentials), "not authorized"),
        (V311, 0x86, Some(Reason::UpstreamRefused), "a code that is not defined"),
        (V5, 0, None, "success"),
        (V5, 0x80, Some(Reason::UpstreamRefused), "unspecified error"),
        (V5, 0x86, Some(Reason::BadCredentials), "bad user name or password"),
        (V5, 0x87, Some(Reason::BadCredentials), "not authorized"),
        (V5, 0x88, Some(Reason::UpstreamUnavailable), "server unavailable"),
        (V5, 0x89, Some(Reason::UpstreamUnavailable), "server busy"),
        (V5, 0x8a, Some(Reason::UpstreamRefused), "banned"),
        (V5, 0x8c, Some(Reason::BadCredentials), "bad authentication method"),
        (V5, 0x9c, Some(Reason::UpstreamUnavailable), "use another server"),
        (V5, 0x9d, Some(Reason::UpstreamUnavailable), "server moved"),
        (V5, 0xff, Some(Reason::UpstreamRefused), "a code that is not defined"),
    ];
    for (version, code, reason, text) in table {
        let packet = if version == V5 { vec![0x20, 3, 0, code, 0] } else { vec![0x20, 2, 0, code] };
        let connack = Connack::decode(&packet, version).unwrap();
        assert_eq!((connack.code(), connack.refused(), connack.code_text()), (code, reason, text));
    }
}

#[test]
fn a_server_that_does_not_know_mqtt_5_answers_in_the_old_form() {
    let connack = Connack::decode(b"\x20\x02\x00\x01", V5).unwrap();
    assert_eq!((connack.version(), connack.code()), (V311, 1));
    assert_eq!(connack.refused(), Some(Reason::UpstreamRefused));
    assert!(Connack::decode(b"\x20\x02\x00\x00", V5).is_err());
}

#[test]
fn the_properties_of_a_connack_are_read() {
    let packet = b"\x20\x23\x00\x00\x20\x11\x00\x00\x00\x07\x12\x00\x06auto-1\x13\x00\x1e\x1f\x00\x02hi\
        \x27\x00\x01\x00\x00\x21\x00\x0a\x24\x01";
    let connack = Connack::decode(packet, V5).unwrap();
    assert_eq!(connack.session_expiry_interval(), Some(7));
    assert_eq!(connack.assigned_client_identifier(), Some("auto-1"));
    assert_eq!(connack.server_keep_alive(), Some(30));
    assert_eq!(connack.reason_string(), Some("hi"));
    assert_eq!(connack.maximum_packet_size(), Some(65536));
    assert_eq!(connack.properties().get(Property::RECEIVE_MAXIMUM), Some(Value::Two(10)));
    assert_eq!(connack.properties().get(Property::MAXIMUM_QOS), Some(Value::Byte(1)));

    // A property keeps its place only if nobody changes it.
    let changed = connack
        .with(&[
            Property { id: Property::MAXIMUM_PACKET_SIZE, value: Value::Four(1000) },
            Property { id: Property::ASSIGNED_CLIENT_IDENTIFIER, value: Value::Text("x") },
        ])
        .unwrap();
    assert_eq!(
        changed.raw(),
        b"\x20\x1e\x00\x00\x1b\x11\x00\x00\x00\x07\x13\x00\x1e\x1f\x00\x02hi\x21\x00\x0a\x24\x01\
        \x27\x00\x00\x03\xe8\x12\x00\x01x"
    );
    assert_eq!(Connack::decode(changed.raw(), V5).unwrap().to_owned(), changed);
    assert_eq!(connack.with(&[]).unwrap().raw(), packet);
}

#[test]
fn a_connack_without_properties_gets_them_only_in_5() {
    let pair = Property { id: Property::USER_PROPERTY, value: Value::Pair("k", "v") };
    let connack = Connack::accept(V5, true).with(&[pair, pair]).unwrap();
    assert_eq!(connack.raw(), b"\x20\x11\x01\x00\x0e\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01v");
    assert_eq!(Connack::accept(V311, true).with(&[pair]).unwrap().raw(), b"\x20\x02\x01\x00");

    let long = "x".repeat(65536);
    let too_long = Property { id: Property::REASON_STRING, value: Value::Text(&long) };
    let error = EncodeError::TooLong { field: Field::Property(0x1f), len: 65536 };
    assert_eq!(connack.with(&[too_long]).unwrap_err(), error);
    for (id, value, text) in [
        (Property::RECEIVE_MAXIMUM, Value::Two(0), "property 0x21 has a value that is not allowed"),
        (Property::WILL_DELAY_INTERVAL, Value::Four(0), "property 0x18 does not belong to the properties"),
        (Property::REASON_STRING, Value::Byte(0), "the packet ends inside property 0x1f"),
        (Property::REASON_STRING, Value::Text("\0"), "property 0x1f holds a NUL"),
        (Property::AUTHENTICATION_DATA, Value::Binary(b"x"), "authentication data without a method"),
    ] {
        assert_eq!(connack.with(&[Property { id, value }]).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_wrong_connack_is_refused_at_its_byte() {
    let table: [(Version, &[u8], &str, usize); 15] = [
        (V311, b"\x20", "the packet ends inside the fixed header", 1),
        (V311, b"\x20\x02\x00", "the packet ends inside the body", 3),
        (V311, b"\x20\x02\x00\x00\xd0", "1 bytes behind the last field", 4),
        (V311, b"\xd0\x00", "packet type 13 where CONNACK is due", 0),
        (V311, b"\x21\x02\x00\x00", "packet type 2 with flags 0x1", 0),
        (V311, b"\x20\x01\x00", "the packet ends inside the code", 3),
        (V311, b"\x20\x03\x00\x00\x00", "1 bytes behind the last field", 4),
        (V311, b"\x20\x02\x02\x00", "the reserved flag is set", 2),
        (V311, b"\x20\x02\x01\x05", "a CONNACK that refuses and has a session", 2),
        (V5, b"\x20\x02\x00\x00", "the packet ends inside the properties", 4),
        (V5, b"\x20\x03\x01\x87\x00", "a CONNACK that refuses and has a session", 2),
        (V5, b"\x20\x03\x00\x01\x00", "code 0x01, which this packet cannot have", 3),
        (V5, b"\x20\x05\x00\x00\x02\x17\x01", "property 0x17 does not belong to the properties", 5),
        (V5, b"\x20\x09\x00\x00\x06\x13\x00\x01\x13\x00\x01", "property 0x13 is there twice", 8),
        (V5, b"HTTP/1.1 400", "packet type 4 with flags 0x8", 0),
    ];
    for (version, packet, detail, offset) in table {
        let fault = Connack::decode(packet, version).unwrap_err();
        assert_eq!((fault.detail.to_string().as_str(), fault.offset), (detail, offset));
        assert_eq!(fault.reason, Reason::MalformedPacket);
    }
    // In 3.1 the byte in front of the code means nothing.
    let connack = Connack::decode(b"\x20\x02\xff\x00", V31).unwrap();
    assert!(!connack.session_present());
}

#[test]
fn a_disconnect_may_leave_out_what_says_nothing() {
    for (packet, code, expiry) in [
        (&b"\xe0\x00"[..], 0, None),
        (b"\xe0\x01\x04", 4, None),
        (b"\xe0\x02\x00\x00", 0, None),
        (b"\xe0\x07\x00\x05\x11\x00\x00\x00\x3c", 0, Some(60)),
    ] {
        let disconnect = Disconnect::decode(packet, V5, Sender::Client).unwrap();
        assert_eq!((disconnect.code(), disconnect.session_expiry_interval()), (code, expiry));
        assert_eq!(disconnect.raw(), packet);
    }
    let packet = b"\xe0\x0f\x8b\x0d\x1f\x00\x03bye\x1c\x00\x04next";
    let disconnect = Disconnect::decode(packet, V5, Sender::Server).unwrap();
    assert_eq!((disconnect.code_text(), disconnect.reason_string()), ("server shutting down", Some("bye")));
}

#[test]
fn a_wrong_disconnect_is_refused_at_its_byte() {
    let (client, server) = (Sender::Client, Sender::Server);
    let table: [(Version, Sender, &[u8], &str, usize); 7] = [
        (V311, client, b"\xe0\x01\x00", "packet type 14 with a body", 2),
        (V311, server, b"\xe0\x00", "packet type 14 is not for servers to send", 0),
        (V5, client, b"\xe0\x01\x8b", "code 0x8b, which this packet cannot have", 2),
        (V5, server, b"\xe0\x01\x04", "code 0x04, which this packet cannot have", 2),
        (V5, server, b"\xe0\x07\x00\x05\x11\0\0\0\x01", "property 0x11 does not belong to the properties", 4),
        (V5, client, b"\xe0\x06\x00\x04\x1c\0\x01x", "property 0x1c does not belong to the properties", 4),
        (V5, client, b"\xe0\x03\x00\x00\x00", "1 bytes behind the last field", 4),
    ];
    for (version, sender, packet, detail, offset) in table {
        let fault = Disconnect::decode(packet, version, sender).unwrap_err();
        assert_eq!((fault.detail.to_string().as_str(), fault.offset), (detail, offset));
    }
}

#[test]
fn a_step_of_an_authentication_is_read() {
    let packet = b"\xf0\x0f\x18\x0d\x15\x00\x05SCRAM\x16\x00\x02hi";
    for sender in [Sender::Client, Sender::Server] {
        let auth = Auth::decode(packet, sender).unwrap();
        assert_eq!((auth.code(), auth.authentication_method()), (0x18, Some("SCRAM")));
        let data = auth.properties().get(Property::AUTHENTICATION_DATA);
        assert_eq!(data, Some(Value::Binary(b"hi")));
        assert_eq!(Auth::decode(b"\xf0\x00", sender).unwrap().code(), 0);
    }
    for (packet, detail) in [
        (&b"\xf0\x02\x87\x00"[..], "code 0x87, which this packet cannot have"),
        (b"\xf0\x01\x18", "the packet ends inside the properties"),
        (b"\xe0\x00", "packet type 14 where AUTH is due"),
    ] {
        assert_eq!(Auth::decode(packet, Sender::Client).unwrap_err().detail.to_string(), detail);
    }
}
