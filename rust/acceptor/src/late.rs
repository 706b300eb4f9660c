//! Waiting for headers that are late: one epoll instance for all of them, and `SO_RCVLOWAT` so that a slow peer wakes nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::pending::{Pending, Waiting};
use crate::sys;

/// How many late connections are looked at before others get their turn.
const BATCH: usize = 64;

/// The connections whose header is not complete, and the readiness of their sockets.
pub(crate) struct Late {
    epoll: AsyncFd<OwnedFd>,
    pending: Pending,
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

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The one with this token, unless it has gone since the event.
    pub(crate) fn get(&self, token: u64) -> Option<&Waiting> {
        self.pending.get(token)
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

    /// Takes out the one with this token.
    pub(crate) fn take(&mut self, token: u64) -> Option<Waiting> {
        let waiting = self.pending.remove(token)?;
        Some(self.forget(waiting))
    }

    /// Takes out the one that has waited longest.
    pub(crate) fn take_longest_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.pending.remove_longest_waiting()?;
        Some(self.forget(waiting))
    }

    /// Takes out the one that has waited longest if that is at least `limit`.
    pub(crate) fn take_expired(&mut self, limit: Duration, now: Instant) -> Option<Waiting> {
        let waiting = self.pending.remove_expired(limit, now)?;
        Some(self.forget(waiting))
    }

    /// When the next one runs out.
    pub(crate) fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        self.pending.next_deadline(limit)
    }

    /// Completes when some connections may have something to show.
    pub(crate) async fn ready(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.epoll.readable().await?;
            let mut events = Vec::with_capacity(BATCH);
            let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(self.epoll.get_ref(), spare, Some(&no_wait)) {
                Ok(0) => guard.clear_ready(),
                Ok(_) => return Ok(events.into_iter().map(Event::from).collect()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
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

    /// Watches this one no more. It may live on, and each of its bytes would wake this thread: 20,000 small messages on one
    /// late connection cost 58 ms of it. Closing it is not enough either where a forked child holds it too.
    fn forget(&self, waiting: Waiting) -> Waiting {
        // It fails only for what is not watched.
        let _ = epoll::delete(self.epoll.get_ref(), waiting.fd.as_fd());
        waiting
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::{PeerAddr, UnixName};
    use crate::trust::Approach;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn waiting() -> (Waiting, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = PeerAddr::Unix(UnixName::default());
        let waiting =
            Waiting { fd: ours.into(), peer, approach: Approach::Header, since: Instant::now(), seen: 0 };
        (waiting, theirs)
    }

    fn watched(late: &Late) -> usize {
        let path = format!("/proc/self/fdinfo/{}", late.epoll.get_ref().as_raw_fd());
        std::fs::read_to_string(path).unwrap().lines().filter(|line| line.starts_with("tfd:")).count()
    }

    #[test]
    fn whoever_is_taken_out_is_watched_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _runtime = runtime.enter();
        let mut late = Late::new().unwrap();
        let (first, second, third) = (waiting(), waiting(), waiting());
        for waiting in [first.0, second.0, third.0] {
            late.add(waiting, 1).unwrap();
        }
        assert_eq!(watched(&late), 3);
        let kept =
            [late.take(1), late.take_longest_waiting(), late.take_expired(Duration::ZERO, Instant::now())];
        assert!(kept.iter().all(Option::is_some));
        assert_eq!(watched(&late), 0);
    }
}
