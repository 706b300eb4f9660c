//! A WebSocket of a client: any bytes in any pieces come to the same, an upgrade is read as it is written, and what is
//! encoded for a client tungstenite reads back.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use proxyproto_fuzz::Pieces;
use proxyproto_gateway::{
    Channel, ChannelFault, Flow, ForwardedOptions, Stage, WebSocketOptions, WebSocketServer,
};
use tungstenite::protocol::frame::FrameHeader;

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
const MAX: u32 = 4096;

fuzz_target!(|data: &[u8]| {
    // As a request, and as frames behind one.
    for bytes in [data.to_vec(), [REQUEST, data].concat()] {
        let whole = read(&bytes, |_| bytes.len().max(1));
        if bytes.len() <= 600 {
            same(&read(&bytes, |_| 1), &whole);
        }
        let mut pieces = Pieces::of(data);
        same(&read(&bytes, |_| pieces.next_size().max(1)), &whole);
    }
    encode(data);
});

/// What has come of bytes.
struct Read {
    mqtt: Vec<u8>,
    answer: Vec<u8>,
    outcome: Result<Flow, ChannelFault>,
    stage: Stage,
}

fn channel() -> Box<dyn Channel> {
    let mut options = WebSocketOptions::default();
    let trusted = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
    options.forwarded = Some(ForwardedOptions::new(trusted));
    options.max_message_size = MAX;
    WebSocketServer::new(options).unwrap().open_for("10.0.0.9".parse().unwrap())
}

fn read(bytes: &[u8], mut next_size: impl FnMut(usize) -> usize) -> Read {
    let mut channel = channel();
    let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
    let mut outcome = Ok(Flow::Open);
    let mut at = 0;
    while at < bytes.len() && outcome == Ok(Flow::Open) {
        let size = next_size(at).min(bytes.len() - at);
        outcome = channel.decode(&mut bytes[at..at + size].to_vec(), &mut mqtt, &mut answer);
        at += size;
    }
    let stage = channel.stage();
    assert!(mqtt.len() <= bytes.len());
    assert!(mqtt.is_empty() || stage == Stage::Open);
    if outcome != Ok(Flow::Open) {
        // Behind the end nothing is read, and nothing is sent.
        let (mqtt_len, answer_len) = (mqtt.len(), answer.len());
        let _ = channel.decode(&mut REQUEST.to_vec(), &mut mqtt, &mut answer);
        channel.encode(b"late", &mut answer).unwrap();
        channel.close(&mut answer);
        assert_eq!((mqtt.len(), answer.len()), (mqtt_len, answer_len));
    }
    Read { mqtt, answer, outcome, stage }
}

/// The pieces may differ in how much of a strange start was there when it was named, and in nothing else.
fn same(one: &Read, other: &Read) {
    assert_eq!(one.mqtt, other.mqtt);
    assert_eq!(one.answer, other.answer);
    assert_eq!(one.stage, other.stage);
    match (&one.outcome, &other.outcome) {
        (Err(one), Err(other)) => {
            assert_eq!(one.cause, other.cause);
            if !one.detail.starts_with("not an upgrade request") {
                assert_eq!(one.detail, other.detail);
            }
        }
        (one, other) => assert_eq!(one, other),
    }
}

/// Bytes of MQTT in pieces: each is one message, which another reader finds.
fn encode(data: &[u8]) {
    let mut channel = channel();
    let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
    channel.decode(&mut REQUEST.to_vec(), &mut mqtt, &mut answer).unwrap();
    let mut wire = Vec::new();
    let mut pieces = Pieces::of(data);
    let mut at = 0;
    while at < data.len() {
        let size = pieces.next_size().min(data.len() - at);
        channel.encode(&data[at..at + size], &mut wire).unwrap();
        at += size;
    }
    channel.close(&mut wire);
    let mut cursor = Cursor::new(&wire[..]);
    let mut found = Vec::new();
    while let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
        let start = usize::try_from(cursor.position()).unwrap();
        let end = start + usize::try_from(length).unwrap();
        assert!(header.is_final && header.mask.is_none());
        if header.opcode
            == tungstenite::protocol::frame::coding::OpCode::Data(
                tungstenite::protocol::frame::coding::Data::Binary,
            )
        {
            found.extend_from_slice(&wire[start..end]);
        }
        cursor.set_position(end as u64);
    }
    assert_eq!(found, data);
}
