//! The ready connections, the refusals to report, and the one file descriptor that wakes the takers of both.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proxyproto_codec::Header;
use rustix::event::{EventfdFlags, eventfd};

use crate::addresses::PeerAddr;
use crate::notice::Notice;
use crate::permit::Permit;
use crate::refusal::Refusal;
use crate::refusals::{Refusals, TakenRefusals};

/// How often refusals may wake the taker. A flood of refused connections must not keep it busy.
const REFUSALS_INTERVAL: Duration = Duration::from_millis(100);

/// A connection whose header has been read and which is allowed in.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The connection, non-blocking and close-on-exec. Its next byte is the first one behind the header.
    pub fd: OwnedFd,
    /// The header; `None` for a connection that is served without one.
    pub header: Option<Header>,
    /// The other end of the TCP connection.
    pub peer: PeerAddr,
    /// Its place among the open connections. Dropping it gives the place back.
    pub permit: Permit,
    /// Whether the look at the header has shown bytes behind it.
    pub(crate) has_payload: bool,
}

/// A queue that the acceptor fills and any number of threads empty.
///
/// The wake fd is readable exactly while there is something to take, and both change under one lock. A taker that takes one
/// of ten connections leaves the fd readable for the next thread. When a taker cleared the fd first and then took one
/// connection, other threads waited for up to 900 ms. One write each time the queue stops being empty costs 0.2-0.4 us a
/// connection; to wake an event loop for each one cost 30-43 us (`CPython` 3.13, 2 cores).
pub(crate) struct Queue {
    state: Mutex<State>,
}

struct State {
    ready: VecDeque<Connection>,
    capacity: usize,
    refusals: Refusals,
    telling: Telling,
    wanted: Wanted,
    /// On demand: the kernel's queue had a connection, and no taker has found it empty since.
    is_backlog_shown: bool,
    is_closed: bool,
    is_readable: bool,
    /// `None` after the end. Duplicates of it may live on.
    wake: Option<OwnedFd>,
}

