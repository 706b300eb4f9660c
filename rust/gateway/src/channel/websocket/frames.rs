//! The frames of an open WebSocket. Their payload goes on as it comes: no message is kept until it is complete.

use proxyproto_mqtt::Reason;

use super::header::{Header, MAX_HEADER, Opcode, append};
use crate::cause::Cause;
use crate::channel::{ChannelFault, Flow};

/// An open WebSocket, as the server sees it.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The beginning of an incomplete header.
    head: [u8; MAX_HEADER],
    head_len: u8,
    frame: Option<Frame>,
    /// The size, so far, of the current message.
    message: Option<u64>,
    /// The payload of a control frame. It holds no memory while it is empty.
    control: Vec<u8>,
    is_closed: bool,
}

/// A frame whose header has been read.
#[derive(Debug)]
struct Frame {
    is_final: bool,
    opcode: Opcode,
    /// The mask, rotated so that its first byte belongs to the next byte of the payload.
    mask: [u8; 4],
    left: u64,
}

/// The end of a WebSocket: its code, the text for the peer, and the detail for the event.
struct Broken {
    code: u16,
    cause: Option<Cause>,
    detail: String,
}

impl Frames {
    /// Takes all of `received`. Appends the payload of binary messages to `mqtt`, and pongs and the answer to a close to
    /// `answer`.
    pub(super) fn decode(
        &mut self,
        mut received: &[u8],
        max_message_size: u32,
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        while !self.is_closed && !received.is_empty() {
            let step = match &mut self.frame {
                None => self.begin(&mut received, max_message_size),
                Some(frame) => {
                    let payload = frame.take(&mut received);
                    let into = if frame.opcode.is_control() { &mut self.control } else { &mut *mqtt };
                    let start = into.len();
                    into.extend_from_slice(payload);
                    frame.unmask(into.get_mut(start..).unwrap_or_default());
                    Ok(())
                }
            };
            // A frame without payload is over with its header.
            let step = step.and_then(|()| match self.frame.take_if(|frame| frame.left == 0) {
                Some(frame) => self.end_frame(&frame, answer),
                None => Ok(()),
            });
            if let Err(Broken { code, cause, detail }) = step {
                self.close(code, &detail, answer);
                return Err(ChannelFault { cause, detail: detail.into() });
            }
        }
        Ok(if self.is_closed { Flow::Ended } else { Flow::Open })
    }

    /// Appends a binary message.
    pub(super) fn encode(&self, mqtt: &[u8], wire: &mut Vec<u8>) {
        if !self.is_closed && !mqtt.is_empty() {
            append(Opcode::Binary, mqtt.len(), wire);
            wire.extend_from_slice(mqtt);
        }
    }

    /// Appends the close frame, unless one has been sent.
    pub(super) fn close(&mut self, code: u16, reason: &str, wire: &mut Vec<u8>) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        append(Opcode::Close, 2 + reason.len(), wire);
        wire.extend(code.to_be_bytes());
        wire.extend_from_slice(reason.as_bytes());
    }

    /// Takes bytes of the next header, and checks it once it is complete.
    fn begin(&mut self, received: &mut &[u8], max_message_size: u32) -> Result<(), Broken> {
        let (header, size) = loop {
            let held = usize::from(self.head_len);
            match Header::parse(self.head.get(..held).unwrap_or_default()).map_err(protocol_error)? {
                Ok(header) => break header,
                Err(needed) => {
                    let missing = (needed - held).min(received.len());
                    let (taken, rest) = received.split_at(missing);
                    *received = rest;
                    if let Some(place) = self.head.get_mut(held..held + missing) {
                        place.copy_from_slice(taken);
                    }
                    self.head_len += u8::try_from(missing).unwrap_or_default();
                    if held + missing < needed {
                        return Ok(());
                    }
                }
            }
        };
        debug_assert_eq!(size, usize::from(self.head_len), "no more is taken than belongs to it");
        self.head_len = 0;
        let Header { is_final, opcode, mask, length } = header;
        match (opcode, self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {}
            (Opcode::Text, _) => return Err(text_frame()),
            (Opcode::Binary, Some(_)) => return Err(protocol_error("a message inside another")),
            (Opcode::Continuation, None) => return Err(protocol_error("a fragment without a message")),
            (Opcode::Binary | Opcode::Continuation, begun) => {
                let size = begun.unwrap_or(0).saturating_add(length);
                if size > max_message_size.into() {
                    return Err(too_large(size, max_message_size));
                }
                self.message = Some(size);
            }
        }
        self.frame = Some(Frame { is_final, opcode, mask, left: length });
        Ok(())
    }

    fn end_frame(&mut self, frame: &Frame, answer: &mut Vec<u8>) -> Result<(), Broken> {
        match frame.opcode {
            Opcode::Continuation | Opcode::Binary | Opcode::Text => {
                self.message = self.message.filter(|_| !frame.is_final);
            }
            Opcode::Pong => self.control = Vec::new(),
            Opcode::Ping => {
                let payload = std::mem::take(&mut self.control);
                append(Opcode::Pong, payload.len(), answer);
                answer.extend_from_slice(&payload);
            }
            Opcode::Close => {
                let payload = std::mem::take(&mut self.control);
                check_close(&payload)?;
                // The code goes back, without the reason (RFC 6455, section 5.5.1).
                let code = payload.get(..2).unwrap_or_default();
                append(Opcode::Close, code.len(), answer);
                answer.extend_from_slice(code);
                self.is_closed = true;
            }
        }
        Ok(())
    }
}

