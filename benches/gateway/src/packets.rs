//! The few packets of MQTT 3.1.1 that the measurements need.

pub(crate) const CONNACK: &[u8] = b"\x20\x02\0\0";
pub(crate) const PINGREQ: &[u8] = b"\xc0\0";
pub(crate) const PINGRESP: &[u8] = b"\xd0\0";
/// To [`subscribe`].
pub(crate) const SUBACK: &[u8] = b"\x90\x03\0\x01\0";
pub(crate) const DISCONNECT: &[u8] = b"\xe0\0";

/// A CONNECT with a clean session and a keep-alive of a minute. The client id tells the broker what to do.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let id_length = u16::try_from(client_id.len()).unwrap_or_default().to_be_bytes();
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3c", &id_length[..], client_id.as_bytes()].concat())
}

/// A SUBSCRIBE of QoS 0 to the topic of [`publish`].
pub(crate) fn subscribe() -> Vec<u8> {
    packet(0x82, b"\0\x01\0\x05bench\0")
}

/// A PUBLISH of QoS 0 with so many bytes in all, none of them as in [`PINGREQ`].
pub(crate) fn publish(size: usize) -> Vec<u8> {
    let fixed = if size < 130 { 2 } else { 4 };
    let mut body = b"\0\x05bench".to_vec();
    body.resize(size - fixed, b'.');
    packet(0x30, &body)
}

/// The remaining length has one byte or three.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let digit = |shift: usize| u8::try_from(body.len() >> shift & 0x7f).unwrap_or_default();
    let length = match body.len() {
        0..128 => vec![digit(0)],
        _ => vec![digit(0) | 0x80, digit(7) | 0x80, digit(14)],
    };
    [&[first], &length[..], body].concat()
}
