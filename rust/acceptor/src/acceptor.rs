//! The loop that serves one listener: new connections, late headers, deadlines, room. `door` has the steps of a
//! single connection.
//!
//! The loops of all listeners run on one thread, so each turn of a loop is short: at most [`MAX_STEPS`] steps of each kind,
//! and at most [`MAX_TIME`] for each kind. Then the other loops have their turns.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

use crate::backlog::End;
use crate::cause::Cause;
use crate::door::Doorkeeper;
use crate::listener::{Phase, Shared};
use crate::notice::Notice;
use crate::options::ProxyProtocol;
use crate::queue::Connection;
use crate::sys;
use crate::watch::Event;

/// How many steps of one kind a turn may have: connections accepted, late headers looked at, and so on.
const MAX_STEPS: usize = 16;

/// How long the steps of one kind may take in a turn. The first step is always taken.
const MAX_TIME: Duration = Duration::from_micros(500);

/// How long connections may gather in the kernel while nobody takes the ready ones. A taker that stays away must not delay
/// the refusal of others.
const MAX_GATHERING: Duration = Duration::from_millis(2);

/// How long accepting pauses after the system has refused it.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a pause is logged.
const PAUSE_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// How long the kernel may take, after the end of deferred accept, to hand over the connections that it held back.
///
/// It hands them over when it sends its SYN-ACK again, after a second. A wait of 0.5 s lost all of them, one of 1.2 s none.
const HAND_OVER: Duration = Duration::from_millis(1500);

/// The task that serves one listener.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    /// The epoll set of the listener, registered with the runtime.
    events: Option<AsyncFd<Arc<OwnedFd>>>,
    clock: fn() -> Instant,
    intake: Intake,
    buffer: Vec<u8>,
    pause_logged: Option<Instant>,
    sweep: Option<Sweep>,
}

/// How new connections come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// The kernel may have a connection.
    Ready,
    /// The kernel sends an event when it has a connection.
    Armed,
    /// The taker of the last ready connection asks the kernel for more. At that time this task does so itself.
    Gathering(Instant),
    /// Nobody asks the kernel: there is no room, or no connection is wanted.
    Idle,
    /// The system has refused to accept. At that time it is asked again.
    Paused(Instant),
    /// The listening socket listens no more.
    Stopped,
}

/// How far the kernel's queue is emptied before a socket that we bound stops listening. For the clients in that queue the
/// connection exists already, and it would be lost with the socket.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// Until then the kernel may hand over more connections.
    until: Instant,
    /// How many more connections are taken after that. It starts with as many as the kernel's queue can hold.
    left: Option<usize>,
}

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another turn at once.
    More,
    /// Nothing before an event, a change, or this time.
    Wait(Option<Instant>),
    /// Nothing more: the listener is closed, or drained and empty.
    Over,
}

