//! Forking: the workers rest meanwhile, and a child closes what it inherited of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;

use proxyproto_acceptor::InheritedDescriptors;

use crate::worker::Seats;

/// The workers of every gateway of this process.
static WORKERS: Mutex<Vec<Weak<Seats>>> = Mutex::new(Vec::new());

/// Somebody forks, or changes [`WORKERS`].
///
/// Two that fork at once would each wait for a worker that rests for the other. It is a plain flag, because a lock could
/// itself be held at the fork.
static IS_BUSY: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Busy(());

impl Busy {
    fn wait() -> Self {
        while IS_BUSY.swap(true, Ordering::AcqRel) {
            thread::yield_now();
        }
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        IS_BUSY.store(false, Ordering::Release);
    }
}

/// Remembers the workers of a gateway, for [`pause`].
pub(crate) fn remember(seats: &Arc<Seats>) {
    let _busy = Busy::wait();
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    workers.retain(|seats| seats.strong_count() > 0);
    workers.push(Arc::downgrade(seats));
}

/// While this exists, the workers of all gateways rest. See [`pause`].
#[derive(Debug)]
pub struct Paused {
    /// Its end lets the workers go on.
    resume: Vec<mpsc::Sender<()>>,
    descriptors: Vec<InheritedDescriptors>,
    #[expect(dead_code, reason = "held for its drop, which must come last")]
    busy: Busy,
}

/// Brings the workers of all gateways to rest, so that the process can fork.
///
/// Call it before [`proxyproto_acceptor::pause`], for which workers may have to wait, and then fork. Afterwards drop the
/// result in the parent, and call [`Paused::let_go_in_child`] in the child. A second thread that calls it waits for the first.
///
/// At rest a worker holds no lock and changes no descriptor, so the child knows what it has inherited.
#[must_use]
pub fn pause() -> Paused {
    let mut paused = Paused { resume: Vec::new(), descriptors: Vec::new(), busy: Busy::wait() };
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let gateways: Vec<_> = workers.iter().filter_map(Weak::upgrade).collect();
    // In a child there is none of them.
    workers.retain(|seats| seats.upgrade().is_some_and(|seats| seats.are_of_this_process()));
    drop(workers);
    let resting: Vec<_> = gateways
        .iter()
        .filter(|seats| seats.are_of_this_process())
        .flat_map(|seats| seats.all())
        .map(|(runtime, descriptors)| {
            let (rest, is_at_rest) = mpsc::channel();
            let (resume, resumed) = mpsc::channel::<()>();
            runtime.spawn(async move {
                let _ = rest.send(());
                // This blocks everything on the thread, until the sender is dropped.
                let _ = resumed.recv();
            });
            (is_at_rest, resume, descriptors)
        })
        .collect();
    for (is_at_rest, resume, descriptors) in resting {
        // An error says that the worker has ended, and has nothing open any more.
        if is_at_rest.recv().is_ok() {
            paused.resume.push(resume);
            paused.descriptors.push(descriptors.now());
        }
    }
    paused
}

impl Paused {
    /// In the forked child: closes what the workers of the parent have open. A connection that was being handed to a worker
    /// at the fork may be left.
    ///
    /// Without this, a child would keep the memory of the parent's connections in the kernel, and the descriptors, for as
    /// long as it lives.
    pub fn let_go_in_child(mut self) {
        // The workers are not here, and nobody receives.
        std::mem::forget(std::mem::take(&mut self.resume));
        for descriptors in self.descriptors.drain(..) {
            descriptors.close_in_child();
        }
    }
}
