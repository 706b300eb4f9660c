//! Forking: none of our locks is held across a fork, and a child closes what it inherited.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::listener::Shared;

/// Every listener of this process that is open.
static LISTENERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// How many threads are at work, and the bit [`FORKING`] while the program forks.
///
/// It is a plain number, because a lock could itself be held at the fork.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

const FORKING: usize = 1 << (usize::BITS - 1);

/// Remembers an open listener, for [`let_go_of_all`].
pub(crate) fn remember(shared: &Arc<Shared>) {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|listener| listener.strong_count() > 0);
    listeners.push(Arc::downgrade(shared));
}

/// In a forked child: closes the descriptors of every listener of the parent.
pub(crate) fn let_go_of_all() {
    let listeners = std::mem::take(&mut *LISTENERS.lock().unwrap_or_else(PoisonError::into_inner));
    for shared in listeners.iter().filter_map(Weak::upgrade) {
        shared.let_go();
    }
}

/// Says that this thread works with our locks, until it is dropped.
///
/// A thread needs this if a fork can come in between. It cannot for the background thread, which rests during a fork, nor for
/// threads that are attached to Python's interpreter. With the interpreter lock, only the thread that forks is attached.
/// Without that lock (free-threaded builds), the fork first stops every attached thread, and none stops within our code
/// (`PyOS_BeforeFork` calls `_PyEval_StopTheWorldAll`).
#[derive(Debug)]
pub(crate) struct Work(());

impl Work {
    /// Waits while a fork is under way.
    ///
    /// A thread at work must not call it again: the fork would wait for its first work, and the thread for the fork. Nor must
    /// a thread that is attached to Python's interpreter, for which the thread that forks may wait.
    pub(crate) fn begin() -> Self {
        while AT_WORK.fetch_add(1, Ordering::Acquire) & FORKING != 0 {
            AT_WORK.fetch_sub(1, Ordering::Release);
            thread::yield_now();
        }
        Self(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, Ordering::Release);
    }
}

/// Keeps all threads from work with our locks, until it is dropped.
#[derive(Debug)]
pub(crate) struct NobodyAtWork(());

impl NobodyAtWork {
    /// Waits until no thread is at work, and no other thread forks.
    pub(crate) fn wait() -> Self {
        while AT_WORK.fetch_or(FORKING, Ordering::AcqRel) & FORKING != 0 {
            thread::yield_now();
        }
        while AT_WORK.load(Ordering::Acquire) & !FORKING != 0 {
            thread::yield_now();
        }
        Self(())
    }

    /// In the child: its other threads are gone, whatever they were doing.
    pub(crate) fn forget_all() {
        AT_WORK.store(0, Ordering::Release);
    }
}

impl Drop for NobodyAtWork {
    fn drop(&mut self) {
        AT_WORK.fetch_and(!FORKING, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_waits_for_who_works_and_who_comes_waits_for_the_fork() {
        let work = Work::begin();
        let waiting = thread::spawn(|| {
            let nobody = NobodyAtWork::wait();
            let late = thread::spawn(Work::begin);
            thread::yield_now();
            let is_waiting = !late.is_finished();
            drop(nobody);
            drop(late.join().unwrap());
            is_waiting
        });
        while AT_WORK.load(Ordering::Acquire) & FORKING == 0 {
            thread::yield_now();
        }
        assert!(!waiting.is_finished());
        drop(work);
        assert!(waiting.join().unwrap(), "work began while a fork was under way");
        drop(Work::begin());
    }

    #[test]
    fn a_fork_waits_for_another() {
        let first = NobodyAtWork::wait();
        let second = thread::spawn(NobodyAtWork::wait);
        thread::yield_now();
        assert!(!second.is_finished());
        drop(first);
        drop(second.join().unwrap());
    }
}
