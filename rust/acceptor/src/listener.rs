//! A listener as its owner holds it: take connections, change options, read the numbers, close.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::acceptor::Acceptor;
use crate::addresses::LocalAddr;
use crate::backlog::{Backlog, End, KernelQueue};
use crate::descriptors::{self, OpenListener};
use crate::door::Doorkeeper;
use crate::fork::{self, Work};
use crate::header_times::HeaderTimes;
use crate::late::Late;
use crate::notice::Notice;
use crate::options::{OptionError, Options};
use crate::outcome::{Counters, Outcome};
use crate::permit::OpenConnections;
use crate::queue::{Connection, Queue, Ready};
use crate::refusals::TakenRefusals;
use crate::socket::Socket;
use crate::socket_file::SocketFile;
use crate::thread::Thread;
use crate::watch::Watch;

/// How many connections a thread on demand looks at before it returns. Refused connections must not hold it up.
const LOOKED_AT_ON_DEMAND: usize = 64;

/// A listening socket, served by the background thread. Dropping it closes it.
///
/// Any thread of the process that made it may call all methods. In a forked child the background thread does not exist.
/// There, methods that need it return [`Inherited`], and [`Listener::close`] closes the child's own descriptors.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    serving: Mutex<Option<Serving>>,
    process: u32,
}

/// What a listener needs while it is open.
#[derive(Debug)]
struct Serving {
    /// Disconnected when the task has ended and everything it held is closed.
    ended: mpsc::Receiver<()>,
    /// The background thread; `None` if the task runs on the caller's runtime.
    thread: Option<Arc<Thread>>,
    /// Held for its drop.
    open: OpenListener,
}

/// What the owner and the acceptor's task share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
    pub(crate) open: Arc<OpenConnections>,
    /// Tells the task that there is something to see: room, other options, another phase.
    pub(crate) changed: Notify,
    pub(crate) backlog: Box<dyn Backlog>,
    pub(crate) watch: Watch,
    /// The listener in log lines and refusals.
    pub(crate) name: Arc<str>,
    pub(crate) local: LocalAddr,
    pub(crate) bound_by_us: bool,
    /// How many connections the task takes before anybody asks for them. With 0 the thread that asks takes them itself.
    pub(crate) ahead: usize,
    /// Whether the taker waits for the listening socket itself. It tells the task when it cannot accept.
    pub(crate) taker_watches: bool,
    /// How many connections may wait in the kernel's queue, and how many may be ready.
    pub(crate) backlog_length: usize,
    /// The file of a UNIX socket that we bound, until it is removed.
    file: Mutex<Option<SocketFile>>,
    late: Mutex<Late>,
    /// Why a thread that accepts on demand could not accept. The task deals with it.
    trouble: Mutex<Option<End>>,
    /// Whether a forked child has closed what it inherited.
    is_let_go: AtomicBool,
    options: RwLock<Arc<Options>>,
    phase: AtomicU8,
}

/// The phases of a listener's life, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Closed,
}

/// The error in a forked child: the listener was made in the parent, and the thread that serves it is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited;

