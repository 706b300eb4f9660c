//! From the client to the server. Valid packets go on; an invalid one ends the session.

use std::task::{Context, Poll};

use proxyproto_mqtt::{Disconnect, Fault, Framing, PacketType, Sender, Status, Strict};
use tokio::time::Instant;

use super::pace::Pace;
use super::relay::{Relay, last_packet};
use crate::cause::Cause;
use crate::listening::{Direction, PacketCounts};
use crate::wire::{CHUNK, Got, Scratch, WireError};

/// The state of this direction.
pub(super) struct Up {
    framing: Framing,
    /// Whether each packet must be whole and checked before it goes on.
    is_strict: bool,
    pace: Option<Box<Pace>>,
    /// Bytes that have been read and wait to go on.
    held: Vec<u8>,
    /// `held` is part of a packet that must be whole before it goes on.
    holds_partial: bool,
    state: State,
    /// When the incomplete packet began.
    pub(super) partial_since: Option<Instant>,
    /// A PUBLISH waits until then, because the client publishes too fast.
    pub(super) paused_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The relay reads no more. The server gets the remaining bytes and then the end.
    Closing,
    /// The server's channel has said goodbye, as far as the server takes it.
    Closed,
    /// The server has got the end of the stream, or will not get it.
    Over,
}

impl Up {
    pub(super) fn new(framing: Framing, is_strict: bool, pace: Option<Pace>, early: Vec<u8>) -> Self {
        Self {
            framing,
            is_strict,
            pace: pace.map(Box::new),
            held: early,
            holds_partial: false,
            state: State::Open,
            partial_since: None,
            paused_until: None,
        }
    }

    /// Stops the direction at once.
    pub(super) fn stop(&mut self) {
        self.state = State::Over;
        self.held = Vec::new();
        self.partial_since = None;
        self.paused_until = None;
    }

    /// Reads no more. The bytes that have been read go on, and then the end.
    pub(super) fn stop_behind(&mut self) {
        if self.state == State::Open {
            self.state = State::Closing;
            self.partial_since = None;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether bytes wait to go on for another reason than missing bytes.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty() && !self.holds_partial
    }

    /// Takes the part of a packet that must be whole before it goes on.
    fn take_partial(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.holds_partial) { std::mem::take(&mut self.held) } else { Vec::new() }
    }
}

impl Relay {
    /// Reads from the client and sends to the server, for as long as the server takes it.
    pub(super) fn pump_up(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        while !self.up.is_over() {
            match self.server.poll_flush(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                // The server may have sent a packet before. It says more than this error, so it is read first.
                Poll::Ready(Err(_)) => return self.server_takes_no_more(),
            }
            if self.up.is_held() {
                if self.up.paused_until.is_some_and(|until| Instant::now() < until) {
                    return;
                }
                let held = std::mem::take(&mut self.up.held);
                self.pass_up(cx, &held, &mut scratch.encoded);
                continue;
            }
            match self.up.state {
                State::Open => {}
                State::Closing => {
                    // The end follows when the server has taken this.
                    let _ = self.server.say_goodbye(cx);
                    self.up.state = State::Closed;
                    continue;
                }
                State::Closed | State::Over => {
                    let _ = self.server.socket().shut_down();
                    self.up.state = State::Over;
                    return;
                }
            }
            let most = if self.up.pace.is_some() { PACED_CHUNK } else { CHUNK };
            match self.client.poll_receive(cx, scratch, most) {
                Poll::Pending => return,
                Poll::Ready(Ok(Got::End)) => self.client_closes(),
                Poll::Ready(Ok(got)) => {
                    self.client_seen();
                    let bytes = got.bytes(&scratch.received, &scratch.decoded);
                    self.pass_up(cx, bytes, &mut scratch.encoded);
                }
                Poll::Ready(Err(WireError::Channel(fault))) => {
                    self.end(fault.cause.unwrap_or(Cause::ConnectionLost), fault.detail);
                }
                Poll::Ready(Err(error)) => self.client_is_lost(&error),
            }
        }
    }

