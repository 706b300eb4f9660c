//! The one background thread, its runtime, and the process it belongs to.

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
