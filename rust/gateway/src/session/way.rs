//! The way of one connection through its steps, and what follows when a step fails.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use proxyproto_acceptor::Permit;
use proxyproto_mqtt::{Connack, Connect, PacketType, Reason, Version};
use tokio::time::{sleep, timeout};

use super::entering::Entered;
use super::registration::{IdPlace, Registration};
use super::relay::{Beginning, GRACE, Relay};
use crate::arrival::Arrival;
use crate::cause::Cause;
use crate::channel::{Remote, Stage};
use crate::events::{Event, Refused, Token, Welcomed};
use crate::listening::{Direction, Guest, Listening, PacketCounts};
use crate::options::Options;
use crate::registry::Ending;
use crate::server_name::ServerName;
use crate::shared::Shared;
use crate::upstream::Place;
use crate::wire::{Socket, Wire};
use crate::worker::Seat;

/// A connection that a listener has let in.
pub(crate) struct Arrived {
    pub(crate) fd: OwnedFd,
    pub(crate) is_tcp: bool,
    pub(crate) arrival: Arrival,
    pub(crate) guest: Guest,
    pub(crate) listening: Arc<Listening>,
    /// Held until the connection ends.
    pub(crate) permit: Permit,
    pub(crate) seat: Seat,
}

/// Serves a connection to its end, on the worker that runs this.
///
/// A task never gives memory back. So the parts that only the beginning and the end need are boxed.
pub(crate) fn serve(arrived: Arrived, shared: Arc<Shared>) -> impl Future<Output = ()> {
    let Arrived { fd, is_tcp, arrival, guest, listening, permit, seat } = arrived;
    let worker = seat.worker;
    let log_in = Box::pin(async move {
        let socket = Socket::adopt(fd, is_tcp).ok()?;
        let mut visitor = Visitor::new(socket, arrival, listening, worker, shared);
        let session = match visitor.way().await {
            Ok(entered) => visitor.begin(entered).await,
            Err(turned_away) => {
                visitor.turn_away(turned_away).await;
                None
            }
        };
        // Not earlier: a client that does not read its answer counts until it has gone.
        drop(guest);
        session
    });
    async move {
        if let Some(mut session) = log_in.await {
            poll_fn(|cx| session.relay.poll(cx)).await;
            Box::pin(session.end()).await;
        }
        drop((permit, seat));
    }
}

/// A connection that has no session yet.
pub(super) struct Visitor {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Arc<Options>,
    pub(super) listening: Arc<Listening>,
    pub(super) worker: usize,
    pub(super) client: Wire,
    pub(super) arrival: Arc<Arrival>,
    /// Bytes that have been read and not used yet.
    pub(super) received: Vec<u8>,
    /// The client sends no more. It may still read.
    pub(super) is_half_closed: bool,
    pub(super) connect: Option<Arc<Connect>>,
    pub(super) registration: Option<Registration>,
}

impl Visitor {
    fn new(
        socket: Socket,
        arrival: Arrival,
        listening: Arc<Listening>,
        worker: usize,
        shared: Arc<Shared>,
    ) -> Self {
        let options = shared.options();
        // The connection works without these options too.
        let _ = socket.tune(options.mqtt.keepalive);
        let channel =
            listening.options().channel.as_ref().map(|factory| factory.open(Remote::Client(&arrival)));
        Self {
            shared,
            options,
            listening,
            worker,
            client: Wire::new(socket, channel),
            arrival: Arc::new(arrival),
            received: Vec::new(),
            is_half_closed: false,
            connect: None,
            registration: None,
        }
    }

    async fn way(&mut self) -> Result<Entered, Box<TurnedAway>> {
        self.open_channel().await?;
        let connect = self.read_connect().await?;
        let admission = self.ask(&connect).await?;
        self.enter(&connect, admission).await
    }

