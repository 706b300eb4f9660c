//! The functions to call before and after a fork, for `os.register_at_fork`.

use std::sync::{Mutex, PoisonError};

use proxyproto_acceptor as acceptor;
use proxyproto_gateway as gateway;
use pyo3::prelude::*;

/// What rests while the program forks.
struct Paused {
    workers: gateway::Paused,
    listeners: acceptor::Paused,
    #[cfg(broker)]
    brokers: Vec<acceptor::InheritedDescriptors>,
}

static PAUSED: Mutex<Option<Paused>> = Mutex::new(None);

/// Pause the background threads, and wait for threads that work without the interpreter. So the child inherits no lock
/// that another thread holds.
#[pyfunction]
pub(crate) fn _before_fork(py: Python<'_>) {
    // Two threads may fork at once. The second waits here until the first has resumed the background thread. The first
    // needs the interpreter for that, so it is released here.
    // The workers come first: one may have to wait for work with a listener, and rest only then.
    let (workers, listeners) = py.detach(|| (gateway::pause(), acceptor::pause()));
    let paused = Paused {
        workers,
        listeners,
        #[cfg(broker)]
        brokers: crate::broker::descriptors(),
    };
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(paused);
}

/// Resume the background threads.
#[pyfunction]
pub(crate) fn _after_fork_in_parent() {
    drop(take());
}

/// Close what the parent's listeners, gateways and brokers have open, and forget the background threads, which do not exist in the
/// child.
#[pyfunction]
pub(crate) fn _after_fork_in_child() {
    if let Some(paused) = take() {
        paused.workers.let_go_in_child();
        paused.listeners.let_go_in_child();
        #[cfg(broker)]
        paused.brokers.into_iter().for_each(acceptor::InheritedDescriptors::close_in_child);
    }
}

fn take() -> Option<Paused> {
    PAUSED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
