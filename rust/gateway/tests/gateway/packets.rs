//! Packets of MQTT, written by hand.

use proxyproto_gateway::mqtt::Version;

pub(crate) const PINGREQ: &[u8] = b"\xc0\0";
pub(crate) const PINGRESP: &[u8] = b"\xd0\0";
pub(crate) const DISCONNECT: &[u8] = b"\xe0\0";

/// A CONNECT of this version and client id, with a keep-alive of 60 s.
pub(crate) fn connect(version: Version, client_id: &str) -> Vec<u8> {
    connect_with(version, client_id, 60, b"", None)
}

/// A CONNECT. `properties` are those of MQTT 5; `user` is a name and a password.
pub(crate) fn connect_with(
    version: Version,
    client_id: &str,
    keep_alive: u16,
    properties: &[u8],
    user: Option<(&str, &str)>,
) -> Vec<u8> {
    let mut body = match version {
        Version::Mqtt31 => string("MQIsdp"),
        _ => string("MQTT"),
    };
    body.push(version.level());
    body.push(if user.is_some() { 0xc2 } else { 0x02 });
    body.extend(keep_alive.to_be_bytes());
    if version == Version::Mqtt5 {
        body.extend(length(properties.len()));
        body.extend(properties);
    }
    body.extend(string(client_id));
    if let Some((name, password)) = user {
        body.extend(string(name));
        body.extend(string(password));
    }
    packet(0x10, &body)
}

/// The CONNACK that lets in, or refuses with this code.
pub(crate) fn connack(version: Version, code: u8) -> Vec<u8> {
    match version {
        Version::Mqtt5 => vec![0x20, 3, 0, code, 0],
        _ => vec![0x20, 2, 0, code],
    }
}

/// What becomes of [`connack`] on its way to the client: a client of 5 learns the largest packet.
pub(crate) fn connack_out(version: Version, max_packet_size: u32) -> Vec<u8> {
    match version {
        Version::Mqtt5 => {
            let mut packet = vec![0x20, 8, 0, 0, 5, 0x27];
            packet.extend(max_packet_size.to_be_bytes());
            packet
        }
        _ => connack(version, 0),
    }
}

/// A PUBLISH of QoS 0.
pub(crate) fn publish(version: Version, topic: &str, message: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if version == Version::Mqtt5 {
        body.push(0);
    }
    body.extend(message);
    packet(0x30, &body)
}

/// A packet with this first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], &length(body.len())[..], body].concat()
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return bytes;
        }
    }
}
