//! The handle of a session: the rest of the gateway uses it to send the session a message, or to read its traffic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use crate::cause::Cause;
use crate::events::{Admission, Token, Traffic};
use crate::listening::Direction;

/// The handle of a session.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) token: Token,
    pub(crate) meter: Meter,
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    /// A client that waits for a decision has closed its side.
    is_half_closed: AtomicBool,
    is_replaced: AtomicBool,
}

/// Messages that the session has not read yet.
#[derive(Debug, Default)]
struct Mail {
    decision: Option<Box<Decision>>,
    end: Option<Box<Ending>>,
    /// The session's task.
    waker: Option<Waker>,
}

/// The answer to a login.
#[derive(Debug)]
pub(crate) enum Decision {
    Admit(Admission),
    Refuse(Ending),
}

/// Why the session shall end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) cause: Cause,
    pub(crate) detail: String,
}

impl Handle {
    pub(crate) fn new(token: Token) -> Self {
        Self {
            token,
            meter: Meter::default(),
            mail: Mutex::default(),
            has_mail: AtomicBool::new(false),
            is_half_closed: AtomicBool::new(false),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// The client sends no more.
    pub(crate) fn half_close(&self) {
        self.is_half_closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_half_closed(&self) -> bool {
        self.is_half_closed.load(Ordering::Relaxed)
    }

    /// Another login has gone upstream under the same client id.
    pub(crate) fn replace(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Whether another login has gone upstream under the same client id since.
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// Answers the login; the first answer counts.
    pub(crate) fn decide(&self, decision: Decision) {
        self.tell(|mail| {
            mail.decision.get_or_insert_with(|| Box::new(decision));
        });
    }

    /// Ends the session; the first reason counts.
    pub(crate) fn end(&self, ending: Ending) {
        self.tell(|mail| {
            mail.end.get_or_insert_with(|| Box::new(ending));
        });
    }

    /// Sets the task that a message wakes.
    pub(crate) fn register(&self, waker: &Waker) {
        self.mail().waker = Some(waker.clone());
    }

    /// Takes the order to end the session, if there is one.
    pub(crate) fn take_ending(&self) -> Option<Ending> {
        // The relay asks for every packet, so this is cheap.
        if !self.has_mail.load(Ordering::Acquire) {
            return None;
        }
        let mut mail = self.mail();
        self.has_mail.store(mail.decision.is_some(), Ordering::Relaxed);
        mail.end.take().map(|ending| *ending)
    }

    /// Takes the answer to the login, if it has come.
    pub(crate) fn take_decision(&self) -> Option<Decision> {
        self.mail().decision.take().map(|decision| *decision)
    }

    fn tell(&self, write: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail();
        write(&mut mail);
        self.has_mail.store(true, Ordering::Release);
        if let Some(waker) = &mail.waker {
            waker.wake_by_ref();
        }
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the traffic of a session. Only the session's task writes.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    /// When the client's last byte came, in nanoseconds since the gateway's start.
    last_seen: AtomicU64,
}

impl Meter {
    pub(crate) fn count(&self, direction: Direction, bytes: usize, packets: u32) {
        let (all_bytes, all_packets) = match direction {
            Direction::In => (&self.bytes_in, &self.packets_in),
            Direction::Out => (&self.bytes_out, &self.packets_out),
        };
        add(all_bytes, bytes as u64);
        add(all_packets, packets.into());
    }

    /// The client's last byte came at this time, counted from the gateway's start.
    pub(crate) fn seen(&self, at: Duration) {
        self.last_seen.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The numbers of now. `start` is when the gateway started.
    pub(crate) fn read(&self, start: SystemTime) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            packets_in: read(&self.packets_in),
            packets_out: read(&self.packets_out),
            last_seen: start + Duration::from_nanos(read(&self.last_seen)),
        }
    }
}

/// Only one thread writes, so this is enough. `fetch_add` costs more.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}
