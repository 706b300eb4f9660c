//! What the broker's handle and the hooks in rmqtt share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rmqtt::types::NodeId;

use crate::acl::Acl;
use crate::credential::Secret;
use crate::denials::Waiting;
use crate::keeper::Keeper;
use crate::store::WriteError;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) secret: Secret,
    pub(crate) denials: Waiting,
    pub(crate) counts: Counts,
    pub(crate) unwritten: UnwrittenSince,
    /// `None`: everything ends with the process.
    pub(crate) keeper: Option<Keeper>,
    #[cfg(feature = "cluster")]
    pub(crate) silent: crate::cluster::Silent,
    acl: RwLock<Arc<Acl>>,
}

impl Shared {
    pub(crate) fn new(secret: Secret, acl: Acl, keeper: Option<Keeper>) -> Self {
        Self {
            secret,
            denials: Waiting::default(),
            counts: Counts::default(),
            unwritten: UnwrittenSince::default(),
            keeper,
            #[cfg(feature = "cluster")]
            silent: crate::cluster::Silent::default(),
            acl: RwLock::new(Arc::new(acl)),
        }
    }

    /// Whether the node does not answer. One that is alone hears itself.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_self, reason = "there are no others"))]
    pub(crate) fn is_silent(&self, node: NodeId) -> bool {
        #[cfg(feature = "cluster")]
        return self.silent.has(node);
        #[cfg(not(feature = "cluster"))]
        {
            let _ = node;
            false
        }
    }

    pub(crate) fn acl(&self) -> Arc<Acl> {
        Arc::clone(&self.acl.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_acl(&self, acl: Acl) {
        *self.acl.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(acl);
    }
}

/// Messages and subscriptions that were refused, and sessions that are not kept, because the disk takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unwritten {
    /// How many.
    pub times: u64,
    /// What the last one met with.
    pub why: String,
}

#[derive(Debug, Default)]
pub(crate) struct UnwrittenSince(Mutex<Option<Unwritten>>);

impl UnwrittenSince {
    pub(crate) fn add(&self, error: &WriteError) {
        let mut unwritten = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = unwritten.take().map_or(1, |before| before.times + 1);
        *unwritten = Some(Unwritten { times, why: error.to_string() });
    }

    pub(crate) fn take(&self) -> Option<Unwritten> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) strangers: AtomicU64,
    pub(crate) not_retained: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
}

impl Counts {
    pub(crate) fn read(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            strangers: read(&self.strangers),
            not_retained: read(&self.not_retained),
            dropped: read(&self.dropped),
            ..Stats::default()
        }
    }
}

/// What a broker has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// CONNECTs that did not come through the gateway: other processes of this machine have found the port.
    pub strangers: u64,
    /// Messages that were not retained, because `max_retained` was reached.
    pub not_retained: u64,
    /// Messages that a client did not get, because its queue was full or the message had expired.
    pub dropped: u64,
    /// The sessions that are there, those of clients that are away too.
    pub sessions: usize,
    /// The subscriptions.
    pub subscriptions: usize,
    /// The retained messages.
    pub retained: usize,
}