impl Acceptor {
    /// Must be called within the task's runtime.
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let events = sys::register_readable(shared.watch.descriptor()?)?;
        Ok(Self { events: Some(events), ..Self::without_runtime(shared, Instant::now) })
    }

    fn without_runtime(shared: Arc<Shared>, clock: fn() -> Instant) -> Self {
        let intake = if shared.taker_watches {
            Intake::Idle
        } else {
            shared.backlog.arm();
            Intake::Armed
        };
        let acceptor =
            Self { shared, events: None, clock, intake, buffer: Vec::new(), pause_logged: None, sweep: None };
        acceptor.warn_of_trust();
        acceptor
    }

    /// Serves until the listener is closed, or drained and empty.
    pub(crate) async fn run(mut self) {
        // However the task ends, its waiters must be woken.
        let _closing = CloseQueue(Arc::clone(&self.shared));
        loop {
            match self.turn() {
                Turn::Over => return,
                // The listeners on this thread take turns: a flood on one must not hold up the others.
                Turn::More => tokio::task::yield_now().await,
                Turn::Wait(deadline) => self.wait(deadline).await,
            }
        }
    }

    async fn wait(&self, deadline: Option<Instant>) {
        let Some(events) = &self.events else { return };
        tokio::select! {
            () = self.shared.changed.notified() => {}
            readable = events.readable() => if let Ok(mut readable) = readable {
                // The turn takes the events. If it leaves some, the runtime learns of them again.
                readable.clear_ready();
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {}
        }
    }

    /// Does what is to be done, in bounded steps.
    pub(crate) fn turn(&mut self) -> Turn {
        let now = (self.clock)();
        let mut has_more = self.take_events();
        has_more |= self.do_what_is_due(now);
        has_more |= self.deliver_held();
        self.deal_with_trouble(now);
        has_more |= self.take_in(now);
        if self.is_over() {
            return Turn::Over;
        }
        if has_more { Turn::More } else { Turn::Wait(self.next_deadline()) }
    }

    /// Takes events: of the listening socket, and of late connections that have something to show.
    fn take_events(&mut self) -> bool {
        let events = match self.shared.watch.events(MAX_STEPS) {
            Ok(events) => events,
            Err(error) => {
                self.give_up(&error);
                return false;
            }
        };
        let has_more = events.len() == MAX_STEPS;
        for event in events {
            match event {
                Event::Backlog if self.intake == Intake::Stopped => {}
                Event::Backlog => self.intake = Intake::Ready,
                Event::Late { token, is_closed } => {
                    self.with_door(|door| door.look_again(token, is_closed));
                }
            }
        }
        has_more
    }

    /// Does everything whose time has come.
    fn do_what_is_due(&mut self, now: Instant) -> bool {
        match self.intake {
            Intake::Paused(until) if now >= until => self.intake = Intake::Ready,
            Intake::Gathering(until) if now >= until => {
                self.shared.queue.end_gathering();
                self.intake = Intake::Ready;
            }
            _ => {}
        }
        self.shared.queue.tick(now);
        let header_timeout = self.shared.options().header_timeout.get();
        let has_more_expired = self.bounded(|this| {
            let expired = this.shared.late().take_expired(header_timeout, now);
            expired.map(|waiting| this.with_door(|door| door.expire(waiting))).is_some()
        });
        let max_pending = self.shared.max_pending();
        let has_more_surplus = self.bounded(|this| {
            this.shared.late().len() > max_pending && this.evict_one(Cause::PendingOverflow { max_pending })
        });
        has_more_expired || has_more_surplus
    }

    /// Delivers connections with a whole header that had to wait for room.
    fn deliver_held(&mut self) -> bool {
        self.bounded(|this| {
            let mut late = this.shared.late();
            late.release_one(|connection| this.shared.queue.push(connection))
        })
    }

    /// Deals with the error that a thread met when it accepted on demand.
    fn deal_with_trouble(&mut self, now: Instant) {
        if let Some(end) = self.shared.take_trouble() {
            self.end_intake(end, now);
        }
    }

    /// Takes new connections in.
    fn take_in(&mut self, now: Instant) -> bool {
        match self.shared.phase() {
            Phase::Serving if self.shared.ahead == 0 => {
                self.show_backlog();
                false
            }
            Phase::Serving => self.accept(self.shared.ahead, now),
            Phase::Draining => self.sweep(now),
            Phase::Closed => false,
        }
    }

    /// On demand, tells takers that the kernel's queue has a connection. A taker that finds the queue empty arms it again.
    fn show_backlog(&mut self) {
        if self.intake == Intake::Ready {
            self.shared.queue.show_backlog(true);
            self.intake = Intake::Idle;
        }
    }

    /// Takes some of the connections that wait in the kernel, while fewer than `most` are ready.
    fn accept(&mut self, most: usize, now: Instant) -> bool {
        if matches!(self.intake, Intake::Idle) {
            self.intake = Intake::Ready;
        }
        if self.intake != Intake::Ready {
            return false;
        }
        let has_more = self.bounded(|this| {
            if this.shared.late().is_holding() || this.shared.queue.room(most) == 0 {
                this.intake = Intake::Idle;
                return false;
            }
            match this.shared.backlog.accept() {
                Ok((fd, peer)) => {
                    if let Some(left) = this.sweep.as_mut().and_then(|sweep| sweep.left.as_mut()) {
                        *left = left.saturating_sub(1);
                    }
                    this.with_door(|door| door.arrive(fd, peer));
                    true
                }
                Err(end) => {
                    this.end_intake(end, now);
                    false
                }
            }
        });
        // After an eviction the next attempt comes at once.
        has_more || self.intake == Intake::Ready
    }

    /// Deals with the reason why there is no next connection.
    fn end_intake(&mut self, end: End, now: Instant) {
        match end {
            End::Empty => self.ask_for_more(now),
            End::Exhausted(error) => {
                if self.evict() {
                    self.intake = Intake::Ready;
                } else {
                    self.pause(Notice::Exhausted { error: error.to_string() }, now);
                }
            }
            End::Forbidden(error) => self.pause(Notice::Forbidden { error: error.to_string() }, now),
            End::Broken(error) => self.give_up(&error),
        }
    }

    /// Lets connections gather in the kernel while some are ready that nobody has taken. Nobody waits for the next ones then,
    /// and accepting each as it comes would only interrupt the taker's work.
    fn ask_for_more(&mut self, now: Instant) {
        if self.shared.phase() == Phase::Serving && self.shared.queue.gather() {
            self.intake = Intake::Gathering(now + MAX_GATHERING);
        } else {
            self.intake = Intake::Armed;
            self.shared.backlog.arm();
        }
    }

    /// Empties the kernel's queue, and then stops listening on a socket that we bound.
    ///
    /// An adopted socket has other holders, and they go on serving its queue.
    fn sweep(&mut self, now: Instant) -> bool {
        if !self.shared.bound_by_us || self.intake == Intake::Stopped {
            self.intake = Intake::Stopped;
            return false;
        }
        let mut sweep = self.sweep.unwrap_or_else(|| self.begin_sweep(now));
        if now >= sweep.until && sweep.left.is_none() {
            sweep.left = Some(self.shared.backlog_length + 1);
            if self.intake == Intake::Armed {
                // A connection may have come whose event has not been seen yet.
                self.intake = Intake::Ready;
            }
        }
        self.sweep = Some(sweep);
        let has_more = self.accept(self.shared.backlog_length, now);
        let is_swept = match self.sweep.and_then(|sweep| sweep.left) {
            Some(left) => left == 0 || self.intake == Intake::Armed,
            None => false,
        };
        if is_swept {
            self.shared.backlog.stop();
            self.intake = Intake::Stopped;
        }
        has_more && !is_swept
    }

    fn begin_sweep(&mut self, now: Instant) -> Sweep {
        if matches!(self.intake, Intake::Armed | Intake::Gathering(_)) {
            self.intake = Intake::Ready;
        }
        if !self.shared.is_deferring() {
            return Sweep { until: now, left: None };
        }
        // The kernel still holds the connections that have sent nothing. It would reset them with the socket.
        self.shared.backlog.defer_accept(false);
        Sweep { until: now + HAND_OVER, left: None }
    }

    fn is_over(&self) -> bool {
        match self.shared.phase() {
            Phase::Serving => false,
            Phase::Draining => self.intake == Intake::Stopped && self.shared.late().len() == 0,
            Phase::Closed => true,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let options = self.shared.options();
        let intake = match self.intake {
            Intake::Gathering(until) | Intake::Paused(until) => Some(until),
            Intake::Armed => self.sweep.map(|sweep| sweep.until),
            _ => None,
        };
        let late = self.shared.late().next_deadline(options.header_timeout.get());
        [intake, late, self.shared.queue.next_tick()].into_iter().flatten().min()
    }

    /// Closes the connections that have waited longest for their header, to free descriptors. Returns whether there were any.
    fn evict(&mut self) -> bool {
        let mut has_evicted = false;
        self.bounded(|this| {
            let has_one = this.evict_one(Cause::NoDescriptors);
            has_evicted |= has_one;
            has_one
        });
        has_evicted
    }

    /// Closes the connection that has waited longest for its header. Returns whether there was one.
    fn evict_one(&mut self, cause: Cause) -> bool {
        let Some(longest) = self.shared.late().take_longest_waiting() else { return false };
        self.with_door(|door| {
            door.evict(&longest, cause);
            None
        });
        true
    }

    fn pause(&mut self, notice: Notice, now: Instant) {
        self.intake = Intake::Paused(now + PAUSE);
        self.shared.counters.add_pause();
        if self.pause_logged.is_none_or(|logged| now >= logged + PAUSE_LOGGED_EVERY) {
            self.pause_logged = Some(now);
            self.shared.queue.say(&self.shared.name, notice, now);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        if self.shared.phase() == Phase::Closed {
            return;
        }
        let notice = Notice::Broken { error: error.to_string() };
        self.shared.queue.say(&self.shared.name, notice, (self.clock)());
        self.shared.enter(Phase::Closed);
    }

    fn warn_of_trust(&self) {
        let options = self.shared.options();
        let believes_all = options.policy.is_none() && options.trusted.is_none();
        if self.shared.is_tcp() && believes_all && options.proxy_protocol != ProxyProtocol::Off {
            self.shared.queue.say(&self.shared.name, Notice::BelievesEverybody, (self.clock)());
        }
    }

    /// Queues the connection that the doorkeeper lets in, or holds it until there is room.
    fn with_door(&mut self, pass: impl FnOnce(&mut Doorkeeper<'_>) -> Option<Connection>) {
        let mut door = Doorkeeper::new(&self.shared, (self.clock)(), &mut self.buffer);
        if let Some(connection) = pass(&mut door)
            && let Some(connection) = self.shared.queue.push(connection)
        {
            self.shared.late().hold(connection);
        }
    }

    /// Repeats `step` until it returns false, but no more than [`MAX_STEPS`] times and no longer than [`MAX_TIME`]. Returns
    /// whether there may be more to do.
    fn bounded(&mut self, mut step: impl FnMut(&mut Self) -> bool) -> bool {
        let start = (self.clock)();
        for _ in 0..MAX_STEPS {
            if !step(self) {
                return false;
            }
            if (self.clock)().saturating_duration_since(start) >= MAX_TIME {
                return true;
            }
        }
        true
    }
}

/// Wakes every waiter for good when the task ends, however it ends.
struct CloseQueue(Arc<Shared>);

impl Drop for CloseQueue {
    fn drop(&mut self) {
        self.0.enter(Phase::Closed);
        self.0.close_late();
        self.0.watch.close();
        self.0.queue.close();
    }
}

#[cfg(test)]
mod tests;
