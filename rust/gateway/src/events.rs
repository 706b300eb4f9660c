//! The events of a gateway, and the answer to a login.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxyproto_acceptor::TakenRefusals;
use proxyproto_mqtt::Connect;

use crate::arrival::{Arrival, SessionId};
use crate::cause::Cause;
use crate::server_name::{ServerChange, ServerName};

/// An event. The events of one token come in the order Login, Welcomed, Ended, or Login, Refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client has sent its CONNECT and waits for a decision.
    Login(Login),
    /// A server has let the client in. Its CONNACK follows this event.
    Welcomed(Welcomed),
    /// A connection has ended without a session.
    Refused(Refused),
    /// A session has ended.
    Ended(Ended),
    /// What a listener has refused before its first byte of MQTT, and what it has to say for the log.
    Listener(ListenerReport),
    /// A server has gone down, or up again.
    Server(ServerChange),
}

/// The number of a login and of its session, unique within the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    /// The token of this number, as [`number`](Self::number) gave it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client has sent its CONNECT and waits for a decision: `admit` or `refuse`, within `auth_timeout`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Login {
    /// Names the login in the decision.
    pub token: Token,
    /// Whose connection it is.
    pub arrival: Arc<Arrival>,
    /// The CONNECT.
    pub connect: Arc<Connect>,
}

/// The changes to the CONNECT of a client that is let in, before it goes to a server; or who carries it instead.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Admission {
    /// The user name.
    pub username: Replace<String>,
    /// The password.
    pub password: Replace<Vec<u8>>,
    /// Another client id. A client of MQTT 5 that left the choice to the server gets it in the CONNACK.
    pub client_id: Option<String>,
    /// Our end of a stream of UNIX sockets (`socketpair(2)`), at whose other end a broker in this process carries the client.
    /// The broker knows the CONNECT from the login, so the stream begins with its CONNACK. Behind it comes what the client
    /// sends. No server is asked.
    pub stream: Option<OwnedFd>,
}

/// The change to a field of the CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Replace<T> {
    /// The field stays as it came.
    #[default]
    Keep,
    /// This value replaces it.
    With(T),
    /// The field is left out.
    Without,
}

/// A server has let the client in.
#[derive(Debug)]
#[non_exhaustive]
pub struct Welcomed {
    /// Whose session begins.
    pub token: Token,
    /// The server; `None` for a broker in this process.
    pub server: Option<ServerName>,
    /// The time from the first attempt to connect until the server's answer.
    pub connect_time: Duration,
    /// The session's client id: the one of the CONNECT, the one of the admission, or the server's choice.
    pub client_id: String,
    /// The client must send something within so many seconds; 0 means no limit. The server's value overrides the client's.
    pub keep_alive: u16,
    /// Whether the server has kept a session of this client id.
    pub session_present: bool,
    /// The words of the server (MQTT 5).
    pub reason_string: Option<String>,
}

/// A connection has ended without a session.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The token of its login, if there was a Login event.
    pub token: Option<Token>,
    /// Whose connection it was.
    pub arrival: Arc<Arrival>,
    /// The CONNECT, if it was complete and valid.
    pub connect: Option<Arc<Connect>>,
    /// The client id of an invalid CONNECT, if it could be read.
    pub client_id: String,
    /// Why.
    pub cause: Cause,
    /// What exactly, for people.
    pub detail: String,
    /// The server that has refused it or failed, where one has; the last that was asked.
    pub server: Option<ServerName>,
    /// The code of that server's CONNACK.
    pub server_code: Option<u8>,
    /// The words of that server (MQTT 5).
    pub reason_string: Option<String>,
    /// Whether a bridge of Mosquitto has asked for its private protocol. It comes again with the standard one.
    pub is_bridge_probe: bool,
}

impl Refused {
    pub(crate) fn new(
        token: Option<Token>,
        arrival: &Arc<Arrival>,
        connect: Option<Arc<Connect>>,
        cause: Cause,
        detail: String,
    ) -> Self {
        Self {
            token,
            arrival: Arc::clone(arrival),
            connect,
            client_id: String::new(),
            cause,
            detail,
            server: None,
            server_code: None,
            reason_string: None,
            is_bridge_probe: false,
        }
    }
}

/// A session has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Whose session it was.
    pub token: Token,
    /// Its id, as in its [`Arrival`].
    pub session_id: SessionId,
    /// Why it ended.
    pub cause: Cause,
    /// What exactly, for people.
    pub detail: String,
    /// The code of the server's DISCONNECT (MQTT 5).
    pub server_code: Option<u8>,
    /// The words of the server (MQTT 5).
    pub reason_string: Option<String>,
    /// How long the client wants its session kept from now on, in seconds, if its DISCONNECT says so (MQTT 5).
    pub session_expiry: Option<u32>,
    /// Its traffic.
    pub traffic: Traffic,
    /// The time from the CONNACK to its end.
    pub lasted: Duration,
}

/// The traffic of a session in bytes and packets of MQTT, with the CONNECT and the CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Packets from the client.
    pub packets_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// When the last byte came from the client.
    pub last_seen: SystemTime,
}

/// What a listener has refused before its first byte of MQTT, and what it has to say for the log.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListenerReport {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Refusals, folded by reason and address, and lines for the log.
    pub refusals: TakenRefusals,
}
