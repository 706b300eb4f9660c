//! What a gateway is told to do, and whether that can be meant.

mod listener;
pub use listener::ListenerOptions;
mod mqtt;
pub use mqtt::{MqttOptions, PublishRate};
mod server;
pub use server::{Server, ServerError};
mod upstream;
pub use upstream::{Balance, Check, CheckKind, HeaderOut, UpstreamOptions};

use crate::option_error::OptionError;

/// Everything about a gateway but its listeners.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// How many threads serve the connections; 0 means one for each core. It cannot change later.
    pub workers: usize,
    /// What holds for the clients.
    pub mqtt: MqttOptions,
    /// The servers behind the gateway.
    pub upstream: UpstreamOptions,
}

impl Options {
    /// Whether the options make sense. Whatever takes options checks them so.
    ///
    /// # Errors
    ///
    /// [`OptionError`] names the first option that does not.
    pub fn check(&self) -> Result<(), OptionError> {
        self.mqtt.check()?;
        self.upstream.check()
    }
}
