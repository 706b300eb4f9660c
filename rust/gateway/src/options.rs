//! The options of a gateway, and their checks.

mod listener;
pub use listener::ListenerOptions;
mod mqtt;
pub use mqtt::{MqttOptions, PublishRate};
mod server;
pub use server::{Server, ServerError};
mod upstream;
pub use upstream::{Balance, Check, CheckKind, HeaderOut, UpstreamOptions};

use crate::option_error::OptionError;

/// All options of a gateway, except those of its listeners.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The number of threads that serve connections; 0 means one for each core. It cannot change later.
    pub workers: usize,
    /// Deadlines, sizes and rates of the clients.
    pub mqtt: MqttOptions,
    /// The servers behind the gateway.
    pub upstream: UpstreamOptions,
    /// Whether a broker in this process carries the clients, each on an [`Admission::stream`](crate::Admission::stream).
    /// There need be no servers then.
    pub in_process: bool,
}

impl Options {
    /// Checks the options. [`Gateway::start`](crate::Gateway::start) and [`update`](crate::Gateway::update) call it too.
    ///
    /// # Errors
    ///
    /// [`OptionError`] names the first option that makes no sense.
    pub fn check(&self) -> Result<(), OptionError> {
        self.mqtt.check()?;
        self.upstream.check(self.in_process)
    }

    /// How many descriptors a client takes: its connection, the one to the server, and the other end of that if the broker
    /// is in this process.
    pub(crate) fn descriptors_of_a_client(&self) -> usize {
        if self.in_process || self.upstream.secret.is_some() { 3 } else { 2 }
    }
}
