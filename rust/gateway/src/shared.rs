//! What all sessions of a gateway share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::descriptors::most_connections;
use crate::events::Token;
use crate::options::Options;
use crate::queue::Queue;
use crate::registry::Table;
use crate::upstream::Pool;

/// What all sessions of a gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) events: Queue,
    pub(crate) pool: Arc<Pool>,
    pub(crate) table: Table,
    /// When the gateway started, by either clock.
    pub(crate) started: (Instant, SystemTime),
    /// The process has descriptors for so many connections.
    pub(crate) most_connections: usize,
    /// The gateway is closing, and takes no more connections.
    pub(crate) is_closing: AtomicBool,
    options: RwLock<Arc<Options>>,
    last_token: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: Options) -> std::io::Result<Self> {
        Ok(Self {
            events: Queue::new(FULL)?,
            pool: Arc::new(Pool::new(Arc::new(options.upstream.clone()))),
            table: Table::new(),
            started: (Instant::now(), SystemTime::now()),
            most_connections: most_connections(options.descriptors_of_a_client()),
            is_closing: AtomicBool::new(false),
            options: RwLock::new(Arc::new(options)),
            last_token: AtomicU64::new(0),
        })
    }

    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update(&self, options: Options) {
        let upstream = Arc::new(options.upstream.clone());
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        self.pool.update(upstream);
    }

    pub(crate) fn next_token(&self) -> Token {
        Token::new(self.last_token.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The queue is full when so many events wait. A full queue takes no new logins, only events about earlier ones. A taker
/// that is busy for a second misses none of 16,000 logins a second.
const FULL: usize = 16 * 1024;
