//! Events that wait to be taken, and the one file descriptor that wakes whoever takes them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

use crate::events::Event;

/// The queue's two ends: the workers put in, any thread takes out.
///
/// The wake fd is readable exactly while there is something to take, and both change under one lock.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes the task that waits in [`Queue::next`].
    pushed: Notify,
    /// From how many waiting events on the queue counts as full.
    full: usize,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Event>,
    /// Events that nobody was told, because the queue was full.
    dropped: u64,
    is_closed: bool,
    is_readable: bool,
    wake: OwnedFd,
}

impl Queue {
    pub(crate) fn new(full: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State { events: VecDeque::new(), dropped: 0, is_closed: false, is_readable: false, wake };
        Ok(Self { state: Mutex::new(state), pushed: Notify::new(), full })
    }

    /// A duplicate of the wake fd: readable while there is something to take, and for ever once closed.
    pub(crate) fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.lock().wake.try_clone()
    }

    /// Tells what follows from something that was told before. It is never dropped: there are no more of these than logins
    /// that were told.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.events.push_back(event);
        state.show();
        drop(state);
        self.pushed.notify_one();
    }

    /// Tells of something new, which strangers may cause as often as they like. Returns false if the queue is full.
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

    /// Takes all that is there.
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

    /// How many wait, and how many were dropped.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.lock();
        (state.events.len(), state.dropped)
    }

    /// Wakes every waiter for good. What is there can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.show();
        drop(state);
        self.pushed.notify_one();
    }

    // A panic while the lock is held would be a bug here; the queue is still a queue.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the wake fd readable, or not, as the rest says.
    fn show(&mut self) {
        let should_be = !self.events.is_empty() || self.is_closed;
        if should_be == self.is_readable {
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