    /// Begins the session of a client that a server has let in; `None` if it cannot be.
    async fn begin(mut self, entered: Entered) -> Option<Session> {
        let Entered { server, behind, connack, client_id, keep_alive, place, id_place, connect_time } =
            entered;
        let version = self.connect.as_ref()?.version();
        self.count_out(connack.raw(), PacketType::Connack);
        let mut registration = self.registration.take()?;
        registration.welcome();
        self.shared.events.push(Event::Welcomed(Welcomed {
            token: registration.token(),
            server: place.as_ref().map(|place| place.target().name.clone()),
            connect_time,
            client_id,
            keep_alive,
            session_present: connack.session_present(),
            reason_string: connack.reason_string().map(str::to_owned),
        }));
        // The relay sends what the client does not take now, and sees any error.
        let _ = self.client.send_now(connack.raw()).await;
        let relay = Box::new(Relay::new(Beginning {
            handle: Arc::clone(&registration.handle),
            listening: self.listening,
            worker: self.worker,
            options: self.options,
            client: self.client,
            server,
            early: self.received,
            behind,
            version,
            keep_alive,
            start: self.shared.started.0,
        }));
        Some(Session { relay, registration, place, id_place })
    }

    /// Answers a client that gets no session, tells of it, and lets it read the answer.
    async fn turn_away(mut self, turned_away: Box<TurnedAway>) {
        let TurnedAway { cause, detail, answer, version, .. } = *turned_away;
        let TurnedAway { server, server_code, reason_string, client_id, is_bridge_probe, .. } = *turned_away;
        let version = self.connect.as_ref().map(|connect| connect.version()).or(version);
        let reason = match answer {
            Answer::Packet(_) => None,
            Answer::Of(reason) => Some(reason),
            Answer::OfCause => cause.reason(),
        };
        let connack = reason.and_then(|reason| Connack::refuse(reason, version.unwrap_or(Version::Mqtt311)));
        // A channel that is not open carries no packet.
        let is_open = self.client.stage() == Stage::Open;
        let packet = match (&answer, &connack) {
            _ if !is_open => None,
            (Answer::Packet(packet), _) => Some(&packet[..]),
            (_, connack) => connack.as_ref().map(Connack::raw),
        };
        if let Some(packet) = packet {
            self.count_out(packet, PacketType::Connack);
        }
        let answered = async {
            if let Some(packet) = packet {
                self.client.send_now(packet).await?;
            }
            self.client.goodbye_now().await
        }
        .await;
        let token = self.registration.as_ref().map(Registration::token);
        let told = Event::Refused(Refused {
            client_id,
            server,
            server_code,
            reason_string,
            is_bridge_probe,
            ..Refused::new(token, &self.arrival, self.connect.take(), cause, detail)
        });
        match self.registration.take() {
            Some(registration) => {
                registration.forget();
                self.shared.events.push(told);
            }
            None => drop(self.shared.events.offer(told)),
        }
        if answered.is_ok() && cause != Cause::ClosedEarly {
            self.client.linger(GRACE).await;
        }
    }

    /// The token of the login. Before the login is registered this is 0, which no login has.
    pub(super) fn token(&self) -> Token {
        self.registration.as_ref().map_or(Token::new(0), Registration::token)
    }

    pub(super) fn count_out(&self, packet: &[u8], packet_type: PacketType) {
        self.count(Direction::Out, packet, packet_type);
    }

    /// Counts one packet.
    pub(super) fn count(&self, direction: Direction, packet: &[u8], packet_type: PacketType) {
        let mut counts = PacketCounts::default();
        counts.count(packet_type);
        if let Some(shard) = self.listening.shard(self.worker) {
            shard.count(direction, packet.len(), &counts);
        }
        if let Some(registration) = &self.registration {
            registration.handle.meter.count(direction, packet.len(), counts.sum());
        }
    }
}

