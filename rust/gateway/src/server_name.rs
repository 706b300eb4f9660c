//! The name of a server in events.

use std::fmt;
use std::sync::Arc;

/// A server's name and address in events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerName {
    /// As it is configured: `mqtt.internal:1883`.
    pub configured: Arc<str>,
    /// The address: `10.0.1.5:1883`.
    pub address: Arc<str>,
}

impl fmt::Display for ServerName {
    /// `mqtt.internal:1883 (10.0.1.5:1883)`, or the address where that is what is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.configured == self.address {
            return f.write_str(&self.address);
        }
        write!(f, "{} ({})", self.configured, self.address)
    }
}

/// A server has gone down, or up again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerChange {
    /// The server.
    pub server: ServerName,
    /// Whether it is up now.
    pub is_up: bool,
    /// The error of the last check; empty if the server is up.
    pub detail: String,
}
