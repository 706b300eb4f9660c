//! What is to be done before and after a fork, for `os.register_at_fork`.

use std::sync::{Mutex, PoisonError};

use proxyproto_acceptor::{self as acceptor, Paused};
use pyo3::prelude::*;

static PAUSED: Mutex<Option<Paused>> = Mutex::new(None);

/// Bring the background thread to rest, and wait for whoever works without the interpreter, so that the child inherits no
/// lock that another thread holds.
#[pyfunction]
pub(crate) fn _before_fork(py: Python<'_>) {
    // Two threads may fork at once; the second waits here until the first has resumed the thread, which takes the
    // interpreter.
    let paused = py.detach(acceptor::pause);
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = paused;
}

/// Let the background thread go on.
#[pyfunction]
pub(crate) fn _after_fork_in_parent() {
    drop(take());
}

/// Close what the parent's listeners have open, and forget the background thread, which is not here.
#[pyfunction]
pub(crate) fn _after_fork_in_child() {
    if let Some(paused) = take() {
        paused.let_go_in_child();
    }
}

fn take() -> Option<Paused> {
    PAUSED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
