//! What a broker is told to do.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

/// What a broker is told to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How many threads serve the sessions.
    pub threads: usize,
    /// The largest packet that clients may send, in bytes. It should be the gateway's.
    pub max_packet_size: u32,
    /// How many messages of QoS 1 and 2 may be on their way to a client without an answer, and from it.
    pub max_inflight: NonZeroU16,
    /// How many messages wait for a client. Of more, those of QoS 0 are dropped as they come, and of the others the oldest.
    pub max_queued: usize,
    /// How many retained messages are kept; `None` means no limit. Of more, those of new topics are not kept.
    pub max_retained: Option<usize>,
    /// How long the session of a client that is away is kept at most. A client of MQTT 5 may ask for less; one of 3.1 or 3.1.1
    /// that asks for a session gets this.
    pub session_expiry: Duration,
    /// Whether clients may share a subscription (`$share/group/filter`).
    pub shared_subscriptions: bool,
    /// The directory in which sessions, messages for them and retained messages survive the process. It is made if it is not
    /// there; the one that it is in must be. `None`: they end with the process.
    pub persistence: Option<PathBuf>,
    /// How often the broker publishes about itself, under `$SYS/broker`; `None`: never.
    pub sys_interval: Option<Duration>,
    /// How many topics a client of MQTT 5 may have a number for, each way.
    pub max_topic_aliases: u16,
    /// Which node of a cluster it is; `None` means that it is alone. A process has one node, once: rmqtt ends it with the process.
    #[cfg(feature = "cluster")]
    pub cluster: Option<crate::Cluster>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_packet_size: 1 << 20,
            max_inflight: NonZeroU16::MIN.saturating_add(31),
            max_queued: 1000,
            max_retained: None,
            session_expiry: Duration::from_hours(7 * 24),
            shared_subscriptions: true,
            persistence: None,
            sys_interval: None,
            max_topic_aliases: 32,
            #[cfg(feature = "cluster")]
            cluster: None,
        }
    }
}
