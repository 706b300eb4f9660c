//! The one background thread, its runtime, and the process it belongs to.

use std::fs;
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
use crate::sys::{self, BlockedSignals};

/// The thread that serves every listener of this process. It runs while somebody holds it.
#[derive(Debug)]
pub(crate) struct Thread {
    runtime: Handle,
    process: u32,
    ending: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    /// A descriptor that only this runtime watches. A forked child knows the runtime's own descriptors by it.
    marker: RawFd,
    is_let_go: AtomicBool,
}

static THREAD: Mutex<Weak<Thread>> = Mutex::new(Weak::new());

impl Thread {
    /// The thread of this process, started if there is none.
    ///
    /// After a fork the child inherits the memory of a runtime that no thread drives any more, so it gets one of its own.
    pub(crate) fn of_this_process() -> io::Result<Arc<Self>> {
        let mut current = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = current.upgrade() {
            if thread.is_of_this_process() {
                return Ok(thread);
            }
            // Dropping the parent's would join a thread that is not here.
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
        // Signals are the program's, which may wait for them in a thread of its own.
        let _blocked = BlockedSignals::new();
        let joined = thread::Builder::new()
            .name("proxyproto-rs".into())
            // The loop is flat; the default of 2 MiB is address space that a container's limit may count.
            .stack_size(256 * 1024)
            .spawn(move || {
                // An error means that the sender is gone, which says the same.
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

    /// In a forked child: closes the runtime's descriptors, whose thread is not here.
    pub(crate) fn let_go(&self) {
        if self.is_let_go.swap(true, Ordering::AcqRel) {
            return;
        }
        // The runtime does not tell its descriptors. They are the epoll instances that watch the marker, and the eventfds
        // that those watch: the marker itself, and what wakes the thread.
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

/// The open descriptors of which the kernel says this.
fn descriptors_of_kind(kind: &str) -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == kind))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What an epoll instance watches, by the numbers under which it was added.
fn watched_by(epoll: RawFd) -> Vec<RawFd> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .collect()
}

/// The background thread at rest, and nobody else at work with our locks, until this is dropped. See [`pause`].
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
    /// Held: whoever else closes the last listener would wait for a thread at rest.
    thread: Arc<Thread>,
}

/// Brings the background thread to rest, if there is one, and waits until no other thread is at work in this crate: call it
/// before a fork, and drop what it returns after it. In the child call [`Paused::let_go_in_child`] in place of that. A thread
/// that calls it meanwhile waits.
///
/// A fork copies every lock as it is. Nobody would ever unlock one in the child that another thread holds just then, of an
/// [`AddressSet`](crate::AddressSet) or of [`ClientLimits`](crate::ClientLimits). Without this, 2 children in 1000 of a busy
/// server hung when they used the same set.
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
        // This blocks all that runs on the thread. An error is the sender's drop.
        let _ = resumed.recv();
    });
    // An error says that the thread ends, and runs nothing any more.
    is_at_rest.recv().ok()?;
    Some(ThreadAtRest { resume, thread })
}

impl Paused {
    /// In the forked child: closes the descriptors of every listener of the parent.
    ///
    /// Without that their clients would see no end of a connection that the parent closes, and could go on connecting to a
    /// socket that it has closed, for as long as the child lives.
    pub fn let_go_in_child(self) {
        NobodyAtWork::forget_all();
        fork::let_go_of_all();
        if let Some(ThreadAtRest { thread, .. }) = &self.thread {
            thread.let_go();
        }
        // The thread is not here, and telling or joining it could only hang.
        std::mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let ending = self.ending.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some((end, thread)) = ending else { return };
        if self.process != process::id() {
            // Neither the thread nor its wake-ups are here; telling or joining it could only hang.
            std::mem::forget((end, thread));
            return;
        }
        let _ = end.send(());
        // After this no thread and no descriptor of the runtime is left.
        let _ = thread.join();
    }
}
