//! The options of one listener.

use std::sync::Arc;

use crate::channel::ChannelFactory;

/// The options of one listener.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// Its name in events.
    pub name: Arc<str>,
    /// TLS or WebSocket around MQTT; `None` for plain MQTT.
    pub channel: Option<Arc<dyn ChannelFactory>>,
    /// The largest number of connections without a CONNACK. One more is closed as `busy`. 0 means no limit.
    pub max_unauthenticated: usize,
}

impl ListenerOptions {
    /// A plain listener of this name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), channel: None, max_unauthenticated: 1024 }
    }
}
