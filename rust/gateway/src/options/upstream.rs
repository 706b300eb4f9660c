//! The servers behind the gateway: where they are, and how the gateway chooses, checks and addresses them.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_acceptor::PrivatePort;
use proxyproto_mqtt::{Version, Versions};

use super::Server;
use crate::channel::ChannelFactory;
use crate::option_error::OptionError;

/// The servers behind the gateway.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpstreamOptions {
    /// Where they are.
    pub servers: Vec<Server>,
    /// How the server of the next client is chosen.
    pub balance: Balance,
    /// The PROXY header that they expect.
    pub header: HeaderOut,
    /// How brokers in this process know the gateway. With it the CONNECT's password becomes these bytes and, behind them, a
    /// PROXY header of version 2 with the client's addresses; no header stands in front of the CONNECT, whatever `header` says.
    /// A client of MQTT 3.1 or 3.1.1 without a user name, which may not have a password, gets an empty one.
    pub secret: Option<Arc<[u8]>>,
    /// The port of a broker in this process that nobody else reaches. A server at its address is reached through it.
    pub port: Option<Arc<PrivatePort>>,
    /// Whether a header of version 2 has a checksum.
    pub checksum: bool,
    /// Whether the client's certificate goes on in the header. Mosquitto 2.1 refuses headers of more than 500 bytes.
    pub forward_certificate: bool,
    /// TLS around MQTT, for example; `None` for plain MQTT.
    pub channel: Option<Arc<dyn ChannelFactory>>,
    /// How long each of these may take: connecting, the handshake of the channel, and the answer to the CONNECT.
    pub connect_timeout: Duration,
    /// How many clients each server may have; `None` means no limit.
    pub max_connections: Option<usize>,
    /// How the gateway finds out whether a server is up.
    pub check: Check,
    /// Notices within about this time that the server's machine has gone (TCP keep-alive, `TCP_USER_TIMEOUT`).
    pub keepalive: Option<Duration>,
    /// The versions of MQTT that the servers speak. Clients of others are refused without asking them.
    pub versions: Versions,
    /// How often names are resolved again.
    pub resolve_interval: Duration,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            balance: Balance::default(),
            header: HeaderOut::default(),
            secret: None,
            port: None,
            checksum: false,
            forward_certificate: false,
            channel: None,
            connect_timeout: Duration::from_secs(5),
            max_connections: None,
            check: Check::default(),
            keepalive: Some(Duration::from_secs(30)),
            versions: Versions::default(),
            resolve_interval: Duration::from_secs(5),
        }
    }
}

impl UpstreamOptions {
    pub(super) fn check(&self, in_process: bool) -> Result<(), OptionError> {
        if self.servers.is_empty() && !in_process {
            return Err(OptionError::new("upstream.servers", "at least one is needed"));
        }
        for (at, server) in self.servers.iter().enumerate() {
            if self.servers.iter().take(at).any(|other| other == server) {
                return Err(OptionError::new("upstream.servers", format!("{server} stands there twice")));
            }
        }
        if self.secret.as_ref().is_some_and(|secret| !(16..=1024).contains(&secret.len())) {
            return Err(OptionError::new("upstream.secret", "must have 16 to 1024 bytes"));
        }
        let positive = [
            ("upstream.connect_timeout", self.connect_timeout),
            ("upstream.check.interval", self.check.interval),
            ("upstream.resolve_interval", self.resolve_interval),
        ];
        if let Some((option, _)) = positive.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Err(OptionError::new(option, "must be greater than 0"));
        }
        for (option, count) in
            [("upstream.check.fall", self.check.fall), ("upstream.check.rise", self.check.rise)]
        {
            if count == 0 {
                return Err(OptionError::new(option, "must be at least 1"));
            }
        }
        if let CheckKind::Mqtt { client_id } = &self.check.kind
            && !(1..=64).contains(&client_id.len())
        {
            return Err(OptionError::new("upstream.check.client_id", "must have 1 to 64 bytes"));
        }
        if self.max_connections == Some(0) {
            return Err(OptionError::new("upstream.max_connections", "must be at least 1"));
        }
        if Version::ALL.iter().all(|version| !self.versions.contains(*version)) {
            return Err(OptionError::new("upstream.versions", "at least one is needed"));
        }
        Ok(())
    }
}

/// Which server gets the next client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest clients.
    #[default]
    LeastConnections,
    /// The servers take turns.
    RoundRobin,
    /// The same server for the same client id, as long as it is up (rendezvous hashing).
    ClientId,
}

/// The PROXY header in front of the CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderOut {
    /// Version 2, with the facts about the client's TLS.
    #[default]
    V2,
    /// Version 1, which has only the addresses.
    V1,
    /// None: the servers see the gateway's address.
    Off,
}

/// How it is found out whether a server is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// How often a server is looked at.
    pub interval: Duration,
    /// A server is down after so many failures in a row.
    pub fall: u32,
    /// A server is up again after so many successes in a row.
    pub rise: u32,
    /// What a check does.
    pub kind: CheckKind,
}

impl Default for Check {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), fall: 3, rise: 2, kind: CheckKind::Tcp }
    }
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Connects, and closes at once.
    Tcp,
    /// Logs in, with a PROXY header that names the gateway. Any CONNACK is a sign of life.
    Mqtt {
        /// The client id of the CONNECT.
        client_id: String,
    },
}
