//! The relay: both directions of one session in one task, until it is over.
//!
//! The relay forwards bytes as they come. It keeps only what the other side does not take, and then it reads no more. It
//! uses the buffers of the thread, so an idle session holds none.
//!
//! A session ends for one reason: the first that occurs. It ends in one of three ways:
//!
//! - The client sends a DISCONNECT or closes. The server gets the remaining bytes and then the end of the stream. The relay
//!   listens to it until it closes too.
//! - The server closes. The client gets the remaining bytes.
//! - The gateway ends the session. Nothing more of the client goes to the server. The client gets the rest of the packet
//!   that is on its way, and then the DISCONNECT.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proxyproto_mqtt::{Framing, Limits, Reason, Sender, Version};
use tokio::time::Instant;

use super::clock::Clock;
use super::downward::Down;
use super::pace::Pace;
use super::upward::Up;
use crate::cause::Cause;
use crate::listening::{Direction, Listening, PacketCounts};
use crate::options::Options;
use crate::registry::{Ending, Handle};
use crate::wire::{Wire, WireError, with_scratch};

/// A session that the server has accepted.
pub(crate) struct Relay {
    pub(super) handle: Arc<Handle>,
    pub(super) listening: Arc<Listening>,
    pub(super) worker: usize,
    pub(super) options: Arc<Options>,
    pub(super) client: Wire,
    pub(super) server: Wire,
    pub(super) up: Up,
    pub(super) down: Down,
    pub(super) version: Version,
    /// `None` means that the client may be silent for ever.
    pub(super) keep_alive: Option<Duration>,
    pub(super) clock: Clock,
    /// When the gateway started.
    pub(super) start: Instant,
    pub(super) last_seen: Instant,
    /// Why the session ends; `None` while it goes on.
    end: Option<Ending>,
    /// Set once the gateway ends the session: the client gets this behind the packet that is on its way.
    pub(super) farewell: Option<Farewell>,
    /// At this time the session is over, whatever is left to send.
    deadline: Option<Instant>,
    /// Nothing more can be sent to the client.
    pub(super) is_client_lost: bool,
    /// The handle knows the task.
    is_registered: bool,
}

/// The farewell behind the last packet for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The DISCONNECT for this reason must be sent, if the reason has one.
    Due(Option<Reason>),
    /// The relay has sent it, as far as the client takes it.
    Said,
}

/// The parts of a new relay.
pub(crate) struct Beginning {
    pub(crate) handle: Arc<Handle>,
    pub(crate) listening: Arc<Listening>,
    pub(crate) worker: usize,
    pub(crate) options: Arc<Options>,
    pub(crate) client: Wire,
    pub(crate) server: Wire,
    /// Bytes that the client has sent behind its CONNECT.
    pub(crate) early: Vec<u8>,
    /// Bytes that the server has sent behind its CONNACK.
    pub(crate) behind: Vec<u8>,
    pub(crate) version: Version,
    /// In seconds; 0 is none.
    pub(crate) keep_alive: u16,
    /// When the gateway started.
    pub(crate) start: Instant,
}

/// What the DISCONNECT packets of a session have said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The code of the server's (MQTT 5).
    pub(crate) server_code: Option<u8>,
    /// The words of the server (MQTT 5).
    pub(crate) reason_string: Option<String>,
    /// How long the client wants its session kept from then on, in seconds, if it says so (MQTT 5).
    pub(crate) session_expiry: Option<u32>,
}

/// A session that is over.
pub(crate) struct Over {
    pub(crate) ending: Ending,
    /// The server has closed the session, and the reason is not known yet.
    pub(crate) is_closed_by_server: bool,
    pub(crate) said: Said,
    /// The client's connection, if the client may still have something to read.
    pub(crate) client: Option<Wire>,
    pub(crate) server: Wire,
}

