//! From the server to the client, up to the farewell.

use std::task::{Context, Poll};

use proxyproto_mqtt::{Disconnect, Fault, Framing, PacketType, Reason, Sender};
use tokio::time::Instant;

use super::relay::{Farewell, GRACE, Relay, Said, last_packet};
use crate::cause::Cause;
use crate::listening::{Direction, PacketCounts};
use crate::wire::{CHUNK, Got, Scratch, WireError};

/// The state of this direction.
pub(super) struct Down {
    framing: Framing,
    /// Bytes that the server has sent behind its CONNACK.
    behind: Vec<u8>,
    /// The server has closed, or the relay listens to it no more.
    is_over: bool,
    /// The client has got a part of a packet and will not get the rest. So nothing can follow it.
    is_torn: bool,
    /// Set while the client does not take the bytes that wait for it.
    stuck: Option<Stuck>,
    /// The client sends no more, and since then neither side has moved the session on.
    pub(super) quiet_since: Option<Instant>,
    /// Boxed, because most sessions end without it.
    pub(super) words: Option<Box<LastWords>>,
}

/// What the two sides or their connections have said at the end.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    /// The error that has broken a connection.
    pub(super) trouble: String,
    pub(super) said: Said,
}

#[derive(Clone, Copy, Debug)]
struct Stuck {
    since: Instant,
    /// The number of bytes that waited then, with those in the kernel.
    waiting: usize,
}

impl Down {
    pub(super) fn new(framing: Framing, behind: Vec<u8>) -> Self {
        Self { framing, behind, is_over: false, is_torn: false, stuck: None, quiet_since: None, words: None }
    }

    pub(super) fn words(&mut self) -> &mut LastWords {
        self.words.get_or_insert_default()
    }

    /// Something goes on.
    pub(super) fn not_quiet(&mut self) {
        if self.quiet_since.is_some() {
            self.quiet_since = Some(Instant::now());
        }
    }

    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck.map(|stuck| stuck.since)
    }
}

impl Relay {
    /// Reads from the server and sends to the client, for as long as the client takes it.
    pub(super) fn pump_down(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        while !self.is_client_lost {
            match self.client.poll_flush(cx) {
                Poll::Pending => return self.note_stuck(),
                Poll::Ready(Ok(())) => self.down.stuck = None,
                Poll::Ready(Err(error)) => return self.client_takes_no_more(&error),
            }
            match self.farewell {
                Some(Farewell::Said) => return,
                Some(Farewell::Due(reason)) if self.down.is_over || self.down.framing.at_boundary() => {
                    self.say_farewell(cx, reason, &mut scratch.encoded);
                    continue;
                }
                _ => {}
            }
            if !self.down.behind.is_empty() {
                let behind = std::mem::take(&mut self.down.behind);
                self.pass_down(cx, &behind, &mut scratch.encoded);
                continue;
            }
            match self.server.poll_receive(cx, scratch, CHUNK) {
                Poll::Pending => return,
                Poll::Ready(Ok(Got::End)) => self.server_is_gone(None),
                Poll::Ready(Ok(got)) => {
                    self.down.not_quiet();
                    let bytes = got.bytes(&scratch.received, &scratch.decoded);
                    self.pass_down(cx, bytes, &mut scratch.encoded);
                }
                Poll::Ready(Err(error)) => self.server_is_gone(Some(error)),
            }
        }
    }

    /// Passes valid bytes on. While a farewell is due, only the rest of the current packet goes on.
    fn pass_down(&mut self, cx: &mut Context<'_>, bytes: &[u8], encoded: &mut Vec<u8>) {
        let mut counts = PacketCounts::default();
        let was_whole = self.down.framing.at_boundary();
        let scanned = match self.farewell {
            None => self.down.scan(bytes, &mut counts),
            Some(_) => self.down.scan_rest(bytes, &mut counts),
        };
        let passing = bytes.get(..scanned.passes).unwrap_or_default();
        self.count(Direction::Out, passing.len(), &counts);
        if let Err(error) = self.client.send(cx, passing, encoded) {
            return self.client_takes_no_more(&error);
        }
        if counts.of(PacketType::Disconnect) > 0 {
            self.read_disconnect(passing, scanned.last);
            self.farewell.get_or_insert(Farewell::Due(None));
            return self.server_is_gone(None);
        }
        if let Some(fault) = scanned.fault {
            self.down.is_over = true;
            // An earlier piece may have carried a part of the invalid packet to the client.
            self.down.is_torn = !was_whole && counts.sum() == 0;
            let cause = match fault.reason {
                Reason::PacketTooLarge => fault.reason.into(),
                _ => Cause::BrokerError,
            };
            self.end(cause, format!("the server: {}", fault.detail));
        }
    }

