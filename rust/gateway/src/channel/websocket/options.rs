//! The options of WebSocket towards clients.

use proxyproto_acceptor::AddressSet;

use crate::option_error::OptionError;

/// The options of [`WebSocketServer`](super::WebSocketServer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// Where MQTT is; what stands behind a `?` does not count.
    pub path: String,
    /// The sub-protocols, the best first. A client that offers none of them is refused.
    pub subprotocols: Vec<String>,
    /// The values of `Origin` that may come; `None`: any, or none.
    pub origins: Option<Vec<String>>,
    /// Whose word on the client's address is believed. Not on a listener that takes PROXY headers.
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

/// Proxies of HTTP that say in a header who the client is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardedOptions {
    /// The proxies.
    pub trusted: AddressSet,
    /// The headers that are read. The first of them that is there counts.
    pub headers: Vec<String>,
    /// Clients that are refused as `denied`, before the upgrade is answered.
    pub denied: AddressSet,
    /// Clients that are refused as `blocked`, likewise.
    pub blocked: AddressSet,
    /// Where it is given, all others are refused as `denied`.
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