impl Relay {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { options, version, keep_alive, .. } = beginning;
        let now = Instant::now();
        let framing = |sender| Framing::new(Limits::new(sender, version, options.mqtt.max_packet_size));
        let mut relay = Self {
            up: Up::new(
                framing(Sender::Client),
                options.mqtt.strict,
                Pace::new(&options.mqtt.publish, now),
                beginning.early,
            ),
            down: Down::new(framing(Sender::Server), beginning.behind),
            handle: beginning.handle,
            listening: beginning.listening,
            worker: beginning.worker,
            options,
            client: beginning.client,
            server: beginning.server,
            version,
            keep_alive: (keep_alive > 0).then(|| Duration::from_secs(keep_alive.into())),
            clock: Clock::default(),
            start: beginning.start,
            last_seen: now,
            end: None,
            farewell: None,
            deadline: None,
            is_client_lost: false,
            is_registered: false,
        };
        if let Some(patience) = relay.patience() {
            relay.clock.at_most(now + patience);
        }
        relay
    }

    /// Relays; ready when the session is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_registered {
            self.is_registered = true;
            self.handle.register(cx.waker());
        }
        if let Some(ending) = self.handle.take_ending() {
            self.end(ending.cause, ending.detail);
        }
        loop {
            with_scratch(|scratch| {
                self.pump_up(cx, scratch);
                // This comes second, because `pump_up` may end the session and leave a farewell for the client.
                self.pump_down(cx, scratch);
            });
            if self.is_over() {
                return Poll::Ready(());
            }
            match self.clock.poll_fired(cx) {
                Poll::Ready(()) => self.look_at_deadlines(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ends the session for a reason of ours.
    pub(super) fn end(&mut self, cause: Cause, detail: impl Into<String>) {
        if self.farewell.is_some() {
            return;
        }
        self.note(cause, detail);
        self.up.stop();
        self.farewell = Some(Farewell::Due(cause.reason()));
        self.set_deadline(GRACE);
        if cause == Cause::SlowConsumer {
            // The client does not read, and the kernel would keep its bytes for minutes.
            self.client.socket().forget_unsent();
            self.is_client_lost = true;
        }
    }

    /// Notes why the session ends. Later reasons are ignored.
    pub(super) fn note(&mut self, cause: Cause, detail: impl Into<String>) {
        self.end.get_or_insert_with(|| Ending { cause, detail: detail.into() });
    }

    /// The client has said goodbye. It and the server have a while to close.
    pub(super) fn client_says_goodbye(&mut self) {
        self.note(Cause::Disconnect, "");
        self.up.stop_behind();
        self.set_deadline(GOODBYE);
    }

    /// The client sends no more. It may still read, for as long as something comes: a server that was told the end and
    /// does not close would hold the session for ever, because a client without keep-alive is never too silent.
    pub(super) fn client_closes(&mut self) {
        self.note(Cause::ConnectionLost, "");
        self.up.stop_behind();
        let now = Instant::now();
        self.down.quiet_since = Some(now);
        self.clock.at_most(now + self.options.mqtt.send_timeout);
    }

    /// The client cannot be reached any more.
    pub(super) fn client_is_lost(&mut self, error: &WireError) {
        self.note(Cause::ConnectionLost, error.to_string());
        self.up.stop_behind();
        self.is_client_lost = true;
        // Until then the server may take what the client has sent.
        self.set_deadline(GRACE);
    }

    /// The session is over after this time at the latest.
    pub(super) fn set_deadline(&mut self, after: Duration) {
        let deadline = Instant::now() + after;
        if self.deadline.is_none_or(|other| deadline < other) {
            self.deadline = Some(deadline);
            self.clock.at_most(deadline);
        }
    }

    /// The client has sent something now.
    pub(super) fn client_seen(&mut self) {
        self.last_seen = Instant::now();
        self.handle.meter.seen(self.last_seen.duration_since(self.start));
    }

    /// Counts bytes and packets that go on.
    pub(super) fn count(&self, direction: Direction, bytes: usize, packets: &PacketCounts) {
        self.handle.meter.count(direction, bytes, packets.sum());
        if let Some(shard) = self.listening.shard(self.worker) {
            shard.count(direction, bytes, packets);
        }
    }

    /// How long the client may be silent (MQTT-3.1.2-24).
    fn patience(&self) -> Option<Duration> {
        Some(self.keep_alive?.mul_f64(self.options.mqtt.keepalive_factor))
    }

    fn is_over(&self) -> bool {
        let is_late = || self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_done = if self.is_client_lost {
            self.up.is_over()
        } else {
            self.farewell == Some(Farewell::Said) && self.client.unsent() == 0
        };
        is_done || is_late()
    }

    /// Takes the session apart when it is over.
    pub(crate) fn into_over(self) -> Over {
        let Self { end, is_client_lost, client, server, down, .. } = self;
        let words = down.words.map(|words| *words).unwrap_or_default();
        let trouble = words.trouble;
        let has_no_reason = end.is_none();
        let ending = end.unwrap_or_else(|| {
            let cause = match (is_client_lost, trouble.is_empty()) {
                (true, _) => Cause::ConnectionLost,
                // Neither the client nor the gateway has ended it.
                (false, true) => Cause::UpstreamClosed,
                (false, false) => Cause::UpstreamLost,
            };
            Ending { cause, detail: trouble }
        });
        Over {
            ending,
            is_closed_by_server: has_no_reason && !is_client_lost,
            said: words.said,
            client: (!is_client_lost).then_some(client),
            server,
        }
    }

    /// Ends the session if a deadline has passed, and sets the clock for the next one.
    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        let mut next = self.deadline;
        let mut is_due = |when: Instant| {
            if when > now {
                next = Some(next.map_or(when, |next| next.min(when)));
            }
            when <= now
        };
        // While we do not read from the client, its silence does not count.
        let is_read = self.server.unsent() == 0 && !self.up.is_held();
        let since = if is_read { self.last_seen } else { now };
        let is_silent = self.patience().is_some_and(|patience| is_due(since + patience));
        if !is_read && self.up.partial_since.is_some() {
            self.up.partial_since = Some(now);
        }
        let is_partial =
            self.up.partial_since.is_some_and(|since| is_due(since + self.options.mqtt.packet_timeout));
        let is_stuck =
            self.down.stuck_since().is_some_and(|since| is_due(since + self.options.mqtt.send_timeout));
        if let Some(paused_until) = self.up.paused_until {
            is_due(paused_until);
        }
        // A client that does not take what has come, or must wait itself, is dealt with above.
        let has_reason = self.down.stuck_since().is_some() || self.up.paused_until.is_some();
        let is_quiet = self
            .down
            .quiet_since
            .map(|since| if has_reason { now } else { since })
            .is_some_and(|since| is_due(since + self.options.mqtt.send_timeout));
        if let Some(next) = next.filter(|next| *next > now) {
            self.clock.at_most(next);
        }
        if self.farewell.is_some() {
            return;
        }
        if is_partial {
            self.end(Cause::PacketTimeout, "");
        } else if is_silent {
            self.end(Reason::KeepAlive.into(), "");
        } else if is_stuck {
            self.look_at_stuck_client(now);
        } else if is_quiet {
            self.end(Cause::ConnectionLost, "");
        }
    }
}

/// The last packet of these bytes, which has this size. Empty if it began in an earlier piece of the stream.
pub(super) fn last_packet(bytes: &[u8], size: u32) -> &[u8] {
    let start = usize::try_from(size).ok().and_then(|size| bytes.len().checked_sub(size));
    start.and_then(|start| bytes.get(start..)).unwrap_or_default()
}

/// How long the remaining bytes may take to go out when the gateway ends a session or the client is lost.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How long the two sides may take to close after the client's DISCONNECT.
const GOODBYE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
