//! The step upstream: the gateway chooses a server, sends it the CONNECT, and reads the answer. It can ask another server
//! until it has sent something to the client.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use proxyproto_mqtt::{
    Auth, Connack, Connect, EncodeError, Limits, PacketType, Property, Reason, Sender, Value, Version,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::registration::IdPlace;
use super::way::{Answer, TurnedAway, Visitor};
use crate::cause::Cause;
use crate::events::{Admission, Replace};
use crate::listening::Direction;
use crate::options::UpstreamOptions;
use crate::upstream::link::{self, Link};
use crate::upstream::{Place, Target, connect, header_of_client, listed, no_answer, password_of_client};
use crate::wire::{Socket, Wire, WireError};

/// A client that a server has let in.
pub(super) struct Entered {
    pub(super) server: Wire,
    /// Bytes that the server has sent behind its CONNACK.
    pub(super) behind: Vec<u8>,
    /// The CONNACK for the client.
    pub(super) connack: Connack,
    pub(super) client_id: String,
    /// In seconds; 0 means none.
    pub(super) keep_alive: u16,
    /// `None`: a broker in this process carries it.
    pub(super) place: Option<Place>,
    pub(super) id_place: IdPlace,
    pub(super) connect_time: Duration,
}

/// Why one server has not answered.
enum Failed {
    /// The gateway may ask another server.
    Next(WireError),
    Over(Box<TurnedAway>),
}

impl Visitor {
    /// Logs in upstream.
    pub(super) async fn enter(
        &mut self,
        received: &Connect,
        mut admission: Admission,
    ) -> Result<Entered, Box<TurnedAway>> {
        if let Some(stream) = admission.stream.take() {
            return self.enter_stream(received, admission.client_id, stream).await;
        }
        let options = self.shared.pool.options();
        let own_password = options.secret.as_ref().map(|secret| password_of_client(&self.arrival, secret));
        let connect = changed(received, &admission, own_password.as_deref())
            .map_err(|error| TurnedAway::new(Reason::AuthError, format!("cannot go upstream: {error}")))?;
        let header = header_of_client(&self.arrival, &options);
        let id_place = IdPlace::enter(&self.shared, connect.client_id(), self.token());
        let began = Instant::now();
        let (place, link, connack) = self.ask_until_available(&options, &header, &connect).await?;
        if let Some(reason) = connack.refused() {
            return Err(refused(reason, &connack, Some(&place)));
        }
        let assigned = match (received.client_id(), admission.client_id.as_deref()) {
            ("", assigned) => assigned,
            _ => None,
        };
        let connack = for_client(&connack, assigned, self.options.mqtt.max_packet_size);
        Ok(Entered {
            server: link.wire,
            behind: link.received,
            client_id: connack.assigned_client_identifier().unwrap_or(connect.client_id()).to_owned(),
            keep_alive: connack.server_keep_alive().unwrap_or(connect.keep_alive()),
            connack,
            place: Some(place),
            id_place,
            connect_time: began.elapsed(),
        })
    }

    /// Hands the client to the broker at the other end of a stream, which knows the CONNECT.
    async fn enter_stream(
        &mut self,
        connect: &Connect,
        client_id: Option<String>,
        stream: OwnedFd,
    ) -> Result<Entered, Box<TurnedAway>> {
        let client_id = client_id.unwrap_or_else(|| connect.client_id().to_owned());
        let id_place = IdPlace::enter(&self.shared, &client_id, self.token());
        let began = Instant::now();
        let socket = Socket::adopt(stream, false)
            .map_err(|error| TurnedAway::new(Reason::AuthError, format!("its stream: {error}")))?;
        let mut link = Link { wire: Wire::new(socket, None), received: Vec::new() };
        let limits = Limits::new(Sender::Server, connect.version(), self.options.mqtt.max_packet_size);
        let answer = timeout(self.options.mqtt.auth_timeout, read_answer(&mut link, limits));
        let wrong = |detail: &str| broker_error(None, detail);
        let bytes = match self.unless_gone(answer).await? {
            Ok(Ok(Letter::Connack(bytes))) => bytes,
            Ok(Ok(Letter::Auth(_))) => return Err(wrong("an AUTH in the place of a CONNACK")),
            Ok(Err(Unread::Gone(error))) => return Err(wrong(&error.to_string())),
            Ok(Err(Unread::Wrong(detail))) => return Err(wrong(&detail)),
            Err(_) => return Err(wrong("no CONNACK in time")),
        };
        let connack = Connack::decode(&bytes, connect.version())
            .map_err(|fault| wrong(&format!("its CONNACK: {fault}")))?
            .to_owned();
        if let Some(reason) = connack.refused() {
            return Err(refused(reason, &connack, None));
        }
        Ok(Entered {
            server: link.wire,
            behind: link.received,
            connack,
            client_id,
            keep_alive: connect.keep_alive(),
            place: None,
            id_place,
            connect_time: began.elapsed(),
        })
    }

