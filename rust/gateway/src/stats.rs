//! The numbers of a gateway at one moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::listening::{ListenerCounts, Listening};
use crate::server_name::ServerName;
use crate::upstream::Target;

/// The numbers of a gateway at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How many log in or have a session.
    pub sessions: usize,
    /// How many connections each worker has.
    pub workers: Vec<usize>,
    /// How many connections all workers may have: two descriptors for each (`RLIMIT_NOFILE` when the gateway started).
    pub most_connections: usize,
    /// How many events wait to be taken.
    pub events: usize,
    /// How many events nobody was told, because too many waited.
    pub dropped: u64,
    /// The listeners, in the order in which they were given.
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
    /// How many are without their CONNACK.
    pub unauthenticated: usize,
    /// What has gone over its sessions.
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
    /// How many clients it has, those included that are logging in.
    pub connections: usize,
    /// How many CONNECTs it has answered.
    pub answered: u64,
    /// What it took from connecting until the answers, in all.
    pub connect_time: Duration,
    /// How many attempts it has not answered.
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
