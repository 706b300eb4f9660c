//! How many descriptors late connections may take, so that some are left for those that are served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

/// How many listeners are open in this process.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// Whether a listener has said that this process has too few descriptors. Once is enough for all of them.
pub(crate) static SAID: AtomicBool = AtomicBool::new(false);

/// Counts one open listener, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenListener(());

impl OpenListener {
    pub(crate) fn new() -> Self {
        LISTENERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for OpenListener {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections of one listener may wait for their header, if its options allow `wanted`.
///
/// All listeners together leave half of `RLIMIT_NOFILE` free. Before that, 1,100 strangers that sent one byte each took all of
/// the usual 1,024 descriptors: a good connection waited 5 s until one of them timed out, and the program could open no file.
pub(crate) fn most_pending(wanted: usize) -> usize {
    let Some(limit) = limit() else { return wanted };
    let share = limit / 2 / LISTENERS.load(Ordering::Relaxed).max(1);
    wanted.min(share.max(1))
}

/// How many descriptors this process may have; `None` if there is no limit.
pub(crate) fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_limit_is_left_by_all_listeners_together() {
        let limit = limit().unwrap_or(usize::MAX);
        assert_eq!(most_pending(1), 1);
        let _one = OpenListener::new();
        let alone = most_pending(usize::MAX);
        assert!(alone <= limit / 2, "{alone} of {limit}");
        // Other tests of this process may have listeners too, so there are at least three.
        let _more = [OpenListener::new(), OpenListener::new()];
        assert!(most_pending(usize::MAX) <= limit / 6);
    }
}
