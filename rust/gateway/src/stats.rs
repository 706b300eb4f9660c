//! A snapshot of the gateway's numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::listening::{ListenerCounts, Listening};
use crate::server_name::ServerName;
use crate::upstream::Target;

/// A snapshot of the gateway's numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The number of logins and sessions.
    pub sessions: usize,
    /// The number of connections of each worker.
    pub workers: Vec<usize>,
    /// The largest number of connections. Each takes two descriptors (`RLIMIT_NOFILE` when the gateway started).
    pub most_connections: usize,
    /// The number of events that wait to be taken.
    pub events: usize,
    /// The number of events that were dropped because too many waited.
    pub dropped: u64,
    /// The listeners, in the order of [`Gateway::serve`](crate::Gateway::serve).
    pub listeners: Vec<ListenerStats>,
    /// The servers, each address of a name.
    pub servers: Vec<ServerStats>,
}

/// The numbers of one listener.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Its name.
    pub name: Arc<str>,
    /// The number of connections without a CONNACK.
    pub unauthenticated: usize,
    /// The traffic of its sessions.
    pub counts: ListenerCounts,
}

/// The numbers of one server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerStats {
    /// Which.
    pub server: ServerName,
    /// Whether it is up.
    pub is_up: bool,
    /// The number of its clients, with those that are logging in.
    pub connections: usize,
    /// The number of CONNECTs that it has answered.
    pub answered: u64,
    /// The sum of the times from connecting until its answer.
    pub connect_time: Duration,
    /// The number of attempts that it has not answered.
    pub failures: u64,
}

impl ListenerStats {
    pub(crate) fn of(listening: &Listening) -> Self {
        Self {
            name: Arc::clone(&listening.name),
            unauthenticated: listening.unauthenticated(),
            counts: listening.counts(),
        }
    }
}

impl ServerStats {
    pub(crate) fn of(target: &Target) -> Self {
        Self {
            server: target.name.clone(),
            is_up: target.is_up(),
            connections: target.connections(),
            answered: target.counts.answered.load(Ordering::Relaxed),
            connect_time: Duration::from_nanos(target.counts.nanoseconds.load(Ordering::Relaxed)),
            failures: target.counts.failures.load(Ordering::Relaxed),
        }
    }
}
