//! The one background thread, its runtime, and the process it belongs to.

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::sys::BlockedSignals;

/// The thread that serves every listener of this process. It runs while somebody holds it.
#[derive(Debug)]
pub(crate) struct Thread {
    runtime: Handle,
    process: u32,
    ending: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
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
            })?;
        Ok(Self { runtime: handle, process: process::id(), ending: Mutex::new(Some((end, joined))) })
    }
}

/// The background thread at rest, until this is dropped. See [`pause`].
#[derive(Debug)]
pub struct Paused {
    #[expect(dead_code, reason = "held for its drop, which must come before the thread's")]
    resume: mpsc::Sender<()>,
    #[expect(
        dead_code,
        reason = "held: whoever else closes the last listener would wait for a thread at rest"
    )]
    thread: Arc<Thread>,
}

/// Brings the background thread to rest, if there is one: call it before a fork, and drop what it returns after it.
///
/// A fork copies every lock as it is. One that the thread holds just then, of an [`AddressSet`](crate::AddressSet) or of
/// [`ClientLimits`](crate::ClientLimits), nobody would ever unlock in the child. At rest it holds none. Without this, 2
/// children in 1000 of a busy server hung when they used the same set.
///
/// In the child, forget what it returns: the thread is not there.
#[must_use]
pub fn pause() -> Option<Paused> {
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
    Some(Paused { resume, thread })
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
