//! The seam for TLS and WebSocket: what stands between the bytes of a socket and those of MQTT.
//!
//! A channel does no I/O. A plain connection has none, which costs it one branch a read and 16 bytes.

use std::borrow::Cow;
use std::fmt;

use crate::arrival::Arrival;
use crate::cause::Cause;
use crate::facts::Facts;
use crate::server_name::ServerName;

mod layered;
mod tls;
pub use tls::{
    CertificateFiles, ClientCertificate, TlsClient, TlsClientOptions, TlsError, TlsOptions, TlsServer,
    TlsVersion,
};
mod websocket;
pub use websocket::{ForwardedOptions, WebSocketOptions, WebSocketServer};

/// Makes the channel of each connection of a listener, or of each connection to a server.
pub trait ChannelFactory: fmt::Debug + Send + Sync {
    /// The channel of a connection that has just been made; [`Channel::start`] comes next.
    fn open(&self, remote: Remote<'_>) -> Box<dyn Channel>;
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub enum Remote<'a> {
    /// A client.
    Client(&'a Arrival),
    /// A server.
    Server(&'a ServerName),
}

/// Turns the bytes of a socket into those of MQTT, and back.
///
/// All buffers are scratch of the worker's thread: a channel appends to them, and keeps none. Where two layers stand in
/// each other (WebSocket in TLS), one channel holds both.
pub trait Channel: Send {
    /// How far the handshake has come. It decides which deadline holds, and under which code a failure is told.
    fn stage(&self) -> Stage;

    /// What is to be sent before anything has come, such as a `ClientHello`, is appended to `wire`.
    ///
    /// # Errors
    ///
    /// [`ChannelFault`] ends the connection.
    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault>;

    /// Takes all of `received`, which it may decrypt in place, and keeps what is incomplete. The bytes of MQTT in it are
    /// appended to `mqtt`. What the channel itself has to send (its handshake, a pong, the answer to a close) is appended
    /// to `answer`.
    ///
    /// # Errors
    ///
    /// [`ChannelFault`] ends the connection, after `answer` has been sent.
    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault>;

    /// Appends what carries `mqtt` to `wire`. It is called at [`Stage::Open`] only. After a failure or a goodbye it appends
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ChannelFault`] ends the connection.
    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault>;

    /// Says goodbye: what closes the channel is appended to `wire`. Nothing is encoded after it.
    fn close(&mut self, wire: &mut Vec<u8>);

    /// Why the handshake has failed where the peer has closed before its end.
    fn cut_off(&self) -> ChannelFault {
        ChannelFault::new("closed")
    }

    /// What the handshake has shown. It is asked once, when the stage is [`Stage::Open`], or when it has failed.
    fn facts(&mut self) -> Facts;
}

/// How far the handshake of a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TLS shakes hands: `tls_timeout`, `tls-failed`.
    Tls,
    /// The WebSocket is not open yet: `ws_timeout`, `ws-failed`.
    WebSocket,
    /// MQTT flows.
    Open,
}

/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It can.
    Open,
    /// The peer has said goodbye.
    Ended,
}

/// Why a channel ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFault {
    /// The cause that it is told under; `None`: that of the stage, and in a session `connection-lost`.
    pub cause: Option<Cause>,
    /// What is told of it: `no-shared-cipher`, or `a text frame`.
    pub detail: Cow<'static, str>,
}

impl ChannelFault {
    /// A fault that is told under the cause of its stage.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: None, detail: detail.into() }
    }
}