    /// Asks the servers; a broker of this process again where it says that it is unavailable. rmqtt 0.24 says so to a login that
    /// comes in the moment in which the last session of its client id is being put away.
    async fn ask_until_available(
        &mut self,
        options: &UpstreamOptions,
        header: &[u8],
        connect: &Connect,
    ) -> Result<(Place, Link, Connack), Box<TurnedAway>> {
        let mut again = if options.secret.is_some() { MOST_AGAIN } else { 0 };
        loop {
            let found = self.find_server(options, header, connect).await?;
            if again == 0 || found.2.refused() != Some(Reason::UpstreamUnavailable) {
                return Ok(found);
            }
            again -= 1;
            self.unless_gone(tokio::time::sleep(BEFORE_AGAIN)).await?;
        }
    }

    /// Asks one server after the other until one answers.
    async fn find_server(
        &mut self,
        options: &UpstreamOptions,
        header: &[u8],
        connect: &Connect,
    ) -> Result<(Place, Link, Connack), Box<TurnedAway>> {
        let pool = Arc::clone(&self.shared.pool);
        let key = match connect.client_id() {
            "" => self.arrival.session_id.to_string(),
            client_id => client_id.to_owned(),
        };
        let mut tried: Vec<Arc<Target>> = Vec::new();
        let mut troubles: Vec<String> = Vec::new();
        loop {
            let mut place = pool.place(options, key.as_bytes(), &tried);
            if place.is_none() {
                // The first answers for new names may be on their way.
                let _ = self.unless_gone(timeout(options.connect_timeout, pool.until_resolved())).await?;
                place = pool.place(options, key.as_bytes(), &tried);
            }
            let Some(place) = place else {
                let detail = match troubles.len() {
                    0 => pool.why_none(),
                    _ => listed(troubles.into_iter()),
                };
                return Err(unavailable(tried.last(), detail));
            };
            let began = Instant::now();
            match self.attempt(&place, options, header, connect).await {
                Ok((link, connack)) => {
                    place.target().count_answer(began.elapsed());
                    return Ok((place, link, connack));
                }
                Err(Failed::Over(turned_away)) => return Err(turned_away),
                Err(Failed::Next(error)) => {
                    place.target().count_failure();
                    troubles.push(format!("{}: {error}", place.target().address));
                    tried.push(Arc::clone(place.target()));
                }
            }
        }
    }

