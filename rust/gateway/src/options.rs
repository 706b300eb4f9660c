//! What a gateway is told to do, and whether that can be meant.

mod listener;
pub use listener::ListenerOptions;
mod mqtt;
pub use mqtt::{MqttOptions, PublishRate};
mod server;
pub use server::{Server, ServerError};
mod upstream;
pub use upstream::{Balance, Check, CheckKind, HeaderOut, UpstreamOptions};

use std::fmt;

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

/// An option that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// Where it stands: `upstream.servers`.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl OptionError {
    pub(crate) fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self { option, problem: problem.into() }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}