    /// Passes valid bytes on, holds those that must wait, and ends the session for an invalid packet.
    fn pass_up(&mut self, cx: &mut Context<'_>, bytes: &[u8], encoded: &mut Vec<u8>) {
        // Appended in place: a large packet that comes in small pieces is copied once.
        let mut joined = self.up.take_partial();
        let had_partial = !joined.is_empty();
        let bytes = if had_partial {
            joined.extend_from_slice(bytes);
            joined.as_slice()
        } else {
            bytes
        };
        let was_whole = self.up.framing.at_boundary() && !had_partial;
        let mut counts = PacketCounts::default();
        let scanned = match (self.up.is_strict, &self.up.pace) {
            (true, _) => self.scan_strict(bytes, &mut counts),
            (false, Some(_)) => self.scan_paced(bytes, &mut counts),
            (false, None) => self.up.scan(bytes, &mut counts),
        };
        let (passing, rest) = bytes.split_at_checked(scanned.passes).unwrap_or((bytes, &[]));
        self.count(Direction::In, passing.len(), &counts);
        self.down.not_quiet();
        if self.server.send(cx, passing, encoded).is_err() {
            return self.server_takes_no_more();
        }
        if let Some(Fault { reason, detail, .. }) = scanned.fault {
            return self.end(reason.into(), detail.to_string());
        }
        if counts.of(PacketType::Disconnect) > 0 {
            let packet = last_packet(passing, scanned.last);
            if let Ok(packet) = Disconnect::decode(packet, self.version, Sender::Client) {
                self.down.words().said.session_expiry = packet.session_expiry_interval();
            }
            return self.client_says_goodbye();
        }
        if scanned.waits {
            self.hold(cx, rest, encoded);
        } else {
            self.up.holds_partial = !rest.is_empty();
            self.up.held = if had_partial && passing.is_empty() { joined } else { rest.to_vec() };
        }
        if self.up.framing.at_boundary() && !self.up.holds_partial {
            self.up.partial_since = None;
        } else if was_whole || counts.sum() > 0 || self.up.partial_since.is_none() {
            self.up.partial_since = Some(self.last_seen);
            self.clock.at_most(self.last_seen + self.options.mqtt.packet_timeout);
        }
    }

    /// Like [`Up::scan`], but stops in front of a PUBLISH that has to wait.
    fn scan_paced(&mut self, bytes: &[u8], counts: &mut PacketCounts) -> Scanned {
        let (mut passes, mut last, mut whole) = (0, 0, 0);
        while let Some(rest) = bytes.get(passes..).filter(|rest| !rest.is_empty()) {
            if self.up.framing.at_boundary() {
                whole = passes;
                if is_publish(rest) && !self.may_publish() {
                    return Scanned { passes, last, waits: true, fault: None };
                }
            }
            let piece = next_piece(&self.up.framing, rest);
            let piece = self.up.scan(piece, counts);
            if piece.fault.is_some() {
                return Scanned { passes: whole, last, ..piece };
            }
            (passes, last) = (passes + piece.passes, piece.last);
        }
        Scanned { passes, last, waits: false, fault: None }
    }

    /// Like [`scan_paced`](Self::scan_paced), but takes whole packets only, and checks them to their last byte.
    fn scan_strict(&mut self, bytes: &[u8], counts: &mut PacketCounts) -> Scanned {
        let strict = Strict::new(self.version, self.options.mqtt.max_packet_size);
        let (mut passes, mut last) = (0, 0);
        while let Some(rest) = bytes.get(passes..).filter(|rest| !rest.is_empty()) {
            match strict.read(rest) {
                Ok(Status::Partial { .. }) => break,
                Ok(Status::Complete(_)) if is_publish(rest) && !self.may_publish() => {
                    return Scanned { passes, last, waits: true, fault: None };
                }
                Ok(Status::Complete(header)) => {
                    counts.count(header.packet_type());
                    last = header.size();
                    passes += last as usize;
                }
                Err(fault) => return Scanned { passes, last, waits: false, fault: Some(fault) },
            }
        }
        Scanned { passes, last, waits: false, fault: None }
    }

