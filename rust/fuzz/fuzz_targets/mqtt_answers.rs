//! Any bytes as a CONNACK, a DISCONNECT, an AUTH or another packet: they are read, or refused at one of their bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_fuzz::mqtt_packet;
use proxyproto_mqtt::{Auth, Connack, Disconnect, Fault, Property, Sender, Status, Strict, Value, Version};

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Some((first, body)) = data.split_first() {
        // Mutations would seldom guess a right length.
        read(&mqtt_packet(*first, body));
    }
});

fn read(packet: &[u8]) {
    let inside = |fault: Fault| assert!(fault.offset <= packet.len(), "{fault}");
    for version in Version::ALL {
        match Connack::decode(packet, version) {
            Ok(connack) => rewrite(&connack),
            Err(fault) => inside(fault),
        }
        for sender in [Sender::Client, Sender::Server] {
            match Disconnect::decode(packet, version, sender) {
                Ok(disconnect) => {
                    let _ = (disconnect.reason_string(), disconnect.properties().count());
                    assert_eq!(disconnect.raw(), packet);
                }
                Err(fault) => inside(fault),
            }
        }
        match Strict::new(version, u32::MAX).read(packet) {
            Ok(Status::Complete(header)) => assert!(header.size() as usize <= packet.len()),
            Ok(Status::Partial { needed }) => assert!(needed > 0),
            Err(fault) => inside(fault),
        }
    }
    for sender in [Sender::Client, Sender::Server] {
        match Auth::decode(packet, sender) {
            Ok(auth) => {
                assert!(auth.properties().count() >= usize::from(auth.authentication_method().is_some()))
            }
            Err(fault) => inside(fault),
        }
    }
}

fn rewrite(connack: &Connack<&[u8]>) {
    assert_eq!(connack.code() == 0, connack.refused().is_none());
    let same = connack.with(&[]).unwrap();
    assert_eq!(same.raw(), connack.raw());
    let id = Property::ASSIGNED_CLIENT_IDENTIFIER;
    let changed = connack.with(&[Property { id, value: Value::Text("auto-1") }]).unwrap();
    let assigned = (connack.version() == Version::Mqtt5).then_some("auto-1");
    assert_eq!(changed.assigned_client_identifier(), assigned);
    assert_eq!((changed.code(), changed.session_present()), (connack.code(), connack.session_present()));
    assert_eq!(
        (changed.maximum_packet_size(), changed.server_keep_alive()),
        (connack.maximum_packet_size(), connack.server_keep_alive())
    );
}
