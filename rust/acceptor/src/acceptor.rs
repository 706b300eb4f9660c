//! The loop that serves one listener: new connections, late headers, deadlines, room; what a single connection goes
//! through is in `arrival`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::addresses::LocalAddr;
use crate::backlog::{Backlog, Batch, End};
use crate::late::{Event, Late};
use crate::linger::Linger;
use crate::listener::{Phase, Shared};
use crate::options::ProxyProtocol;
use crate::queue::Connection;
use crate::refusal::Severity;

/// How many connections are accepted before others get their turn.
const BATCH: usize = 64;

/// How long nothing is accepted after the process ran out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How often that is said.
const PAUSE_SAID_EVERY: Duration = Duration::from_secs(10);

/// The task that serves one listener, on the background thread.
pub(crate) struct Acceptor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) late: Late,
    /// Connections that are ready while the queue is full: they keep their place among the pending.
    pub(crate) held: VecDeque<Connection>,
    /// Where a look shows its bytes: one for all connections.
    pub(crate) buffer: Vec<u8>,
    pub(crate) name: Arc<str>,
    pub(crate) is_tcp: bool,
    backlog: Backlog,
    linger: Linger,
    paused_until: Option<Instant>,
    pause_said: Option<Instant>,
    last_second_look: Instant,
    /// Draining, and the kernel's queue has been emptied.
    is_swept: bool,
    /// And the kernel has been told to refuse what comes now.
    is_stopped: bool,
}

impl Acceptor {
    /// Must be called where the thread's runtime is entered.
    pub(crate) fn new(shared: Arc<Shared>, listening: OwnedFd) -> io::Result<Self> {
        let acceptor = Self {
            late: Late::new()?,
            held: VecDeque::new(),
            buffer: Vec::new(),
            name: shared.local.to_string().into(),
            is_tcp: matches!(shared.local, LocalAddr::Ip(_)),
            backlog: Backlog::new(listening)?,
            linger: Linger::default(),
            paused_until: None,
            pause_said: None,
            last_second_look: Instant::now(),
            is_swept: false,
            is_stopped: false,
            shared,
        };
        acceptor.warn_of_trust();
        Ok(acceptor)
    }

    /// Serves until the listener is closed, or drained and empty.
    pub(crate) async fn run(mut self) {
        // Whatever ends this, a waiter must not wait for ever.
        let _closing = CloseQueue(Arc::clone(&self.shared));
        loop {
            self.do_what_is_due(Instant::now());
            self.deliver_held();
            self.sweep_if_draining();
            if self.is_over() {
                return;
            }
            let has_room = self.room() > 0;
            let deadline = self.next_deadline();
            tokio::select! {
                () = self.shared.changed.notified() => {}
                batch = self.backlog.ready(|| self.room_after_lingering()), if has_room => {
                    self.linger.is_pressed = batch.end.is_none();
                    self.receive(batch);
                }
                events = self.late.ready(), if self.late.len() > 0 => match events {
                    Ok(events) => self.examine(&events),
                    Err(error) => self.give_up(&error),
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {}
            }
        }
    }

    /// How many connections may be taken in one batch, once there may be some.
    fn room_after_lingering(&self) -> usize {
        self.linger.wait(&self.shared);
        self.room().min(BATCH)
    }

    /// Returns whether the kernel's queue was empty after the batch.
    fn receive(&mut self, batch: Batch) -> bool {
        let options = self.shared.options();
        let now = Instant::now();
        for (fd, peer) in batch.connections {
            self.arrive(fd, peer, &options, now);
        }
        match batch.end {
            None => {}
            Some(End::Empty) => return true,
            Some(End::Exhausted(error)) => self.pause(&error, now),
            Some(End::Broken(error)) => self.give_up(&error),
        }
        false
    }

    fn examine(&mut self, events: &[Event]) {
        let options = self.shared.options();
        let now = Instant::now();
        for event in events {
            self.look_again(*event, &options, now);
        }
    }

    /// How many connections may be taken from the kernel; the rest waits in its queue.
    fn room(&self) -> usize {
        let accepts =
            self.shared.phase() == Phase::Serving && self.paused_until.is_none() && self.held.is_empty();
        if accepts { self.shared.queue.room() } else { 0 }
    }

    fn deliver_held(&mut self) {
        while let Some(connection) = self.held.pop_front() {
            if let Some(connection) = self.shared.queue.push(connection) {
                self.held.push_front(connection);
                break;
            }
        }
        self.shared.pending.store(self.late.len() + self.held.len(), Ordering::Relaxed);
    }

    /// Everything whose time has come.
    fn do_what_is_due(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
        }
        if self.late.next_second_look(self.last_second_look).is_some_and(|due| now >= due) {
            self.last_second_look = now;
            self.examine(&self.late.second_look());
        }
        let options = self.shared.options();
        while let Some(waiting) = self.late.take_expired(options.header_timeout.get(), now) {
            self.expire(waiting, &options, now);
        }
        self.shared.queue.tick(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let header_timeout = self.shared.options().header_timeout.get();
        let deadlines = [
            self.paused_until,
            self.late.next_second_look(self.last_second_look),
            self.late.next_deadline(header_timeout),
            self.shared.queue.next_tick(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Empties the kernel's queue before the end. Its connections have been made as far as their clients know.
    ///
    /// An adopted socket has other holders, who go on serving its queue; one of our own is lost with it.
    fn sweep_if_draining(&mut self) {
        if self.shared.phase() != Phase::Draining || self.is_stopped {
            return;
        }
        if !self.shared.bound_by_us {
            self.is_swept = true;
        }
        while !self.is_swept && self.held.is_empty() && self.paused_until.is_none() {
            let room = self.shared.queue.room().min(BATCH);
            if room == 0 {
                return;
            }
            self.is_swept = self.receive(self.backlog.take(room));
        }
        if self.is_swept {
            self.is_stopped = true;
            if self.shared.bound_by_us {
                self.backlog.stop();
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.shared.phase() {
            Phase::Serving => false,
            Phase::Draining => self.is_swept && self.late.len() == 0 && self.held.is_empty(),
            Phase::Closed => true,
        }
    }

    fn pause(&mut self, error: &io::Error, now: Instant) {
        self.paused_until = Some(now + PAUSE);
        self.shared.counters.add_pause();
        if self.pause_said.is_none_or(|said| now >= said + PAUSE_SAID_EVERY) {
            self.pause_said = Some(now);
            let text = format!(
                "{} cannot accept: {error}. Connections wait in the kernel, and it is tried again every 100 ms: raise \
                 LimitNOFILE= (ulimit -n), or set max_connections=",
                self.name
            );
            self.shared.queue.say(Severity::Error, text, now);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        let text = format!("{} is broken and closes: {error}", self.name);
        self.shared.queue.say(Severity::Error, text, Instant::now());
        self.shared.enter(Phase::Closed);
    }

    fn warn_of_trust(&self) {
        let options = self.shared.options();
        if self.is_tcp && options.trusted.is_none() && options.proxy_protocol != ProxyProtocol::Off {
            let text = format!(
                "{} believes the PROXY header of every peer: set trusted= to the addresses of your proxies, or whoever \
                 reaches this port can claim to be anybody",
                self.name
            );
            self.shared.queue.say(Severity::Warning, text, Instant::now());
        }
    }
}

/// Wakes every waiter for good when the task ends, in whatever way.
struct CloseQueue(Arc<Shared>);

impl Drop for CloseQueue {
    fn drop(&mut self) {
        self.0.pending.store(0, Ordering::Relaxed);
        self.0.enter(Phase::Closed);
        self.0.queue.close();
    }
}
