//! A server as events tell of it.

use std::fmt;
use std::sync::Arc;

/// A server's name and address, as events tell them.
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
    /// Which.
    pub server: ServerName,
    /// What it is now.
    pub is_up: bool,
    /// What was wrong at the last check; empty for one that is up.
    pub detail: String,
}
