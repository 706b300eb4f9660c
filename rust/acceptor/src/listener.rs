//! A listener as its owner holds it: takes connections, changes options, asks for numbers, closes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};

use tokio::sync::Notify;

use crate::acceptor::Acceptor;
use crate::addresses::LocalAddr;
use crate::backlog::set_defer_accept;
use crate::options::{OptionError, Options};
use crate::outcome::{Counters, Outcome};
use crate::permit::OpenConnections;
use crate::queue::{Connection, Queue};
use crate::refusal::TakenRefusals;
use crate::socket::Socket;
use crate::thread::Thread;

/// A listening socket, served by the background thread. Dropping it closes it.
///
/// All methods may be called from any thread of the process that made it. In a forked child the thread does not exist;
/// there, what needs it answers with [`Inherited`], and [`Listener::close`] closes the child's own descriptors.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    thread: Mutex<Option<Serving>>,
    process: u32,
}

/// What a listener needs while it is open.
#[derive(Debug)]
struct Serving {
    listening: OwnedFd,
    /// Disconnected when the task has ended and everything it held is closed.
    ended: mpsc::Receiver<()>,
    thread: Arc<Thread>,
}

/// What the owner and the acceptor's task share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
    pub(crate) open: Arc<OpenConnections>,
    /// How many wait for their header, or with a whole one for room.
    pub(crate) pending: AtomicUsize,
    /// Something for the task to see: room, other options, another phase.
    pub(crate) changed: Notify,
    pub(crate) local: LocalAddr,
    pub(crate) bound_by_us: bool,
    options: RwLock<Arc<Options>>,
    phase: AtomicU8,
}

/// How far a listener's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Closed,
}

/// The listener was made in another process, whose thread is not here: after a fork, make a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited;

/// The numbers of a listener at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// How many connections came to each outcome, in the order of [`Outcome::ALL`].
    pub outcomes: Vec<(Outcome, u64)>,
    /// How many wait for their header.
    pub pending: usize,
    /// How many are ready to be taken.
    pub ready: usize,
    /// How many are served or ready.
    pub open: usize,
    /// How often accepting had to pause for want of descriptors or memory.
    pub pauses: u64,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The listener is closed, or has been drained.
    Closed,
    /// See [`Inherited`].
    Inherited,
}

impl Listener {
    /// Begins to serve `socket` as `options` say.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with an [`OptionError`] inside if the options cannot be meant, else what the system says when there
    /// is no thread, descriptor or memory.
    pub fn start(socket: Socket, options: Options) -> io::Result<Self> {
        options.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let thread = Thread::of_this_process()?;
        let queue = Queue::new(socket.backlog())?;
        let shared = Arc::new(Shared {
            queue,
            counters: Counters::default(),
            open: Arc::default(),
            pending: AtomicUsize::new(0),
            changed: Notify::new(),
            local: socket.local_addr().clone(),
            bound_by_us: socket.is_bound_by_us(),
            options: RwLock::new(Arc::new(options)),
            phase: AtomicU8::new(Phase::Serving as u8),
        });
        let (fd, file) = socket.into_parts();
        let listening = fd.try_clone()?;
        shared.defer_accept(&listening, &shared.options());
        let (end, ended) = mpsc::channel();
        let acceptor = {
            let _runtime = thread.runtime().enter();
            Acceptor::new(Arc::clone(&shared), fd)?
        };
        thread.runtime().spawn(async move {
            acceptor.run().await;
            drop(file);
            drop(end);
        });
        let serving = Serving { listening, ended, thread };
        Ok(Self { shared, thread: Mutex::new(Some(serving)), process: std::process::id() })
    }