    /// Asks one server.
    async fn attempt(
        &mut self,
        place: &Place,
        options: &UpstreamOptions,
        header: &[u8],
        packet: &Connect,
    ) -> Result<(Link, Connack), Failed> {
        let limit = options.connect_timeout;
        let reached = self.unless_gone(async {
            let socket = connect(&place.target().address, options, options.keepalive).await?;
            link::open(socket, &place.target().name, options, header, packet.raw()).await
        });
        let mut link = reached.await.map_err(Failed::Over)?.map_err(Failed::Next)?;
        let limits = Limits::new(Sender::Server, packet.version(), self.options.mqtt.max_packet_size);
        let answer = timeout(limit, read_answer(&mut link, limits));
        let mut answer = match self.unless_gone(answer).await.map_err(Failed::Over)? {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unread::Gone(error))) => return Err(Failed::Next(error)),
            Ok(Err(Unread::Wrong(detail))) => {
                return Err(Failed::Over(broker_error(Some(place), &detail)));
            }
            Err(_) => return Err(Failed::Next(WireError::Io(no_answer(limit)))),
        };
        let deadline = Instant::now() + self.options.mqtt.auth_timeout;
        while let Letter::Auth(auth) = answer {
            answer = self
                .carry_auth(place, &mut link, packet, &auth, limits, deadline)
                .await
                .map_err(Failed::Over)?;
        }
        let Letter::Connack(bytes) = answer else { return Err(Failed::Next(link::closed())) };
        match Connack::decode(&bytes, packet.version()) {
            Ok(connack) => Ok((link, connack.to_owned())),
            Err(fault) => Err(Failed::Over(broker_error(Some(place), &format!("its CONNACK: {fault}")))),
        }
    }

    /// Carries out one step of an authentication: the server's AUTH goes to the client, the client's to the server, and the
    /// server answers. From then on no other server can be asked.
    async fn carry_auth(
        &mut self,
        place: &Place,
        link: &mut Link,
        connect: &Connect,
        auth: &[u8],
        limits: Limits,
        deadline: Instant,
    ) -> Result<Letter, Box<TurnedAway>> {
        let is_wanted = connect.authentication_method().is_some();
        if !is_wanted || Auth::decode(auth, Sender::Server).is_err() {
            return Err(broker_error(
                Some(place),
                "an AUTH that the client has not asked for, or not a valid one",
            ));
        }
        self.count(Direction::Out, auth, PacketType::Auth);
        let exchange = async {
            self.client.send_all(auth).await.map_err(|_| gone())?;
            let answer = self.read_auth().await?;
            self.count(Direction::In, &answer, PacketType::Auth);
            let answered = async {
                link.wire.send_all(&answer).await.map_err(Unread::Gone)?;
                read_answer(link, limits).await
            };
            self.unless_gone(answered).await?.map_err(|unread| match unread {
                Unread::Gone(error) => {
                    let detail = format!("{}: {error}, during the authentication", place.target().address);
                    unavailable(Some(place.target()), detail)
                }
                Unread::Wrong(detail) => broker_error(Some(place), &detail),
            })
        };
        let late = |_| TurnedAway::new(Reason::AuthError, "the authentication has not ended in time");
        timeout_at(deadline, exchange).await.map_err(late)?
    }

    /// The client's next AUTH.
    async fn read_auth(&mut self) -> Result<Vec<u8>, Box<TurnedAway>> {
        let limits = Limits::new(Sender::Client, Version::Mqtt5, self.options.mqtt.max_packet_size);
        poll_fn(|cx| {
            self.poll_visitor(cx)?;
            let header = limits
                .fixed_header(&self.received)
                .map_err(|fault| TurnedAway::new(Reason::MalformedConnect, fault.detail.to_string()))?;
            let Some(header) = header else {
                return if self.is_half_closed { Poll::Ready(Err(gone())) } else { Poll::Pending };
            };
            match header.packet_type() {
                PacketType::Auth => {}
                PacketType::Disconnect => return Poll::Ready(Err(gone())),
                other => {
                    let detail = format!("packet type {} during the authentication", other as u8);
                    return Poll::Ready(Err(TurnedAway::new(Reason::MalformedConnect, detail)));
                }
            }
            let size = header.size() as usize;
            if self.received.len() >= size {
                let auth: Vec<u8> = self.received.drain(..size).collect();
                return Poll::Ready(match Auth::decode(&auth, Sender::Client) {
                    Ok(_) => Ok(auth),
                    Err(fault) => Err(TurnedAway::new(Reason::MalformedConnect, fault.detail.to_string())),
                });
            }
            let is_full = self.received.len() >= self.options.mqtt.max_connect_size;
            if is_full || self.is_half_closed { Poll::Ready(Err(gone())) } else { Poll::Pending }
        })
        .await
    }
}

/// A packet that the server sends before the session begins.
enum Letter {
    Connack(Vec<u8>),
    Auth(Vec<u8>),
}

/// Why there is none.
enum Unread {
    Gone(WireError),
    /// The packet does not belong here.
    Wrong(String),
}

