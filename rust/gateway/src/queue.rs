//! The queue of events, and the one file descriptor that wakes the thread that takes them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

use crate::events::Event;

/// The queue. Workers put events in; any thread takes them out.
///
/// The wake fd is readable exactly while there is something to take. Both change under one lock, from when somebody has
/// asked for the fd: who waits in [`Queue::next`] saves two system calls an event.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes the task that waits in [`Queue::next`].
    pushed: Notify,
    /// The queue is full when so many events wait.
    full: usize,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Event>,
    /// Events that nobody was told, because the queue was full.
    dropped: u64,
    is_closed: bool,
    /// Somebody has a duplicate of `wake`.
    is_watched: bool,
    is_readable: bool,
    wake: OwnedFd,
}

impl Queue {
    pub(crate) fn new(full: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State {
            events: VecDeque::new(),
            dropped: 0,
            is_closed: false,
            is_watched: false,
            is_readable: false,
            wake,
        };
        Ok(Self { state: Mutex::new(state), pushed: Notify::new(), full })
    }

    /// A duplicate of the wake fd: readable while there is something to take, and for ever once closed.
    pub(crate) fn wake_fd(&self) -> io::Result<OwnedFd> {
        let mut state = self.lock();
        let wake = state.wake.try_clone()?;
        state.is_watched = true;
        state.show();
        Ok(wake)
    }

    /// Adds an event about a login that an earlier event has announced. It is never dropped. The number of these events is
    /// bounded by the number of announced logins.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.events.push_back(event);
        state.show();
        drop(state);
        self.pushed.notify_one();
    }

    /// Adds an event about something new. Strangers can cause any number of these, so a full queue drops it and returns
    /// false.
    pub(crate) fn offer(&self, event: Event) -> bool {
        let mut state = self.lock();
        if state.events.len() >= self.full {
            state.dropped += 1;
            return false;
        }
        drop(state);
        self.push(event);
        true
    }

    /// Takes all waiting events.
    pub(crate) fn take(&self) -> Vec<Event> {
        let mut state = self.lock();
        let events = std::mem::take(&mut state.events);
        state.show();
        events.into()
    }

    /// Waits for the next event; `None` once closed and empty.
    pub(crate) async fn next(&self) -> Option<Event> {
        loop {
            let pushed = self.pushed.notified();
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    state.show();
                    // Another task may wait for the next one.
                    if !state.events.is_empty() {
                        self.pushed.notify_one();
                    }
                    return Some(event);
                }
                if state.is_closed {
                    self.pushed.notify_one();
                    return None;
                }
            }
            pushed.await;
        }
    }

    /// The number of waiting events, and of dropped ones.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.lock();
        (state.events.len(), state.dropped)
    }

    /// Wakes every waiter for good. Waiting events can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.show();
        drop(state);
        self.pushed.notify_one();
    }

    // No code panics while it holds the lock. If some did, the queue would still be consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the wake fd readable while events wait or the queue is closed, and unreadable otherwise.
    fn show(&mut self) {
        let should_be = !self.events.is_empty() || self.is_closed;
        if !self.is_watched || should_be == self.is_readable {
            return;
        }
        // Neither can fail: the counter goes from 0 to 1 and back, under the lock.
        let done = if should_be {
            rustix::io::write(&self.wake, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(&self.wake, &mut [0; 8])
        };
        if done.is_ok() {
            self.is_readable = should_be;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::server_name::{ServerChange, ServerName};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn event(detail: &str) -> Event {
        let server = ServerName { configured: "a".into(), address: "b".into() };
        Event::Server(ServerChange { server, is_up: true, detail: detail.into() })
    }

    fn is_readable(queue: &Queue) -> bool {
        let wake = queue.wake_fd().unwrap();
        let mut fds = [PollFd::new(&wake, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn the_wake_fd_is_readable_exactly_while_something_waits() {
        let queue = Queue::new(8).unwrap();
        assert!(!is_readable(&queue));
        queue.push(event("1"));
        assert!(queue.offer(event("2")));
        assert!(is_readable(&queue));
        assert_eq!(queue.take().len(), 2);
        assert!(!is_readable(&queue) && queue.take().is_empty());
        queue.close();
        assert!(is_readable(&queue));
    }

    #[test]
    fn who_asks_late_for_the_wake_fd_sees_what_has_waited() {
        let queue = Queue::new(8).unwrap();
        queue.push(event("1"));
        assert!(is_readable(&queue));
    }

    #[test]
    fn a_full_queue_takes_what_follows_and_nothing_new() {
        let queue = Queue::new(2).unwrap();
        assert!(queue.offer(event("1")) && queue.offer(event("2")));
        assert!(!queue.offer(event("3")));
        queue.push(event("4"));
        assert_eq!(queue.counts(), (3, 1));
        assert_eq!(queue.take().len(), 3);
        assert!(queue.offer(event("5")));
    }

    #[tokio::test]
    async fn every_task_that_waits_gets_one_or_learns_of_the_end() {
        let queue = Arc::new(Queue::new(8).unwrap());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.next().await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.push(event("1"));
        queue.push(event("2"));
        tokio::task::yield_now().await;
        queue.close();
        let mut told = 0;
        for waiter in waiters {
            told += usize::from(waiter.await.unwrap());
        }
        assert_eq!(told, 2);
        assert!(queue.next().await.is_none());
    }
}
