//! The gateway, as its owner uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proxyproto_acceptor::Listener;
use proxyproto_mqtt::Reason;
use tokio::time::sleep;

use crate::cause::Cause;
use crate::drain;
use crate::events::{Admission, Event, Token, Traffic};
use crate::intake::Intake;
use crate::listening::Listening;
use crate::option_error::OptionError;
use crate::options::{ListenerOptions, Options};
use crate::registry::{Decision, Ending};
use crate::shared::Shared;
use crate::stats::{ListenerStats, ServerStats, Stats};
use crate::upstream::{Lookup, keep_checked, keep_resolved, system};
use crate::worker::Workers;

/// A front for MQTT brokers. Dropping it closes it.
///
/// All methods may be called from any thread of the process that made it. A forked child cannot use it; there,
/// [`close`](Self::close) and dropping it do nothing.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Mutex<Workers>,
    listeners: Mutex<Vec<Arc<Listening>>>,
    process: u32,
}

impl Gateway {
    /// Starts the workers, and the checks of the servers.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with an [`OptionError`] inside if the options cannot be meant, else what the system says when there
    /// is no thread, descriptor or memory.
    pub fn start(options: Options) -> io::Result<Self> {
        Self::start_with(options, system())
    }

    /// As [`start`](Self::start), with another resolver than the system's.
    fn start_with(options: Options, lookup: Lookup) -> io::Result<Self> {
        options.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let workers = Workers::start(options.workers)?;
        let shared = Arc::new(Shared::new(options)?);
        if let Some(runtime) = workers.seats().runtime(0) {
            let telling = Arc::clone(&shared);
            let tell = Arc::new(move |change| {
                telling.events.offer(Event::Server(change));
            });
            runtime.spawn(keep_resolved(Arc::clone(&shared.pool), lookup));
            runtime.spawn(keep_checked(Arc::clone(&shared.pool), runtime.clone(), tell));
        }
        let process = std::process::id();
        Ok(Self { shared, workers: Mutex::new(workers), listeners: Mutex::default(), process })
    }

    /// Serves the connections of a listener until it is closed, or drained and empty.
    ///
    /// The gateway takes its connections and its refusals, so nobody else must. The caller keeps the listener for what
    /// concerns it alone: other options, statistics, drain and close.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is a listener of this name, else what the system says.
    pub fn serve(&self, listener: Arc<Listener>, options: ListenerOptions) -> io::Result<()> {
        let seats = Arc::clone(lock(&self.workers).seats());
        let wake = listener.wake_fd()?;
        let mut listeners = lock(&self.listeners);
        if listeners.iter().any(|other| other.name == options.name) {
            let problem = format!("there is a listener {} already", options.name);
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
        }
        let listening = Arc::new(Listening::new(options, seats.count()));
        let which = listeners.len();
        listeners.push(Arc::clone(&listening));
        let intake =
            Intake { listener, listening, shared: Arc::clone(&self.shared), seats: Arc::clone(&seats) };
        if let Some(runtime) = seats.runtime(which) {
            // An error is that of epoll: there is no memory to watch one more descriptor.
            runtime.spawn(intake.run(wake));
        }
        Ok(())
    }

    /// Other options hold for the connections of this listener that come from now on. Says whether there is one of this
    /// name.
    pub fn update_listener(&self, options: ListenerOptions) -> bool {
        let listeners = lock(&self.listeners);
        let listening = listeners.iter().find(|listening| listening.name == options.name);
        listening.map(|listening| listening.update(options)).is_some()
    }

