//! The one background thread, its runtime, and the process it belongs to.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::fork::{self, NobodyAtWork};
use crate::runtime_descriptors::{descriptors_of_kind, watched_by};
use crate::sys::{self, BlockedSignals};

/// The thread that serves every listener of this process. It runs as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Thread {
    runtime: Handle,
    process: u32,
    ending: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    /// A descriptor that only this runtime watches. By it a forked child finds the runtime's own descriptors.
    marker: RawFd,
    is_let_go: AtomicBool,
}

static THREAD: Mutex<Weak<Thread>> = Mutex::new(Weak::new());

impl Thread {
    /// The thread of this process. Starts it if there is none.
    ///
    /// A forked child inherits the memory of a runtime that no thread drives, so it gets a thread of its own.
    pub(crate) fn of_this_process() -> io::Result<Arc<Self>> {
        let mut current = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = current.upgrade() {
            if thread.is_of_this_process() {
                return Ok(thread);
            }
            // It is the parent's. Dropping it would join a thread that is not here.
            std::mem::forget(thread);
        }
        let thread = Arc::new(Self::start()?);
        *current = Arc::downgrade(&thread);
        Ok(thread)
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let marker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let marker_number = marker.as_raw_fd();
        let watched = {
            let _runtime = handle.enter();
            sys::register_readable(marker)?
        };
        let (end, ended) = oneshot::channel::<()>();
        // Signals are for the program, which may wait for them in a thread of its own.
        let _blocked = BlockedSignals::new();
        let joined = thread::Builder::new()
            .name("proxyproto-rs".into())
            // The loop needs little stack. The default of 2 MiB is address space, which a container's limit may count.
            .stack_size(256 * 1024)
            .spawn(move || {
                // An error means that the sender is gone, so the thread is to end too.
                let _ = runtime.block_on(ended);
                drop(watched);
            })?;
        Ok(Self {
            runtime: handle,
            process: process::id(),
            ending: Mutex::new(Some((end, joined))),
            marker: marker_number,
            is_let_go: AtomicBool::new(false),
        })
    }

    /// In a forked child: closes the descriptors of the runtime, whose thread is not here.
    pub(crate) fn let_go(&self) {
        if self.is_let_go.swap(true, Ordering::AcqRel) {
            return;
        }
        // tokio does not name its descriptors. They are the epoll sets that watch the marker, and the eventfds in those sets:
        // the marker itself, and the one that wakes the thread.
        for epoll in descriptors_of_kind("anon_inode:[eventpoll]") {
            let watched = watched_by(epoll);
            if watched.contains(&self.marker) {
                let eventfds = descriptors_of_kind("anon_inode:[eventfd]");
                for eventfd in eventfds.into_iter().filter(|eventfd| watched.contains(eventfd)) {
                    sys::close_inherited(eventfd);
                }
                sys::close_inherited(epoll);
            }
        }
    }
}

/// While this exists, the background thread rests and no other thread works with our locks. See [`pause`].
#[derive(Debug)]
pub struct Paused {
    thread: Option<ThreadAtRest>,
    #[expect(dead_code, reason = "held for its drop, which must come last")]
    nobody: NobodyAtWork,
}

#[derive(Debug)]
struct ThreadAtRest {
    #[expect(dead_code, reason = "held for its drop, which must come before the thread's")]
    resume: mpsc::Sender<()>,
    /// Held, so that nobody who closes the last listener waits for a thread at rest.
    thread: Arc<Thread>,
}

/// Brings the background thread to rest and waits for threads that work with our locks, so that the process can fork.
///
/// Call it before the fork. After it, drop the result in the parent, and call [`Paused::let_go_in_child`] in the child. A
/// second thread that calls it waits for the first.
///
/// A fork copies every lock as it is. If another thread held a lock just then, of an [`AddressSet`](crate::AddressSet) for
/// example, nobody would ever unlock it in the child. Without this, 2 children in 1000 of a busy server hung when they used
/// the same set.
///
/// It waits for calls that can take long: [`Listener::take`](crate::Listener::take) on demand,
/// [`Listener::close`](crate::Listener::close), [`AddressSet::len`](crate::AddressSet::len) and
/// [`AddressSet::entries`](crate::AddressSet::entries). The caller must keep other threads from all other calls during the
/// fork. In Python the interpreter does that: either the thread that forks holds the interpreter lock, or, without that lock,
/// the fork stops all threads, and none of them within such a call.
#[must_use]
pub fn pause() -> Paused {
    let thread = bring_thread_to_rest();
    Paused { thread, nobody: NobodyAtWork::wait() }
}

fn bring_thread_to_rest() -> Option<ThreadAtRest> {
    let current = THREAD.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    let thread = current.filter(|thread| thread.is_of_this_process())?;
    let (rest, is_at_rest) = mpsc::channel();
    let (resume, resumed) = mpsc::channel::<()>();
    thread.runtime().spawn(async move {
        let _ = rest.send(());
        // This blocks everything on the thread, until the sender is dropped.
        let _ = resumed.recv();
    });
    // An error says that the thread is ending, and runs nothing any more.
    is_at_rest.recv().ok()?;
    Some(ThreadAtRest { resume, thread })
}

impl Paused {
    /// In the forked child: closes the descriptors of every listener of the parent.
    ///
    /// Without this, clients would not see the end of a connection that the parent closes, and could connect to a socket that
    /// the parent has closed, for as long as the child lives.
    ///
    /// The child must not drop the runtime of a [`ProxyListener`](crate::ProxyListener): its task holds descriptors that are
    /// closed here.
    pub fn let_go_in_child(self) {
        NobodyAtWork::forget_all();
        fork::let_go_of_all();
        if let Some(ThreadAtRest { thread, .. }) = &self.thread {
            thread.let_go();
        }
        // The thread is not here. To send to it or to join it could only hang.
        std::mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let ending = self.ending.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some((end, thread)) = ending else { return };
        if self.process != process::id() {
            // The thread is not here. To send to it or to join it could only hang.
            std::mem::forget((end, thread));
            return;
        }
        let _ = end.send(());
        // Afterwards neither the thread nor a descriptor of the runtime is left.
        let _ = thread.join();
    }
}
