//! Forking: which locks may be held across a fork (none of ours), and what a child lets go of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::listener::Shared;

/// Every listener of this process that is open.
static LISTENERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// How many threads work with our locks while the program may fork: [`FORKING`] while it does.
///
/// A plain number, since a lock could itself be held at the fork.
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

/// This thread works with our locks; dropping it ends that.
///
/// Threads that a fork cannot interrupt need none: those that hold Python's interpreter lock, as the one that forks does,
/// and the background thread, which rests meanwhile.
#[derive(Debug)]
pub(crate) struct Work(());

impl Work {
    /// Waits while a fork is under way. A thread that works already must not call it again: the fork waits for its first
    /// work to end, and it would wait for the fork.
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

/// Nobody works with our locks, until this is dropped.
#[derive(Debug)]
pub(crate) struct NobodyAtWork(());

impl NobodyAtWork {
    /// Waits until whoever works, or forks, has done.
    pub(crate) fn wait() -> Self {
        while AT_WORK.fetch_or(FORKING, Ordering::AcqRel) & FORKING != 0 {
            thread::yield_now();
        }
        while AT_WORK.load(Ordering::Acquire) & !FORKING != 0 {
            thread::yield_now();
        }
        Self(())
    }

    /// In the child, whose other threads are gone in whatever they did.
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
