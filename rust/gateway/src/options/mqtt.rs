//! The options for clients: deadlines, sizes and rates.

use std::time::Duration;

use crate::option_error::OptionError;

/// Deadlines, sizes and rates of the clients.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MqttOptions {
    /// How long the TLS handshake may take.
    pub tls_timeout: Duration,
    /// How long the opening of a WebSocket may take.
    pub ws_timeout: Duration,
    /// How long the CONNECT may take until it is complete.
    pub connect_timeout: Duration,
    /// How long the decision about a login may take, with all steps of an authentication.
    pub auth_timeout: Duration,
    /// How long a packet may take from its first byte to its last.
    pub packet_timeout: Duration,
    /// How long a client may leave more than `max_send_buffer` bytes unread, or read none of the bytes that wait.
    pub send_timeout: Duration,
    /// The largest CONNECT in bytes.
    pub max_connect_size: usize,
    /// The largest packet of either side, in bytes.
    pub max_packet_size: u32,
    /// How many bytes may wait for a client longer than `send_timeout`, here and in the kernel.
    pub max_send_buffer: usize,
    /// A client is ended after a silence of its keep-alive times this factor.
    pub keepalive_factor: f64,
    /// How fast one session may publish. All rates apply; an empty list means no limit.
    pub publish: Vec<PublishRate>,
    /// Whether each packet of a client is checked whole before it goes on, for a server that does not check itself. Otherwise
    /// a packet goes on while it comes, and its fixed header is checked alone.
    pub strict: bool,
    /// Notices within about this time that the client's machine has gone (TCP keep-alive, `TCP_USER_TIMEOUT`).
    pub keepalive: Option<Duration>,
}

/// So many messages in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRate {
    /// How many messages.
    pub count: u32,
    /// The time in which they may come.
    pub per: Duration,
}

impl Default for MqttOptions {
    fn default() -> Self {
        Self {
            tls_timeout: Duration::from_secs(10),
            ws_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            packet_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            max_connect_size: 16 * 1024,
            max_packet_size: 64 * 1024,
            max_send_buffer: 1024 * 1024,
            keepalive_factor: 1.5,
            publish: Vec::new(),
            strict: false,
            keepalive: Some(Duration::from_secs(30)),
        }
    }
}

impl MqttOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        let positive = [
            ("mqtt.tls_timeout", self.tls_timeout),
            ("mqtt.ws_timeout", self.ws_timeout),
            ("mqtt.connect_timeout", self.connect_timeout),
            ("mqtt.auth_timeout", self.auth_timeout),
            ("mqtt.packet_timeout", self.packet_timeout),
            ("mqtt.send_timeout", self.send_timeout),
        ];
        if let Some((option, _)) = positive.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Err(OptionError::new(option, "must be greater than 0"));
        }
        if self.max_connect_size < SMALLEST_CONNECT {
            let problem = format!("no CONNECT has less than {SMALLEST_CONNECT} bytes");
            return Err(OptionError::new("mqtt.max_connect_size", problem));
        }
        if self.max_packet_size < 2 {
            return Err(OptionError::new("mqtt.max_packet_size", "no packet has less than 2 bytes"));
        }
        // MQTT-3.1.2-24 has 1.5; below 1, clients that keep to their keep-alive would be ended.
        if !(1.0..=1000.0).contains(&self.keepalive_factor) {
            return Err(OptionError::new("mqtt.keepalive_factor", "must be between 1 and 1000"));
        }
        if self.publish.iter().any(|rate| rate.count == 0 || rate.per.is_zero()) {
            return Err(OptionError::new("limits.publish", "a rate must be greater than 0"));
        }
        Ok(())
    }
}

/// Fixed header, protocol name, level, flags, keep-alive, and an empty client id.
const SMALLEST_CONNECT: usize = 14;
