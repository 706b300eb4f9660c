//! Channels carry MQTT in another protocol: TLS, WebSocket, or both.
//!
//! A channel does no I/O. A plain connection has none; that costs it one branch for each read, and 16 bytes.

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
    /// Makes the channel of a new connection. The caller then calls [`Channel::start`].
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
/// The buffers belong to the worker's thread. A channel appends to them and keeps none. Of two layers (WebSocket in TLS),
/// one channel contains the other.
pub trait Channel: Send {
    /// The stage of the handshake. It decides which deadline applies, and which code a failure has.
    fn stage(&self) -> Stage;

    /// Appends to `wire` what must be sent first, such as a `ClientHello`.
    ///
    /// # Errors
    ///
    /// [`ChannelFault`] ends the connection.
    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault>;

    /// Takes all of `received`, which it may decrypt in place, and keeps an incomplete part. It appends the bytes of MQTT to
    /// `mqtt`, and what the channel itself must send (its handshake, a pong, the answer to a close) to `answer`.
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

    /// Encodes `mqtt` and appends the result to `wire`. It is called at [`Stage::Open`] only. After a failure or a goodbye
    /// it appends nothing.
    ///
    /// # Errors
    ///
    /// [`ChannelFault`] ends the connection.
    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault>;

    /// Says goodbye: appends to `wire` what closes the channel. After that, nothing is encoded.
    fn close(&mut self, wire: &mut Vec<u8>);

    /// Says why the handshake failed when the peer has closed before its end.
    fn cut_off(&self) -> ChannelFault {
        ChannelFault::new("closed")
    }

    /// What the handshake has shown. It is called once, at [`Stage::Open`] or after a failure.
    fn facts(&mut self) -> Facts;
}

/// How far the handshake of a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The TLS handshake: `tls_timeout`, `tls-failed`.
    Tls,
    /// The WebSocket is not open yet: `ws_timeout`, `ws-failed`.
    WebSocket,
    /// The handshake is over, and MQTT flows.
    Open,
}

/// Whether more bytes can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More can come.
    Open,
    /// The peer has said goodbye.
    Ended,
}

/// Why a channel ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFault {
    /// The cause of the fault. `None` stands for the cause of the stage, and in a session for `connection-lost`.
    pub cause: Option<Cause>,
    /// The detail, such as `no-shared-cipher` or `a text frame`.
    pub detail: Cow<'static, str>,
}

impl ChannelFault {
    /// A fault with the cause of its stage.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: None, detail: detail.into() }
    }
}