/// The numbers of a listener at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How many connections came to each outcome, in the order of [`Outcome::ALL`].
    pub outcomes: Vec<(Outcome, u64)>,
    /// How many connections wait for their header.
    pub pending: usize,
    /// How many connections are ready to be taken.
    pub ready: usize,
    /// How many connections are ready or were taken and are still open.
    pub open: usize,
    /// How often accepting paused, for want of descriptors or memory, or because the system forbade it.
    pub pauses: u64,
    /// How many connections may wait for their header: see [`Listener::max_pending`].
    pub max_pending: usize,
    /// How long whole headers took to come.
    pub header_times: HeaderTimes,
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
    /// Begins to serve `socket` as `options` say, on the background thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with an [`OptionError`] inside if the options make no sense. Otherwise the error of the system if it has
    /// no thread, descriptor or memory.
    pub fn start(socket: Socket, options: Options) -> io::Result<Self> {
        let thread = Thread::of_this_process()?;
        let runtime = thread.runtime().clone();
        Self::start_on(&runtime, socket, options, Some(thread))
    }

    /// Begins to serve `socket` with a task on `runtime`. `thread` is our thread, if it runs this runtime. On a runtime of the
    /// caller's, the taker watches the listening socket itself.
    pub(crate) fn start_on(
        runtime: &Handle,
        socket: Socket,
        options: Options,
        thread: Option<Arc<Thread>>,
    ) -> io::Result<Self> {
        options.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let watch = Watch::new()?;
        let (local, bound_by_us) = (socket.local_addr().clone(), socket.is_bound_by_us());
        let (ahead, backlog_length) = (socket.ahead(), socket.backlog());
        let (fd, file) = socket.into_parts();
        let backlog = Box::new(KernelQueue::new(fd, watch.clone())?);
        let file = Mutex::new(file);
        let shared = Shared {
            bound_by_us,
            ahead,
            file,
            taker_watches: thread.is_none(),
            ..Shared::new(backlog, watch, local, backlog_length, options)?
        };
        let shared = Arc::new(shared);
        shared.defer_accept(&shared.options());
        let (end, ended) = mpsc::channel();
        let acceptor = {
            let _runtime = runtime.enter();
            Acceptor::new(Arc::clone(&shared))?
        };
        let open = OpenListener::new();
        shared.warn_of_descriptors();
        fork::remember(&shared);
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            acceptor.run().await;
            served.remove_file();
            drop(end);
        });
        let serving = Serving { ended, thread, open };
        Ok(Self { shared, serving: Mutex::new(Some(serving)), process: std::process::id() })
    }

    /// A duplicate of the listening socket, to ask the kernel about it. Never accept from it, and leave it non-blocking: both
    /// would affect the original.
    ///
    /// # Errors
    ///
    /// `NotConnected` after the close, otherwise the error of dup(2).
    pub fn listening(&self) -> io::Result<OwnedFd> {
        self.shared.backlog.duplicate()
    }

    /// Whether the thread that asks for a connection takes it from the kernel itself. If so, [`Listener::take`] makes system
    /// calls.
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.shared.ahead == 0
    }

    /// A file descriptor, owned by the caller, that is readable while there is a connection or a refusal to take. Once the
    /// listener is closed or drained, it stays readable for ever.
    ///
    /// # Errors
    ///
    /// `NotConnected` after the close, otherwise the error of dup(2).
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.shared.queue.wake_fd()
    }

    /// Takes at most `most` connections that are ready, and returns none if there are none. It never waits.
    ///
    /// On demand it also takes connections from the kernel. It returns none if it has refused all that it looked at, or if
    /// their headers are late.
    ///
    /// # Errors
    ///
    /// [`Closed`] if there is no connection and none will come.
    pub fn take(&self, most: usize) -> Result<Vec<Connection>, Closed> {
        self.check_process().map_err(|Inherited| Closed::Inherited)?;
        let _work = self.is_on_demand().then(Work::begin);
        let mut taken = self.shared.queue.take(most);
        if taken.made_room || taken.is_closed {
            self.shared.changed.notify_one();
        }
        if taken.wants_more {
            self.shared.backlog.arm();
        }
        if taken.connections.is_empty() && taken.is_closed {
            return Err(Closed::Closed);
        }
        if self.is_on_demand() {
            self.shared.accept_on_demand(&mut taken.connections, most);
        }
        Ok(taken.connections)
    }

    /// Takes what the listener's task has for a taker that accepts for itself.
    pub(crate) fn take_ready(&self) -> Ready {
        let ready = self.shared.queue.take_ready();
        if ready.made_room || ready.is_closed {
            self.shared.changed.notify_one();
        }
        ready
    }

    /// Takes one connection from the kernel; `None` if it is refused or its header is late.
    pub(crate) fn accept_one(&self) -> Result<Option<Connection>, End> {
        let (fd, peer) = self.shared.backlog.accept()?;
        let arrive =
            |buffer: &mut Vec<u8>| Doorkeeper::new(&self.shared, Instant::now(), buffer).arrive(fd, peer);
        Ok(BUFFER.with_borrow_mut(arrive))
    }

    /// Passes an error of [`Listener::accept_one`] to the listener's task, which deals with it.
    pub(crate) fn report(&self, trouble: End) {
        self.shared.report(trouble);
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.shared.phase() == Phase::Serving
    }

    /// The address on which it listens.
    #[must_use]
    pub fn local_addr(&self) -> &LocalAddr {
        &self.shared.local
    }

    /// Takes the refusals since the last call, and the log lines.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn take_refusals(&self) -> Result<TakenRefusals, Inherited> {
        self.check_process()?;
        let (taken, has_changed) = self.shared.queue.take_refusals(Instant::now());
        if has_changed {
            // The task must wake us when the window ends in which repeats are counted.
            self.shared.changed.notify_one();
        }
        Ok(taken)
    }

    /// The numbers of this moment.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn stats(&self) -> Result<Stats, Inherited> {
        self.check_process()?;
        Ok(Stats {
            outcomes: self.shared.counters.snapshot().collect(),
            pending: self.shared.late().len(),
            ready: self.shared.queue.len(),
            open: self.shared.open.count(),
            pauses: self.shared.counters.pauses(),
            max_pending: self.max_pending(),
            header_times: self.shared.counters.headers.snapshot(),
        })
    }

    /// How many connections may wait for their header: `max_pending`, or fewer if the process may have too few descriptors
    /// (`RLIMIT_NOFILE`).
    #[must_use]
    pub fn max_pending(&self) -> usize {
        self.shared.max_pending()
    }

    /// The options in force, as they were given.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.shared.options()
    }

    /// Replaces the options, for the connections that come from now on. `header_timeout` and `max_pending` also hold for those
    /// that wait for their header already.
    ///
    /// # Errors
    ///
    /// [`OptionError`] if they make no sense. Then nothing has changed.
    pub fn update(&self, options: Options) -> Result<(), OptionError> {
        options.check()?;
        self.shared.defer_accept(&options);
        self.shared.set_options(options);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Stops accepting. Connections that were accepted may still complete their header, within `header_timeout`, and be taken.
    /// After that the listener is closed.
    ///
    /// # Errors
    ///
    /// [`Inherited`] in a forked child.
    pub fn drain(&self) -> Result<(), Inherited> {
        self.check_process()?;
        self.shared.enter(Phase::Draining);
        Ok(())
    }

    /// Closes the listening socket and every connection that was not taken, and wakes every waiter. It returns when all is
    /// closed. A second call does nothing.
    ///
    /// A socket that we bound stops listening, even if others hold it too, such as forked children. In a forked child this
    /// closes the child's copies, and nothing changes for the parent.
    pub fn close(&self) {
        if self.check_process().is_err() {
            self.let_go();
            return;
        }
        let work = Work::begin();
        let Some(Serving { ended, thread, open }) = self.serving().take() else { return };
        self.shared.close();
        // A fork waits for our work to end, and meanwhile the background thread, for which we wait, may be at rest.
        drop(work);
        if thread.is_some() {
            // Nothing is ever sent. The error says that the task has ended.
            let _ = ended.recv();
        }
        let work = Work::begin();
        self.shared.queue.end();
        drop((work, open));
        drop(thread);
    }

    fn let_go(&self) {
        self.shared.let_go();
        // No lock is held in the child: see the module `fork`.
        if let Some(Serving { ended, thread, open }) = self.serving().take() {
            // They belong to the parent's task, which is not here.
            std::mem::forget((ended, open));
            if let Some(thread) = thread {
                thread.let_go();
            }
        }
    }

    fn check_process(&self) -> Result<(), Inherited> {
        if self.process == std::process::id() { Ok(()) } else { Err(Inherited) }
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// The state for a task that serves `backlog`. By default the socket is one that we bound, and the task takes ahead.
    pub(crate) fn new(
        backlog: Box<dyn Backlog>,
        watch: Watch,
        local: LocalAddr,
        backlog_length: usize,
        options: Options,
    ) -> io::Result<Self> {
        Ok(Self {
            queue: Queue::new(backlog_length)?,
            counters: Counters::default(),
            open: Arc::default(),
            changed: Notify::new(),
            backlog,
            file: Mutex::new(None),
            late: Mutex::new(Late::new(watch.clone())),
            watch,
            name: local.to_string().into(),
            local,
            bound_by_us: true,
            ahead: backlog_length,
            taker_watches: false,
            backlog_length,
            trouble: Mutex::new(None),
            is_let_go: AtomicBool::new(false),
            options: RwLock::new(Arc::new(options)),
            phase: AtomicU8::new(Phase::Serving as u8),
        })
    }

    pub(crate) fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task that it may have to wake up earlier: a connection has begun to wait, or there is a refusal to report.
    /// Only threads that accept on demand need to tell; the task itself knows.
    pub(crate) fn deadline_has_changed(&self) {
        if self.ahead == 0 {
            self.changed.notify_one();
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.local, LocalAddr::Ip(_))
    }

    /// Takes connections from the kernel in the thread that asks for them, until there are `most`.
    fn accept_on_demand(&self, connections: &mut Vec<Connection>, most: usize) {
        if self.phase() != Phase::Serving {
            return;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut doorkeeper = Doorkeeper::new(self, Instant::now(), buffer);
            for _ in 0..LOOKED_AT_ON_DEMAND {
                if connections.len() >= most {
                    return;
                }
                match self.backlog.accept() {
                    Ok((fd, peer)) => connections.extend(doorkeeper.arrive(fd, peer)),
                    Err(End::Empty) => {
                        self.queue.show_backlog(false);
                        self.backlog.arm();
                        return;
                    }
                    Err(trouble) => {
                        self.queue.show_backlog(false);
                        self.report(trouble);
                        return;
                    }
                }
            }
        });
    }

    /// Passes the error that a thread met when it accepted to the task.
    fn report(&self, trouble: End) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
        self.changed.notify_one();
    }

    /// Why a thread could not accept. [`Backlog::arm`] is due then.
    pub(crate) fn take_trouble(&self) -> Option<End> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Removes the file of a UNIX socket that we bound.
    fn remove_file(&self) {
        drop(self.take_file());
    }

    fn take_file(&self) -> Option<SocketFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Closes everything but the ready connections, in the calling thread.
    pub(crate) fn close(&self) {
        // First, or the task would take the socket that stops listening for one that is broken, and say so.
        self.phase.fetch_max(Phase::Closed as u8, Ordering::AcqRel);
        if self.bound_by_us {
            self.backlog.stop();
        }
        // Before the socket is closed: after that its inode's number may belong to a successor's file.
        self.remove_file();
        self.backlog.close();
        self.enter(Phase::Closed);
        // In this thread, because the background thread serves other listeners too: when it closed 4,000 late connections,
        // the others waited for 67-99 ms.
        self.close_late();
    }

    /// Closes the connections that wait for their header.
    pub(crate) fn close_late(&self) {
        let all = self.late().take_all();
        // Not under the lock, for it takes a while.
        drop(all);
    }

    /// In a forked child: closes everything that it inherited. The parent's epoll sets stay as they are.
    pub(crate) fn let_go(&self) {
        if self.is_let_go.swap(true, Ordering::AcqRel) {
            return;
        }
        // The file is the parent's.
        std::mem::forget(self.take_file());
        self.backlog.let_go();
        self.close_late();
        self.queue.let_go();
        self.watch.let_go();
    }

    fn warn_of_descriptors(&self) {
        let (wanted, most) = (self.options().max_pending, self.max_pending());
        if most < wanted && !descriptors::SAID.swap(true, Ordering::Relaxed) {
            let limit = descriptors::limit().unwrap_or(usize::MAX);
            self.queue.say(&self.name, Notice::FewDescriptors { most, wanted, limit }, Instant::now());
        }
    }

    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`Listener::max_pending`].
    pub(crate) fn max_pending(&self) -> usize {
        descriptors::most_pending(self.options().max_pending)
    }

    pub(crate) fn set_options(&self, options: Options) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Closed,
        }
    }

    /// Enters `phase`, unless a later one has begun.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.changed.notify_one();
    }

    fn defer_accept(&self, options: &Options) {
        // An adopted socket keeps its setting, unless the option was given.
        if self.is_tcp() && (self.bound_by_us || options.defer_accept.is_some()) {
            self.backlog.defer_accept(options.defers_accept(self.bound_by_us));
        }
    }

    /// Whether the kernel holds connections back until they have sent something.
    pub(crate) fn is_deferring(&self) -> bool {
        self.is_tcp() && self.options().defers_accept(self.bound_by_us)
    }
}

thread_local! {
    /// The buffer in which a thread that takes connections on demand looks at their first bytes.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
