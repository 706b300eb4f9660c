//! The few packets of MQTT 3.1.1 that the measurements need.

pub(crate) const CONNACK: &[u8] = b"\x20\x02\0\0";
pub(crate) const PINGREQ: &[u8] = b"\xc0\0";
pub(crate) const PINGRESP: &[u8] = b"\xd0\0";
pub(crate) const DISCONNECT: &[u8] = b"\xe0\0";

/// A CONNECT with a clean session and a keep-alive of a minute. The client id tells the broker what to do.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let id_length = u16::try_from(client_id.len()).unwrap_or_default().to_be_bytes();
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3c", &id_length[..], client_id.as_bytes()].concat())
}

/// A SUBSCRIBE to the topic of [`publish`].
pub(crate) fn subscribe(qos: u8) -> Vec<u8> {
    packet(0x82, &[b"\0\x01\0\x05bench", &[qos][..]].concat())
}

/// The answer to [`subscribe`].
pub(crate) fn suback(qos: u8) -> [u8; 5] {
    [0x90, 3, 0, 1, qos]
}

/// A PUBLISH of QoS 0 with so many bytes in all, none of them as in [`PINGREQ`].
pub(crate) fn publish(size: usize) -> Vec<u8> {
    publish_with(size, 0, 0)
}

/// A PUBLISH with so many bytes in all; only one of QoS 1 has the packet id.
pub(crate) fn publish_with(size: usize, qos: u8, id: u16) -> Vec<u8> {
    let fixed = if size < 130 { 2 } else { 4 };
    let mut body = TOPIC.to_vec();
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.resize(size - fixed, b'.');
    packet(0x30 | qos << 1, &body)
}

/// The answer to a PUBLISH of QoS 1 with fewer than 130 bytes.
pub(crate) fn puback(publish: &[u8]) -> [u8; 4] {
    let id = 2 + TOPIC.len();
    [0x40, 2, publish[id], publish[id + 1]]
}

const TOPIC: &[u8] = b"\0\x05bench";

/// The remaining length has one byte or three.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let digit = |shift: usize| u8::try_from(body.len() >> shift & 0x7f).unwrap_or_default();
    let length = match body.len() {
        0..128 => vec![digit(0)],
        _ => vec![digit(0) | 0x80, digit(7) | 0x80, digit(14)],
    };
    [&[first], &length[..], body].concat()
}
