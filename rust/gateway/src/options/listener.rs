//! What holds for the connections of one listener.

use std::sync::Arc;

use crate::channel::ChannelFactory;

/// What holds for the connections of one listener.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// Its name in events.
    pub name: Arc<str>,
    /// What stands between the bytes of the socket and those of MQTT; `None`: nothing.
    pub channel: Option<Arc<dyn ChannelFactory>>,
    /// How many connections may be without their CONNACK at once; one more is closed as `busy`. 0 means no limit.
    pub max_unauthenticated: usize,
}

impl ListenerOptions {
    /// A plain listener of this name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), channel: None, max_unauthenticated: 1024 }
    }
}