    /// Tells the client, behind the last packet, that nothing more comes.
    fn say_farewell(&mut self, cx: &mut Context<'_>, reason: Option<Reason>, encoded: &mut Vec<u8>) {
        let packet = reason.and_then(|reason| Disconnect::end(reason, self.version));
        if let Some(packet) = packet.filter(|_| !self.down.is_torn) {
            let mut counts = PacketCounts::default();
            counts.count(PacketType::Disconnect);
            self.count(Direction::Out, packet.raw().len(), &counts);
            // The next flush reports an error.
            let _ = self.client.send(cx, packet.raw(), encoded);
        }
        let _ = self.client.say_goodbye(cx);
        self.farewell = Some(Farewell::Said);
    }

    /// The server sends no more: the client gets the remaining bytes and the farewell.
    fn server_is_gone(&mut self, error: Option<WireError>) {
        self.down.is_over = true;
        self.down.is_torn = !self.down.framing.at_boundary();
        if let Some(error) = error {
            self.down.words().trouble = error.to_string();
        }
        self.up.stop();
        // Many a server closes a session without a word when another one replaces it. MQTT 5 has a word for that.
        let reason = self.handle.is_replaced().then_some(Reason::TakenOver);
        self.farewell.get_or_insert(Farewell::Due(reason));
        // Until then the client may take what is left.
        self.set_deadline(self.options.mqtt.send_timeout);
    }

    /// Stops sending to a client that takes no more. Its own bytes are still read, because a DISCONNECT may be among them.
    fn client_takes_no_more(&mut self, error: &WireError) {
        self.is_client_lost = true;
        self.down.words().trouble = error.to_string();
        self.set_deadline(GRACE);
    }

    fn read_disconnect(&mut self, whole: &[u8], size: u32) {
        if let Ok(packet) = Disconnect::decode(last_packet(whole, size), self.version, Sender::Server) {
            let said = &mut self.down.words().said;
            said.server_code = Some(packet.code());
            said.reason_string = packet.reason_string().map(str::to_owned);
        }
    }

    fn note_stuck(&mut self) {
        if self.down.stuck.is_none() {
            let since = Instant::now();
            self.down.stuck = Some(Stuck { since, waiting: self.waiting() });
            self.clock.at_most(since + self.options.mqtt.send_timeout);
        }
    }

    /// Decides about a client that has left bytes waiting for `send_timeout`: it is ended if it has taken nothing, or if too
    /// many bytes wait.
    pub(super) fn look_at_stuck_client(&mut self, now: Instant) {
        let Some(stuck) = self.down.stuck else { return };
        let waiting = self.waiting();
        if waiting >= stuck.waiting {
            self.end(Cause::SlowConsumer, format!("it has taken nothing, and {waiting} bytes wait"));
        } else if waiting > self.options.mqtt.max_send_buffer {
            let most = self.options.mqtt.max_send_buffer;
            self.end(Cause::SlowConsumer, format!("{waiting} bytes wait, at most {most} may"));
        } else {
            self.down.stuck = Some(Stuck { since: now, waiting });
            self.clock.at_most(now + self.options.mqtt.send_timeout);
        }
    }

    /// How many bytes wait for the client, here and in the kernel.
    fn waiting(&self) -> usize {
        self.client.unsent() + self.client.socket().unacknowledged()
    }
}

/// The result of scanning a piece of the stream.
struct Scanned {
    /// The number of bytes that go on.
    passes: usize,
    /// The size of the last packet that ends in the piece.
    last: u32,
    /// The fault behind the bytes that go on.
    fault: Option<Fault>,
}

impl Down {
    /// Counts the packets that end in these bytes.
    fn scan(&mut self, bytes: &[u8], counts: &mut PacketCounts) -> Scanned {
        let mut last = 0;
        let fault = self.framing.scan(bytes, |packet| {
            counts.count(packet.packet_type());
            last = packet.size();
        });
        let passes = if fault.is_ok() { bytes.len() } else { self.framing.boundary() };
        Scanned { passes, last, fault: fault.err() }
    }

    /// Like [`scan`](Self::scan), but stops at the end of the current packet.
    fn scan_rest(&mut self, bytes: &[u8], counts: &mut PacketCounts) -> Scanned {
        let mut passes = 0;
        let mut last = 0;
        while let Some(rest) =
            bytes.get(passes..).filter(|rest| !rest.is_empty() && !self.framing.at_boundary())
        {
            let needed = usize::try_from(self.framing.needed()).unwrap_or(usize::MAX);
            let piece = self.scan(rest.get(..needed).unwrap_or(rest), counts);
            (passes, last) = (passes + piece.passes, piece.last);
            if piece.fault.is_some() {
                return Scanned { passes, last, ..piece };
            }
        }
        Scanned { passes, last, fault: None }
    }
}