    /// A file descriptor of the caller's that is readable while there is an event to take, and for ever once closed.
    ///
    /// # Errors
    ///
    /// What dup(2) says.
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.shared.events.wake_fd()
    }

    /// Takes all waiting events. It never blocks.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        self.shared.events.take()
    }

    /// Waits for the next event; `None` once the gateway is closed and all have been taken. It is cancel safe.
    pub async fn next(&self) -> Option<Event> {
        self.shared.events.next().await
    }

    /// Lets a client in that waits for a decision. Says whether it is still there.
    pub fn admit(&self, token: Token, admission: Admission) -> bool {
        self.decide(token, Decision::Admit(admission))
    }

    /// Refuses a client that waits for a decision. Says whether it is still there.
    pub fn refuse(&self, token: Token, cause: impl Into<Cause>, detail: impl Into<String>) -> bool {
        self.decide(token, Decision::Refuse(Ending { cause: cause.into(), detail: detail.into() }))
    }

    /// Ends a session, or a login however far it has come. A client of MQTT 5 gets the DISCONNECT for the reason. Says
    /// whether it is still there.
    pub fn end(&self, token: Token, cause: impl Into<Cause>, detail: impl Into<String>) -> bool {
        let handle = self.shared.table.get(token);
        let ending = Ending { cause: cause.into(), detail: detail.into() };
        handle.map(|handle| handle.end(ending)).is_some()
    }

    /// Whether a client that waits for a decision may still send something: it is there, and has not closed its side.
    #[must_use]
    pub fn can_send(&self, token: Token) -> bool {
        self.shared.table.get(token).is_some_and(|handle| !handle.is_half_closed())
    }

    /// What has gone over a session; `None` once it has ended.
    #[must_use]
    pub fn traffic(&self, token: Token) -> Option<Traffic> {
        Some(self.shared.table.get(token)?.meter.read(self.shared.started.1))
    }

    /// The options as they were given.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.shared.options()
    }

    /// Replaces the options, but for `workers`. Sessions go on as they are; logins that come from now on go by the new
    /// ones, and the servers are those of the new ones at once.
    ///
    /// # Errors
    ///
    /// [`OptionError`] if they cannot be meant; nothing has changed then.
    pub fn update(&self, options: Options) -> Result<(), OptionError> {
        options.check()?;
        self.shared.update(options);
        Ok(())
    }

    /// The numbers of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (events, dropped) = self.shared.events.counts();
        Stats {
            sessions: self.shared.table.len(),
            workers: lock(&self.workers).seats().loads(),
            most_connections: self.shared.most_connections,
            events,
            dropped,
            listeners: lock(&self.listeners).iter().map(|listening| ListenerStats::of(listening)).collect(),
            servers: self.shared.pool.targets().iter().map(|target| ServerStats::of(target)).collect(),
        }
    }

    /// Ends all sessions, one after the other, spread evenly over this time: a million devices must not come back in one
    /// second. It does not wait. Listeners go on; drain them first.
    pub fn drain(&self, over: Duration) {
        if let Some(runtime) = lock(&self.workers).seats().runtime(0) {
            runtime.spawn(drain::drain(Arc::clone(&self.shared), over));
        }
    }

    /// Ends all sessions at once, waits a moment for what is on its way to them, and ends the workers. Returns when every
    /// connection is closed. Does nothing the second time.
    pub fn close(&self) {
        // In a forked child the lock may be held for ever, by a thread that is not here.
        if self.process != std::process::id() {
            return;
        }
        let mut workers = lock(&self.workers);
        self.shared.is_closing.store(true, Ordering::Release);
        for handle in self.shared.table.all() {
            handle.end(Ending { cause: Reason::ServerShutdown.into(), detail: String::new() });
        }
        let (shared, deadline) = (Arc::clone(&self.shared), Instant::now() + CLOSE_GRACE);
        if let Some(runtime) = workers.seats().runtime(0).cloned() {
            let (done, is_done) = std::sync::mpsc::channel();
            runtime.spawn(async move {
                while shared.table.len() > 0 && Instant::now() < deadline {
                    sleep(CLOSE_PAUSE).await;
                }
                let _ = done.send(());
            });
            // An error says that the task has gone, with the runtime.
            let _ = is_done.recv();
        }
        workers.stop();
        self.shared.events.close();
    }

    fn decide(&self, token: Token, decision: Decision) -> bool {
        let handle = self.shared.table.get(token);
        handle.map(|handle| handle.decide(decision)).is_some()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).forget();
        }
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long clients may take to read their DISCONNECT when the gateway closes.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

const CLOSE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
