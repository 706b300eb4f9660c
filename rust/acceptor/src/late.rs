//! Waiting for headers that are late: one epoll instance for all of them, and `SO_RCVLOWAT` so that a slow peer wakes nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;

use crate::pending::{Pending, Waiting};
use crate::sys;

/// How many late connections are looked at before others get their turn.
const BATCH: usize = 64;

/// The connections whose header is not complete, and the readiness of their sockets.
pub(crate) struct Late {
    epoll: AsyncFd<OwnedFd>,
    pub(crate) pending: Pending,
}

/// A connection that has something to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    /// The peer has closed its side, or the connection is broken: no more bytes will come.
    pub(crate) is_closed: bool,
}

impl Late {
    /// Must be called where a runtime is entered.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = sys::register_readable(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        Ok(Self { epoll, pending: Pending::default() })
    }

    /// Waits for `waiting`, which wants `needed` more bytes; gives it back closed if the kernel has no memory for it.
    pub(crate) fn add(&mut self, waiting: Waiting, needed: usize) -> io::Result<()> {
        set_low_water(&waiting, waiting.seen, needed);
        let token = self.pending.add(waiting);
        let Some(waiting) = self.pending.get(token) else { return Ok(()) };
        // Edge-triggered: a UNIX socket knows no SO_RCVLOWAT and would be ready all the time.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let added =
            epoll::add(self.epoll.get_ref(), waiting.fd.as_fd(), epoll::EventData::new_u64(token), flags);
        if added.is_err() {
            self.pending.remove(token);
        }
        Ok(added?)
    }

    /// Keeps on waiting for the one with `token`, of which `seen` bytes are there and `needed` are not.
    pub(crate) fn keep(&mut self, token: u64, seen: usize, needed: usize) {
        self.pending.note_seen(token, seen);
        if let Some(waiting) = self.pending.get(token) {
            set_low_water(waiting, seen, needed);
        }
    }

    /// Completes when some connections may have something to show.
    pub(crate) async fn ready(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.epoll.readable().await?;
            let mut events = Vec::with_capacity(BATCH);
            let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spare = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(self.epoll.get_ref(), spare, Some(&no_wait))? > 0 {
                return Ok(events.into_iter().map(Event::from).collect());
            }
            guard.clear_ready();
        }
    }

    /// Those whose header has begun, to be looked at again.
    ///
    /// A wrong header that is shorter than any right one never fills `SO_RCVLOWAT`. Without a second look it would be
    /// refused as late at its deadline, not at once as what it is.
    pub(crate) fn second_look(&self) -> Vec<Event> {
        self.pending.begun().into_iter().map(|token| Event { token, is_closed: false }).collect()
    }

    /// How long until the next second look is worth it.
    pub(crate) fn next_second_look(&self, last: Instant) -> Option<Instant> {
        self.pending.has_begun().then(|| last + SECOND_LOOK_INTERVAL)
    }
}

const SECOND_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// With nothing seen any byte matters, for a stranger's first byte is refused at once.
///
/// The look leaves the bytes where they are, so they count. Dripping a header a byte at a time wakes us twice instead of
/// once a byte. It is a saving only: where the kernel refuses, each byte wakes us.
fn set_low_water(waiting: &Waiting, seen: usize, needed: usize) {
    if waiting.peer.ip().is_some() && seen > 0 {
        let _ = sys::set_receive_low_water(waiting.fd.as_fd(), seen.saturating_add(needed));
    }
}

impl From<epoll::Event> for Event {
    fn from(event: epoll::Event) -> Self {
        let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let epoll::Event { flags, data } = event;
        Self { token: data.u64(), is_closed: flags.intersects(gone) }
    }
}