impl Frame {
    /// Takes the bytes of the payload that have come.
    fn take<'a>(&mut self, received: &mut &'a [u8]) -> &'a [u8] {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(received.len());
        let (payload, rest) = received.split_at(count);
        *received = rest;
        self.left -= count as u64;
        payload
    }

    /// Unmasks the next bytes of the payload.
    fn unmask(&mut self, payload: &mut [u8]) {
        let (words, rest) = payload.as_chunks_mut();
        let mask = u32::from_ne_bytes(self.mask);
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ mask).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
        self.mask.rotate_left(rest.len());
    }
}

/// The payload of a close frame: none, or a code and a text.
fn check_close(payload: &[u8]) -> Result<(), Broken> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(())
        } else {
            Err(protocol_error("a close frame with half a code"))
        };
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(protocol_error("a close frame with a code that nobody may send")),
    }
    if str::from_utf8(reason).is_err() {
        return Err(Broken {
            code: INVALID_DATA,
            cause: None,
            detail: "a close frame that is not UTF-8".into(),
        });
    }
    Ok(())
}

fn protocol_error(detail: &'static str) -> Broken {
    Broken { code: PROTOCOL_ERROR, cause: None, detail: detail.into() }
}

/// MQTT-6.0.0-1
fn text_frame() -> Broken {
    Broken {
        code: UNSUPPORTED_DATA,
        cause: Some(Reason::MalformedPacket.into()),
        detail: "MQTT needs binary messages".into(),
    }
}

fn too_large(size: u64, max: u32) -> Broken {
    Broken {
        code: MESSAGE_TOO_BIG,
        cause: Some(Reason::PacketTooLarge.into()),
        detail: format!("a message of {size} bytes, at most {max} are read"),
    }
}

