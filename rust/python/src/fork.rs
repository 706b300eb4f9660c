//! The functions to call before and after a fork, for `os.register_at_fork`.

use std::sync::{Mutex, PoisonError};

use proxyproto_acceptor::{self as acceptor, Paused};
use pyo3::prelude::*;

static PAUSED: Mutex<Option<Paused>> = Mutex::new(None);

/// Pause the background thread, and wait for threads that work without the interpreter. So the child inherits no lock
/// that another thread holds.
#[pyfunction]
pub(crate) fn _before_fork(py: Python<'_>) {
    // Two threads may fork at once. The second waits here until the first has resumed the background thread. The first
    // needs the interpreter for that, so it is released here.
    let paused = py.detach(acceptor::pause);
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(paused);
}

/// Resume the background thread.
#[pyfunction]
pub(crate) fn _after_fork_in_parent() {
    drop(take());
}

/// Close what the parent's listeners have open, and forget the background thread, which does not exist in the child.
#[pyfunction]
pub(crate) fn _after_fork_in_child() {
    if let Some(paused) = take() {
        paused.let_go_in_child();
    }
}

fn take() -> Option<Paused> {
    PAUSED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