    /// Whether a PUBLISH may go on now. If so, it is counted. A pause lasts half the keep-alive at most, because after a
    /// longer one the server would take the client for dead.
    fn may_publish(&mut self) -> bool {
        let now = Instant::now();
        let Some(pace) = &mut self.up.pace else { return true };
        let delay = pace.delay(now);
        if delay.is_zero() || self.up.paused_until.is_some_and(|until| until <= now) {
            pace.spend(now);
            self.up.paused_until = None;
            return true;
        }
        if self.up.paused_until.is_none() {
            let until = now + self.keep_alive.map_or(delay, |keep_alive| delay.min(keep_alive / 2));
            self.up.paused_until = Some(until);
            self.clock.at_most(until);
            if let Some(shard) = self.listening.shard(self.worker) {
                shard.count_publish_delay();
            }
        }
        false
    }

    /// Holds the bytes behind a PUBLISH that waits. A PINGREQ goes on all the same, because the client would take the server
    /// for dead.
    fn hold(&mut self, cx: &mut Context<'_>, bytes: &[u8], encoded: &mut Vec<u8>) {
        let mut counts = PacketCounts::default();
        let mut framing = self.up.framing.clone();
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(PINGREQ).filter(|_| framing.at_boundary()) {
                counts.count(PacketType::Pingreq);
                rest = behind;
                continue;
            }
            let piece = next_piece(&framing, rest);
            if framing.scan(piece, |_| ()).is_err() {
                // The fault is found again when these bytes go on.
                break;
            }
            self.up.held.extend_from_slice(piece);
            rest = rest.get(piece.len()..).unwrap_or_default();
        }
        self.up.held.extend_from_slice(rest);
        let pings = PINGREQ.repeat(counts.sum() as usize);
        self.count(Direction::In, pings.len(), &counts);
        if self.server.send(cx, &pings, encoded).is_err() {
            self.server_takes_no_more();
        }
    }

    /// Stops sending to a server that takes no more. Its own bytes are still read.
    fn server_takes_no_more(&mut self) {
        self.up.stop();
        self.set_deadline(super::relay::GRACE);
    }
}

/// The result of scanning a piece of the stream.
struct Scanned {
    /// The number of bytes that go on.
    passes: usize,
    /// The size of the last packet that ends among them.
    last: u32,
    /// Behind them is a PUBLISH that has to wait.
    waits: bool,
    /// The fault behind the bytes that go on.
    fault: Option<Fault>,
}

impl Up {
    /// Counts the packets that end in these bytes.
    fn scan(&mut self, bytes: &[u8], counts: &mut PacketCounts) -> Scanned {
        let mut last = 0;
        let scanned = self.framing.scan(bytes, |packet| {
            counts.count(packet.packet_type());
            last = packet.size();
        });
        let passes = if scanned.is_ok() { bytes.len() } else { self.framing.boundary() };
        Scanned { passes, last, waits: false, fault: scanned.err() }
    }
}

/// The next bytes that surely belong to one packet.
fn next_piece<'a>(framing: &Framing, rest: &'a [u8]) -> &'a [u8] {
    let needed = usize::try_from(framing.needed()).unwrap_or(usize::MAX).max(1);
    rest.get(..needed).unwrap_or(rest)
}

fn is_publish(packet: &[u8]) -> bool {
    packet.first().and_then(|first| PacketType::of(*first)) == Some(PacketType::Publish)
}

/// The size of a read from a client whose PUBLISH packets may have to wait.
const PACED_CHUNK: usize = 16 * 1024;

const PINGREQ: &[u8] = b"\xc0\0";