pub(super) const NORMAL_CLOSURE: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const INVALID_DATA: u16 = 1007;
const MESSAGE_TOO_BIG: u16 = 1009;

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tungstenite::protocol::frame::{Frame as TheirFrame, FrameHeader};

    use super::*;

    const MAX: u32 = 1000;

    /// What tungstenite makes of a frame of a client.
    fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let header =
            FrameHeader { is_final, opcode, mask: Some([1, 0x82, 0x43, 0xff]), ..FrameHeader::default() };
        let mut wire = Vec::new();
        TheirFrame::from_payload(header, payload.to_vec().into()).format(&mut wire).unwrap();
        wire
    }

    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const TEXT: OpCode = OpCode::Data(Data::Text);
    const CONTINUE: OpCode = OpCode::Data(Data::Continue);
    const PING: OpCode = OpCode::Control(Control::Ping);
    const PONG: OpCode = OpCode::Control(Control::Pong);
    const CLOSE: OpCode = OpCode::Control(Control::Close);

    type Outcome = (Vec<u8>, Vec<u8>, Result<Flow, ChannelFault>);

    fn decode(wire: &[u8], size: usize) -> Outcome {
        let mut frames = Frames::default();
        let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
        let mut flow = Ok(Flow::Open);
        for piece in wire.chunks(size.max(1)) {
            flow = frames.decode(piece, MAX, &mut mqtt, &mut answer);
            if flow.is_err() {
                break;
            }
        }
        (mqtt, answer, flow)
    }

    /// The outcome, which is the same in any pieces.
    fn outcome(wire: &[u8]) -> Outcome {
        let whole = decode(wire, wire.len());
        for size in 1..wire.len().min(300) {
            assert_eq!(decode(wire, size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn messages_in_any_pieces_and_fragments_with_pings_in_between() {
        let long: Vec<u8> = (0..700_u32).map(|at| at.to_le_bytes()[0]).collect();
        let wire = [
            frame(BINARY, true, b"one"),
            frame(BINARY, true, b""),
            frame(BINARY, false, &long[..3]),
            frame(PING, true, b"are you there"),
            frame(CONTINUE, false, &long[3..300]),
            frame(PONG, true, b"yes"),
            frame(CONTINUE, false, b""),
            frame(CONTINUE, true, &long[300..]),
            frame(PING, true, b""),
            frame(BINARY, true, &[9; MAX as usize]),
            frame(CLOSE, true, b"\x03\xe8bye"),
            frame(BINARY, true, b"behind the close"),
        ]
        .concat();
        let (mqtt, answer, flow) = outcome(&wire);
        assert!(mqtt == [b"one", &long[..], &[9; MAX as usize]].concat());
        assert_eq!(answer, b"\x8a\x0dare you there\x8a\x00\x88\x02\x03\xe8");
        assert_eq!(flow, Ok(Flow::Ended));
    }

    #[test]
    fn what_breaks_a_rule_is_told_and_closes() {
        let table: [(Vec<u8>, u16, Option<&str>, &str); 17] = [
            (frame(TEXT, true, b"hi"), 1003, Some("malformed-packet"), "MQTT needs binary messages"),
            (frame(TEXT, false, b""), 1003, Some("malformed-packet"), "MQTT needs binary messages"),
            (
                frame(BINARY, true, &[0; 1001]),
                1009,
                Some("packet-too-large"),
                "a message of 1001 bytes, at most 1000 are read",
            ),
            (
                [frame(BINARY, false, &[0; 900]), frame(CONTINUE, false, &[0; 101])].concat(),
                1009,
                Some("packet-too-large"),
                "a message of 1001 bytes, at most 1000 are read",
            ),
            (
                b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
                1009,
                Some("packet-too-large"),
                "a message of 9223372036854775807 bytes, at most 1000 are read",
            ),
            (
                b"\x82\xff\xff\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
                1002,
                None,
                "a frame whose length has the highest bit",
            ),
            (b"\x82\x01a".to_vec(), 1002, None, "a frame that is not masked"),
            (b"\xc2\x80".to_vec(), 1002, None, "a frame with reserved bits"),
            (b"\x83\x80".to_vec(), 1002, None, "a frame of an unknown kind"),
            (b"\x8b\x80".to_vec(), 1002, None, "a frame of an unknown kind"),
            (b"\x09\x80".to_vec(), 1002, None, "a control frame that is fragmented or too long"),
            (b"\x89\xfe".to_vec(), 1002, None, "a control frame that is fragmented or too long"),
            (frame(CONTINUE, true, b"x"), 1002, None, "a fragment without a message"),
            (
                [frame(BINARY, false, b"x"), frame(BINARY, true, b"")].concat(),
                1002,
                None,
                "a message inside another",
            ),
            (frame(CLOSE, true, b"\x03"), 1002, None, "a close frame with half a code"),
            (frame(CLOSE, true, b"\x03\xee"), 1002, None, "a close frame with a code that nobody may send"),
            (frame(CLOSE, true, b"\x03\xe8\xff"), 1007, None, "a close frame that is not UTF-8"),
        ];
        for (wire, code, cause, detail) in table {
            let good = frame(BINARY, true, b"good");
            let (mqtt, answer, flow) = outcome(&[good, wire].concat());
            let fault = flow.unwrap_err();
            assert_eq!((fault.cause.map(Cause::code), &*fault.detail), (cause, detail));
            assert!(mqtt.starts_with(b"good"));
            let (head, body) = answer.split_at(2);
            assert_eq!((head[0], usize::from(head[1])), (0x88, body.len()), "{detail}");
            assert_eq!(body, [&code.to_be_bytes(), detail.as_bytes()].concat());
        }
    }

    #[test]
    fn nothing_is_sent_behind_a_close() {
        let mut frames = Frames::default();
        let mut wire = Vec::new();
        frames.encode(b"", &mut wire);
        frames.encode(b"hi", &mut wire);
        frames.close(NORMAL_CLOSURE, "", &mut wire);
        frames.close(NORMAL_CLOSURE, "", &mut wire);
        frames.encode(b"hi", &mut wire);
        assert_eq!(wire, b"\x82\x02hi\x88\x02\x03\xe8");
        let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
        let flow = frames.decode(&frame(BINARY, true, b"late"), MAX, &mut mqtt, &mut answer);
        assert_eq!((flow, mqtt.len(), answer.len()), (Ok(Flow::Ended), 0, 0));
    }
}