    /// A duplicate of the listening socket, for asking the kernel about it. Never accept from it, and leave it
    /// non-blocking: both would reach the original.
    ///
    /// # Errors
    ///
    /// `NotConnected` once closed, else what dup(2) says.
    pub fn listening(&self) -> io::Result<OwnedFd> {
        match &*self.serving() {
            Some(serving) => serving.listening.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// A file descriptor of the caller's that is readable while there is a connection or a refusal to take, and for ever
    /// once the listener is closed or drained.
    ///
    /// # Errors
    ///
    /// `NotConnected` once closed, else what dup(2) says.
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.shared.queue.wake_fd()
    }

    /// Takes at most `most` connections that are ready; none if there are none.
    ///
    /// # Errors
    ///
    /// [`Closed`] if there are none and there will be none.
    pub fn take(&self, most: usize) -> Result<Vec<Connection>, Closed> {
        self.check_process().map_err(|Inherited| Closed::Inherited)?;
        let taken = self.shared.queue.take(most);
        if taken.made_room || taken.is_closed {
            self.shared.changed.notify_one();
        }
        if taken.connections.is_empty() && taken.is_closed {
            return Err(Closed::Closed);
        }
        Ok(taken.connections)
    }

    /// Takes what has been refused since the last time.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn take_refusals(&self) -> Result<TakenRefusals, Inherited> {
        self.check_process()?;
        Ok(self.shared.queue.take_refusals())
    }

    /// The numbers of now.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn stats(&self) -> Result<Stats, Inherited> {
        self.check_process()?;
        Ok(Stats {
            outcomes: self.shared.counters.snapshot().collect(),
            pending: self.shared.pending.load(Ordering::Relaxed),
            ready: self.shared.queue.len(),
            open: self.shared.open.count(),
            pauses: self.shared.counters.pauses(),
        })
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.shared.options()
    }

    /// Replaces the options, for the connections that come from now on; those that wait get the new `header_timeout`.
    ///
    /// # Errors
    ///
    /// [`OptionError`] if they cannot be meant; nothing has changed then.
    pub fn update(&self, options: Options) -> Result<(), OptionError> {
        options.check()?;
        if let Some(serving) = &*self.serving() {
            self.shared.defer_accept(&serving.listening, &options);
        }
        *self.shared.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Accepts no more. What has been accepted may still complete its header, within `header_timeout`, and be taken;
    /// after that the listener is closed.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn drain(&self) -> Result<(), Inherited> {
        self.check_process()?;
        self.shared.enter(Phase::Draining);
        Ok(())
    }

    /// Closes the listening socket and every connection that was not taken, and wakes every waiter. Returns when all is
    /// closed. Does nothing the second time.
    pub fn close(&self) {
        let serving = if self.check_process().is_ok() {
            self.serving().take()
        } else {
            // The lock may have been held by a thread that was not forked, so it is not waited for.
            self.thread.try_lock().ok().and_then(|mut serving| serving.take())
        };
        let Some(Serving { listening, ended, thread }) = serving else { return };
        drop(listening);
        if self.check_process().is_err() {
            // The parent's task and thread: neither is here.
            std::mem::forget((ended, thread));
            return;
        }
        self.shared.enter(Phase::Closed);
        // Nothing is ever sent: an error says that the task has ended.
        let _ = ended.recv();
        self.shared.queue.end();
        drop(thread);
    }

    fn check_process(&self) -> Result<(), Inherited> {
        if self.process == std::process::id() { Ok(()) } else { Err(Inherited) }
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, Option<Serving>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Closed,
        }
    }

    /// Goes on to `phase`, never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.changed.notify_one();
    }

    fn defer_accept(&self, listening: &OwnedFd, options: &Options) {
        // An adopted socket is left as it is, unless the option speaks of it.
        if self.bound_by_us || options.defer_accept.is_some() {
            set_defer_accept(listening, &self.local, options.defers_accept(self.bound_by_us));
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("local", &self.local)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "this listener was made before a fork, and the thread that serves it stayed in the parent process: make a new \
             one in the child (reuse_port, or adopt one listening socket in every child)",
        )
    }
}

impl std::error::Error for Inherited {}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the listener is closed, or drained and empty"),
            Self::Inherited => Inherited.fmt(f),
        }
    }
}

impl std::error::Error for Closed {}
