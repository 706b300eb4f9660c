//! One address of a server: its state, its clients, and its counters.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use std::fmt;
use std::net::SocketAddr;

use tokio::sync::{Notify, watch};

use super::balance::{self, Candidate};
use super::health::Health;
use crate::options::Check;
use crate::server_name::ServerName;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Ip(SocketAddr),
    /// A path; one that begins with `@` is an abstract name.
    Unix(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One address of a server.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: ServerName,
    pub(crate) address: Address,
    pub(crate) counts: Counts,
    hash: u64,
    is_up: AtomicBool,
    connections: AtomicUsize,
    health: Mutex<Health>,
    /// The number of checks that have begun.
    begun: AtomicU64,
    /// The number of the last finished check, and whether the server was up.
    done: watch::Sender<(u64, bool)>,
    /// Signals that somebody asks for a check.
    wanted: Notify,
    is_removed: AtomicBool,
    /// What was wrong at the last check; empty where nothing was.
    trouble: Mutex<String>,
}

/// The counters of a target.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// CONNECTs that were answered.
    pub(crate) answered: AtomicU64,
    /// The sum of the times from connecting until the answer, in nanoseconds.
    pub(crate) nanoseconds: AtomicU64,
    /// Attempts that got no answer.
    pub(crate) failures: AtomicU64,
}

impl Target {
    pub(crate) fn new(configured: Arc<str>, address: Address) -> Self {
        let text = address.to_string();
        Self {
            hash: balance::hash(text.as_bytes()),
            name: ServerName { configured, address: text.into() },
            address,
            counts: Counts::default(),
            is_up: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            health: Mutex::default(),
            begun: AtomicU64::new(0),
            done: watch::Sender::new((0, true)),
            wanted: Notify::new(),
            is_removed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn candidate(&self, max_connections: Option<usize>) -> Candidate {
        let connections = self.connections();
        let has_room = max_connections.is_none_or(|most| connections < most);
        Candidate { is_eligible: self.is_up() && has_room, connections, address_hash: self.hash }
    }

    /// Counts one more client; `None` if there is no room.
    pub(crate) fn take_place(self: &Arc<Self>, max_connections: Option<usize>) -> Option<Place> {
        let most = max_connections.unwrap_or(usize::MAX);
        let one_more = |connections| (connections < most).then_some(connections + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place { target: Arc::clone(self) })
    }

    /// An attempt was answered after this time.
    pub(crate) fn count_answer(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        self.counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// An attempt was not answered.
    pub(crate) fn count_failure(&self) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for a check that begins from now on, and waits for its result.
    ///
    /// Those who ask at the same time share one check.
    pub(crate) async fn is_there(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        let mut done = self.done.subscribe();
        if self.is_removed() {
            // Nobody checks it any more.
            return true;
        }
        self.wanted.notify_one();
        // An error says that the sender has gone, which is this.
        done.wait_for(|(number, _)| *number > begun).await.is_ok_and(|result| result.1)
    }

    /// The options for checks have changed, so the next one is due now.
    pub(crate) fn check_anew(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody asks for a check, or the target is removed.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Begins a check. Returns its number.
    pub(crate) fn begin_check(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Ends a check with its error, if there is one. Returns whether the server goes up or down.
    pub(crate) fn end_check(&self, number: u64, looked: Result<(), String>, check: &Check) -> bool {
        let is_alive = looked.is_ok();
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = looked.err().unwrap_or_default();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = health.record(is_alive, check);
        self.is_up.store(health.is_up(), Ordering::Relaxed);
        self.done.send_replace((number, is_alive));
        has_changed
    }

    /// What was wrong at the last check; empty where nothing was.
    pub(crate) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a check that could not be carried out, and so says nothing of the server.
    pub(crate) fn skip_check(&self, number: u64) {
        self.done.send_replace((number, self.is_up()));
    }

    /// Removes the target, because neither the configuration nor a name has its address any more.
    pub(crate) fn remove(&self) {
        self.is_removed.store(true, Ordering::Release);
        self.wanted.notify_one();
        // Who waits for a check, waits in vain.
        self.done.send_replace((u64::MAX, true));
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }
}

/// A client's place on a server. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    target: Arc<Target>,
}

impl Place {
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.target.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