/// Reads the server's next packet.
async fn read_answer(link: &mut Link, limits: Limits) -> Result<Letter, Unread> {
    loop {
        let header =
            limits.fixed_header(&link.received).map_err(|fault| Unread::Wrong(fault.detail.to_string()))?;
        if let Some(header) = header {
            let is_connack = match header.packet_type() {
                PacketType::Connack => true,
                PacketType::Auth => false,
                other => {
                    return Err(Unread::Wrong(format!(
                        "packet type {} in the place of a CONNACK",
                        other as u8
                    )));
                }
            };
            let size = header.size() as usize;
            if link.received.len() >= size {
                let packet: Vec<u8> = link.received.drain(..size).collect();
                return Ok(if is_connack { Letter::Connack(packet) } else { Letter::Auth(packet) });
            }
        }
        match link.wire.receive(&mut link.received, usize::MAX).await {
            Ok(true) => {}
            Ok(false) => return Err(Unread::Gone(link::closed())),
            Err(error) => return Err(Unread::Gone(error)),
        }
    }
}

/// The CONNECT that goes upstream.
fn changed(
    received: &Connect,
    admission: &Admission,
    own_password: Option<&[u8]>,
) -> Result<Connect, EncodeError> {
    let username = match &admission.username {
        Replace::Keep => received.username(),
        Replace::With(username) => Some(username.as_str()),
        Replace::Without => None,
    };
    let password = match &admission.password {
        Replace::Keep => received.password(),
        Replace::With(password) => Some(password.as_slice()),
        Replace::Without => None,
    };
    let password = own_password.or(password);
    let username = match username {
        None if own_password.is_some() && received.version() != Version::Mqtt5 => Some(""),
        username => username,
    };
    let client_id = admission.client_id.as_deref().unwrap_or(received.client_id());
    received.change().client_id(client_id).username(username).password(password).encode()
}

/// The CONNACK for the client. It says how large packets may be, and which id was chosen for the client.
fn for_client(connack: &Connack, assigned: Option<&str>, max_packet_size: u32) -> Connack {
    let size = connack.maximum_packet_size().unwrap_or(u32::MAX).min(max_packet_size);
    let mut properties = vec![Property { id: Property::MAXIMUM_PACKET_SIZE, value: Value::Four(size) }];
    if let Some(assigned) = assigned.filter(|_| connack.assigned_client_identifier().is_none()) {
        let value = Value::Text(assigned);
        properties.push(Property { id: Property::ASSIGNED_CLIENT_IDENTIFIER, value });
    }
    // An id that does not fit cannot have gone upstream.
    connack.with(&properties).unwrap_or_else(|_| connack.to_owned())
}

fn refused(reason: Reason, connack: &Connack, place: Option<&Place>) -> Box<TurnedAway> {
    let words = connack.reason_string();
    let detail = match words {
        Some(words) => format!("{}: {words}", connack.code_text()),
        None => connack.code_text().to_owned(),
    };
    Box::new(TurnedAway {
        answer: Answer::Packet(connack.raw().into()),
        server: place.map(|place| place.target().name.clone()),
        server_code: Some(connack.code()),
        reason_string: words.map(str::to_owned),
        ..*TurnedAway::new(reason, detail)
    })
}

/// No server has answered; this is the last that was asked.
fn unavailable(asked: Option<&Arc<Target>>, detail: String) -> Box<TurnedAway> {
    Box::new(TurnedAway {
        server: asked.map(|target| target.name.clone()),
        ..*TurnedAway::new(Reason::UpstreamUnavailable, detail)
    })
}

/// The server has broken the rules of MQTT. The answer tells the client that the fault is not its own.
fn broker_error(place: Option<&Place>, detail: &str) -> Box<TurnedAway> {
    let detail = match place {
        Some(place) => format!("{}: {detail}", place.target().address),
        None => format!("the broker: {detail}"),
    };
    Box::new(TurnedAway {
        answer: Answer::Of(Reason::UpstreamUnavailable),
        server: place.map(|place| place.target().name.clone()),
        ..*TurnedAway::new(Cause::BrokerError, detail)
    })
}

fn gone() -> Box<TurnedAway> {
    TurnedAway::new(Cause::ClosedEarly, "gone while it logged in")
}

/// How often a broker of this process is asked again.
const MOST_AGAIN: u32 = 10;
const BEFORE_AGAIN: Duration = Duration::from_millis(20);
