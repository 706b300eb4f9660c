//! The options of WebSocket towards clients.

use proxyproto_acceptor::AddressSet;

use crate::option_error::OptionError;

/// The options of [`WebSocketServer`](super::WebSocketServer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// The path of MQTT. A query behind a `?` is ignored.
    pub path: String,
    /// The sub-protocols, the best first. A client that offers none of them is refused.
    pub subprotocols: Vec<String>,
    /// The allowed values of `Origin`. `None` allows any value, and requests without it.
    pub origins: Option<Vec<String>>,
    /// The proxies that may name the client's address. Not for a listener that takes PROXY headers.
    pub forwarded: Option<ForwardedOptions>,
    /// The most bytes of a message, with all its fragments.
    pub max_message_size: u32,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: "/mqtt".into(),
            subprotocols: vec!["mqtt".into(), "mqttv3.1".into()],
            origins: None,
            forwarded: None,
            max_message_size: 65_536,
        }
    }
}

impl WebSocketOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        if !self.path.starts_with('/') {
            return Err(OptionError::new("ws.path", "must start with a slash"));
        }
        if self.subprotocols.is_empty() {
            return Err(OptionError::new("ws.subprotocols", "at least one is needed"));
        }
        if let Some(name) = self.subprotocols.iter().find(|name| !super::request::is_token(name.as_bytes())) {
            return Err(OptionError::new("ws.subprotocols", format!("{name:?} is not a name")));
        }
        if self.forwarded.as_ref().is_some_and(|forwarded| forwarded.headers.is_empty()) {
            return Err(OptionError::new("ws.forwarded.headers", "at least one is needed"));
        }
        if self.max_message_size == 0 {
            return Err(OptionError::new("mqtt.max_packet_size", "must be greater than 0"));
        }
        Ok(())
    }
}

/// HTTP proxies that name the client in a header.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardedOptions {
    /// The proxies.
    pub trusted: AddressSet,
    /// The names of the headers. The first one that the request has counts.
    pub headers: Vec<String>,
    /// Clients that are refused as `denied`, before the upgrade is answered.
    pub denied: AddressSet,
    /// Clients that are refused as `blocked`, likewise.
    pub blocked: AddressSet,
    /// If it is given, all other clients are refused as `denied`.
    pub allowed: Option<AddressSet>,
}

impl ForwardedOptions {
    /// Believes these proxies, in `X-Forwarded-For` or `X-Real-IP`.
    #[must_use]
    pub fn new(trusted: AddressSet) -> Self {
        Self {
            trusted,
            headers: vec!["x-forwarded-for".into(), "x-real-ip".into()],
            denied: AddressSet::new(),
            blocked: AddressSet::new(),
            allowed: None,
        }
    }
}