/// Why a visitor gets no session.
pub(super) struct TurnedAway {
    pub(super) cause: Cause,
    pub(super) detail: String,
    pub(super) answer: Answer,
    /// The server that has refused or failed it.
    pub(super) server: Option<ServerName>,
    /// The code of its CONNACK.
    pub(super) server_code: Option<u8>,
    pub(super) reason_string: Option<String>,
    /// The client id of an invalid CONNECT, if it could be read.
    pub(super) client_id: String,
    pub(super) version: Option<Version>,
    pub(super) is_bridge_probe: bool,
}

/// The answer to the client.
pub(super) enum Answer {
    /// The answer that the table of reasons has for the cause.
    OfCause,
    /// The answer that the table has for this reason.
    Of(Reason),
    /// This packet.
    Packet(Box<[u8]>),
}

impl TurnedAway {
    /// Boxed, because it is large and rare.
    pub(super) fn new(cause: impl Into<Cause>, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            cause: cause.into(),
            detail: detail.into(),
            answer: Answer::OfCause,
            server: None,
            server_code: None,
            reason_string: None,
            client_id: String::new(),
            version: None,
            is_bridge_probe: false,
        })
    }
}

impl From<Ending> for Box<TurnedAway> {
    fn from(Ending { cause, detail }: Ending) -> Self {
        TurnedAway::new(cause, detail)
    }
}

/// A session, and everything that it holds until its end.
struct Session {
    relay: Box<Relay>,
    registration: Registration,
    /// `None`: a broker in this process carries it.
    place: Option<Place>,
    id_place: IdPlace,
}

impl Session {
    /// Sends the event about the end, and lets the client read the last bytes.
    async fn end(self) {
        let Self { relay, registration, place, id_place } = self;
        let mut over = relay.into_over();
        let mut ending = over.ending;
        if place.is_none() {
            // A broker in this process settles the session before anybody sees the end, so that whoever comes back at once
            // finds it settled.
            over.server.linger(SETTLE).await;
        }
        drop(over.server);
        let tell = async {
            if over.is_closed_by_server {
                ending.cause =
                    why_closed(ending.cause, over.said.server_code, place.as_ref(), &registration).await;
            }
            drop((place, id_place));
            registration.end(ending, over.said);
        };
        let linger = async {
            if let Some(mut client) = over.client {
                client.linger(GRACE).await;
            }
        };
        tokio::join!(tell, linger);
    }
}

/// How long a broker in this process may take to let go of a session that is over.
const SETTLE: Duration = Duration::from_secs(5);

/// Finds out why a server has closed a session: another session has taken the client id over, the server has gone, or the
/// server wanted to.
async fn why_closed(
    cause: Cause,
    server_code: Option<u8>,
    place: Option<&Place>,
    registration: &Registration,
) -> Cause {
    if server_code == Reason::TakenOver.disconnect()
        || server_code.is_none() && registration.handle.is_replaced()
    {
        return Reason::TakenOver.into();
    }
    let Some(place) = place else { return Cause::BrokerError };
    if cause == Cause::UpstreamLost {
        return cause;
    }
    // The connections of a killed process close like any others, so ask whether the server is still there.
    let limit = registration.shared.pool.options().connect_timeout;
    for pause in [Duration::ZERO, SETTLES] {
        sleep(pause).await;
        if !matches!(timeout(limit, place.target().is_there()).await, Ok(true)) {
            return Cause::UpstreamLost;
        }
    }
    Cause::UpstreamClosed
}

/// How long a killed process may take to close all that it had open. Linux closes what was opened last first, so a listening
/// socket goes last: behind 10,000 connections after 165 ms (Linux 6, 2 cores), and until then it takes new ones.
const SETTLES: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle session takes 2.0 KiB, of which these are a half (HAProxy: 3.3; `benches/run gateway`).
    #[test]
    fn what_a_session_holds_is_small() {
        fn task<F: Future>(_: fn(Arrived, Arc<Shared>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(task(serve) <= 320, "{}", task(serve));
        assert!(size_of::<Relay>() <= 704, "{}", size_of::<Relay>());
    }
}