/// What the acceptor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// Room in the queue, which it has found full.
    Room,
    /// An empty queue: until then it lets connections gather in the kernel.
    Emptiness,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State {
            ready: VecDeque::new(),
            capacity,
            refusals: Refusals::default(),
            telling: Telling::default(),
            wanted: Wanted::Nothing,
            is_backlog_shown: false,
            is_closed: false,
            is_readable: false,
            wake: Some(wake),
        };
        Ok(Self { state: Mutex::new(state) })
    }

    /// A duplicate of the wake fd. It is readable while there is something to take, and for ever after the close.
    pub(crate) fn wake_fd(&self) -> io::Result<OwnedFd> {
        match &self.lock().wake {
            Some(wake) => wake.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Puts a connection in. If the queue is full, it gives the connection back, and [`Taken::made_room`] says when to try
    /// again.
    pub(crate) fn push(&self, connection: Connection) -> Option<Connection> {
        let mut state = self.lock();
        if state.ready.len() >= state.capacity {
            state.wanted = Wanted::Room;
            return Some(connection);
        }
        state.ready.push_back(connection);
        state.show();
        None
    }

    /// How many more connections there is room for, if the queue may hold `most`. If there is none, [`Taken::made_room`] says
    /// when there is.
    pub(crate) fn room(&self, most: usize) -> usize {
        let mut state = self.lock();
        let room = most.min(state.capacity).saturating_sub(state.ready.len());
        state.wanted = if room == 0 { Wanted::Room } else { Wanted::Nothing };
        room
    }

    /// Lets connections gather in the kernel while some are ready here. [`Taken::wants_more`] tells the taker of the last one
    /// to ask the kernel for more. Returns whether any is ready; if not, a taker waits already.
    pub(crate) fn gather(&self) -> bool {
        let mut state = self.lock();
        let is_gathering = !state.ready.is_empty();
        state.wanted = if is_gathering { Wanted::Emptiness } else { Wanted::Nothing };
        is_gathering
    }

    /// On demand: says whether the wake fd is to be readable for what is in the kernel's queue.
    pub(crate) fn show_backlog(&self, shown: bool) {
        let mut state = self.lock();
        state.is_backlog_shown = shown;
        state.show();
    }

    /// Ends the gathering, because nobody has taken what is ready.
    pub(crate) fn end_gathering(&self) {
        self.lock().wanted = Wanted::Nothing;
    }

    /// Takes at most `most` connections, in the order in which they became ready.
    pub(crate) fn take(&self, most: usize) -> Taken {
        let mut state = self.lock();
        let count = most.min(state.ready.len());
        let connections = state.ready.drain(..count).collect();
        state.show();
        let made_room = state.wanted == Wanted::Room && count > 0;
        let wants_more = state.wanted == Wanted::Emptiness && state.ready.is_empty();
        if made_room || wants_more {
            state.wanted = Wanted::Nothing;
        }
        Taken { connections, made_room, wants_more, is_closed: state.is_closed }
    }

    /// Takes the first ready connection, and says what else the wake fd was readable for: see [`Ready`].
    pub(crate) fn take_ready(&self) -> Ready {
        let mut state = self.lock();
        let connection = state.ready.pop_front();
        let shows_backlog = std::mem::take(&mut state.is_backlog_shown);
        let made_room = state.wanted == Wanted::Room && connection.is_some();
        if made_room {
            state.wanted = Wanted::Nothing;
        }
        state.show();
        let is_closed = state.is_closed && connection.is_none();
        Ready { connection, shows_backlog, made_room, is_closed }
    }

    /// Keeps a refusal until it is taken. Returns whether [`Queue::next_tick`] has changed.
    pub(crate) fn refuse(&self, refusal: Refusal, now: Instant) -> bool {
        let mut state = self.lock();
        let before = state.next_tick();
        state.refusals.add(refusal);
        state.tell(now);
        state.next_tick() != before
    }

    /// Keeps a message about the listener, whose name is `name`, until it is taken.
    pub(crate) fn say(&self, name: &Arc<str>, notice: Notice, now: Instant) {
        let mut state = self.lock();
        state.refusals.say(name, notice);
        state.tell(now);
    }

    /// Takes the refusals. Also returns whether [`Queue::next_tick`] has changed.
    pub(crate) fn take_refusals(&self, now: Instant) -> (TakenRefusals, bool) {
        let mut state = self.lock();
        let before = state.next_tick();
        state.telling.is_due = false;
        let taken = state.refusals.take(now);
        state.show();
        (taken, state.next_tick() != before)
    }

    /// Does what is due: counts repeats, and wakes a taker for refusals that came too soon after the last ones.
    pub(crate) fn tick(&self, now: Instant) {
        let mut state = self.lock();
        state.refusals.tick(now);
        state.tell(now);
    }

    /// When [`Queue::tick`] will have something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.lock().next_tick()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Wakes every waiter for good. Ready connections can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.show();
    }

    /// In a forked child: closes its copies. It does not make the wake fd readable, because that would wake the parent too.
    pub(crate) fn let_go(&self) {
        self.lock().is_closed = true;
        self.end();
    }

    /// Closes the connections that nobody has taken, and the wake fd.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        let ended = (std::mem::take(&mut state.ready), state.wake.take());
        // Not under the lock: closing many connections takes a while.
        drop(state);
        drop(ended);
    }

    // A panic under the lock would be a bug in this file. Even then the queue is usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, now: Instant) {
        let may_tell = self.telling.last.is_none_or(|last| now >= last + REFUSALS_INTERVAL);
        if may_tell && !self.telling.is_due && !self.refusals.is_empty() {
            self.telling = Telling { last: Some(now), is_due: true };
        }
        self.show();
    }

    fn next_tick(&self) -> Option<Instant> {
        let is_untold = !self.refusals.is_empty() && !self.telling.is_due;
        let tell = self.telling.last.filter(|_| is_untold).map(|told| told + REFUSALS_INTERVAL);
        [tell, self.refusals.next_tick()].into_iter().flatten().min()
    }

    /// Makes the wake fd readable or not, as the other fields say.
    fn show(&mut self) {
        let is_ready = !self.ready.is_empty() || self.is_backlog_shown;
        let should_be = is_ready || self.telling.is_due || self.is_closed;
        if should_be == self.is_readable {
            return;
        }
        let Some(wake) = &self.wake else { return };
        // Neither call can fail: the counter goes from 0 to 1 and back, under the lock.
        let done = if should_be {
            rustix::io::write(wake, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(wake, &mut [0; 8])
        };
        if done.is_ok() {
            self.is_readable = should_be;
        }
    }
}

/// Whether refusals are to wake the taker, and when they last did.
#[derive(Default)]
struct Telling {
    last: Option<Instant>,
    is_due: bool,
}

