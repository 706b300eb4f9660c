//! Any bytes as the first of a client: a CONNECT that can be written again, or a reason that more bytes do not change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_fuzz::mqtt_packet;
use proxyproto_mqtt::{Connect, Refusal, Status, Versions};

fuzz_target!(|data: &[u8]| {
    read(data);
    // Mutations would seldom guess a right length.
    read(&mqtt_packet(0x10, data));
});

fn read(data: &[u8]) {
    match Connect::read(data, Versions::ALL, MAX) {
        Ok(Status::Complete(connect)) => {
            let packet = connect.raw();
            assert_eq!(packet, &data[..packet.len()]);
            assert_eq!(Connect::decode(packet, Versions::ALL).unwrap(), connect);
            rewrite(&connect);
            let shorter = Connect::read(&packet[..packet.len() - 1], Versions::ALL, MAX);
            assert!(matches!(shorter, Ok(Status::Partial { needed: 1 })));
        }
        Ok(Status::Partial { needed }) => {
            assert!(needed > 0);
            assert!(Connect::decode(data, Versions::ALL).is_err());
        }
        Err(refusal) => {
            assert!(refusal.offset <= data.len());
            let longer = [data, b"\0"].concat();
            let again = Connect::read(&longer, Versions::ALL, MAX).unwrap_err();
            assert_eq!(rule(&again), rule(&refusal));
        }
    }
}

/// Encoding the packet gives the bytes that came, and decoding a changed packet gives the change.
fn rewrite(connect: &Connect<&[u8]>) {
    assert_eq!(connect.change().encode().unwrap(), *connect);
    let Ok(changed) =
        connect.change().client_id("auto-1").username(Some("user")).password(Some(b"\0")).encode()
    else {
        assert!(connect.raw().len() > MAX as usize - 100, "it is not too long");
        return;
    };
    let read = Connect::decode(changed.raw(), Versions::ALL).unwrap();
    assert_eq!((read.version(), read.client_id()), (connect.version(), "auto-1"));
    assert_eq!((read.username(), read.password()), (Some("user"), Some(&b"\0"[..])));
    assert_eq!((read.clean_start(), read.keep_alive()), (connect.clean_start(), connect.keep_alive()));
    assert!(read.properties().eq(connect.properties()));
    match (read.will(), connect.will()) {
        (Some(read), Some(will)) => {
            assert_eq!(
                (read.topic, read.message, read.qos, read.retain),
                (will.topic, will.message, will.qos, will.retain)
            );
            assert!(read.properties.eq(will.properties));
        }
        (read, will) => assert!(read.is_none() && will.is_none()),
    }
    let back = changed.change().client_id(connect.client_id()).username(connect.username());
    let back = back.password(connect.password()).encode().unwrap();
    assert_eq!(back.change().encode().unwrap(), back);
    assert_eq!(
        (back.client_id(), back.username(), back.password()),
        (connect.client_id(), connect.username(), connect.password())
    );
}

/// The bytes that are shown of another protocol may become more.
fn rule(refusal: &Refusal) -> (&'static str, usize) {
    (refusal.reason.code(), refusal.offset)
}

const MAX: u32 = 16384;