/// What the queue has for a taker that accepts for itself. Its connections are those that were late.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) connection: Option<Connection>,
    /// The kernel's queue may be accepted from again.
    pub(crate) shows_backlog: bool,
    /// As [`Taken::made_room`].
    pub(crate) made_room: bool,
    /// There is no connection, and none will come.
    pub(crate) is_closed: bool,
}

/// What a taker gets.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) connections: Vec<Connection>,
    /// The acceptor waits for room, and now there is some.
    pub(crate) made_room: bool,
    /// The acceptor has let connections gather, and all ready ones are taken. The taker must arm the kernel's queue.
    pub(crate) wants_more: bool,
    pub(crate) is_closed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permit::OpenConnections;
    use crate::refusal::tests::timeout;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn connection() -> Connection {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let peer = PeerAddr::Ip("192.0.2.1:1".parse().unwrap());
        let permit = Arc::new(OpenConnections::default()).admit_unlimited();
        Connection { fd, header: None, peer, permit, has_payload: false }
    }

    fn is_readable(queue: &Queue) -> bool {
        let wake = queue.wake_fd().unwrap();
        let mut fds = [PollFd::new(&wake, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn the_wake_fd_is_readable_exactly_while_something_is_ready() {
        let queue = Queue::new(8).unwrap();
        assert!(!is_readable(&queue));
        for _ in 0..3 {
            assert!(queue.push(connection()).is_none());
        }
        assert!(is_readable(&queue));
        assert_eq!(queue.take(1).connections.len(), 1);
        assert!(is_readable(&queue));
        assert_eq!(queue.take(usize::MAX).connections.len(), 2);
        assert!(!is_readable(&queue));
    }

    #[test]
    fn a_full_queue_gives_back_and_says_when_there_is_room() {
        let queue = Queue::new(1).unwrap();
        assert_eq!(queue.room(8), 1);
        assert_eq!(queue.room(0), 0);
        assert!(queue.push(connection()).is_none());
        assert!(queue.push(connection()).is_some());
        assert_eq!(queue.room(8), 0);
        let taken = queue.take(1);
        assert!(taken.made_room);
        assert!(queue.push(connection()).is_none());
        assert!(!queue.take(1).made_room);
    }

    #[test]
    fn whoever_takes_the_last_asks_for_what_has_gathered() {
        let queue = Queue::new(8).unwrap();
        assert!(!queue.gather(), "a taker waits already");
        for _ in 0..2 {
            assert!(queue.push(connection()).is_none());
        }
        assert!(queue.gather());
        assert!(!queue.take(1).wants_more);
        assert!(queue.take(1).wants_more);
        assert!(!queue.take(1).wants_more);
        assert!(queue.push(connection()).is_none());
        assert!(queue.gather());
        queue.end_gathering();
        assert!(!queue.take(1).wants_more);
    }

    #[test]
    fn refusals_wake_at_most_every_hundred_milliseconds() {
        let queue = Queue::new(1).unwrap();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(!queue.refuse(timeout("192.0.2.1:1"), at(0)));
        assert!(is_readable(&queue));
        let (taken, has_changed) = queue.take_refusals(at(0));
        assert_eq!((taken.records.len(), has_changed), (1, true));
        assert_eq!(queue.next_tick(), Some(at(10_000)), "when repeats are counted");
        assert!(!is_readable(&queue));
        assert!(queue.refuse(timeout("192.0.2.1:1"), at(50)));
        assert!(!queue.refuse(timeout("192.0.2.1:1"), at(60)));
        assert!(!is_readable(&queue));
        assert_eq!(queue.next_tick(), Some(at(100)));
        queue.tick(at(100));
        assert!(is_readable(&queue));
        assert!(!queue.take_refusals(at(100)).1);
        queue.tick(at(10_000));
        assert!(is_readable(&queue), "for the count of repeats");
        assert!(queue.take_refusals(at(10_000)).1);
    }

    #[test]
    fn a_closed_queue_stays_readable() {
        let queue = Queue::new(1).unwrap();
        assert!(queue.push(connection()).is_none());
        queue.close();
        let taken = queue.take(usize::MAX);
        assert!(taken.is_closed && taken.connections.len() == 1);
        assert!(is_readable(&queue));
        let waiter = queue.wake_fd().unwrap();
        queue.end();
        assert!(queue.wake_fd().is_err());
        let mut fds = [PollFd::new(&waiter, PollFlags::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
    }
}
