//! What the acceptor's task waits for: one epoll set with the listening socket and every late connection.
//!
//! The task's runtime watches only the descriptor of that set. So a waiting connection costs the runtime nothing, and a forked
//! child knows every descriptor that it inherited.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::event::{Timespec, epoll};

use crate::sys;

/// The token of the listening socket. The tokens of late connections count up from 0 and never get there.
const BACKLOG: u64 = u64::MAX;

/// The epoll set, which clones share. After the close it watches nothing.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<RwLock<Option<Arc<OwnedFd>>>>);

/// An event of the epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kernel's queue has a connection.
    Backlog,
    /// The late connection with this token has something to show. `is_closed`: no more bytes will come, because the peer has
    /// closed its side or the connection is broken.
    Late { token: u64, is_closed: bool },
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Arc::new(RwLock::new(Some(Arc::new(epoll))))))
    }

    /// The descriptor of the set. It is readable while there is an event.
    pub(crate) fn descriptor(&self) -> io::Result<Arc<OwnedFd>> {
        self.with(|epoll| Ok(Arc::clone(epoll)))
    }

    /// Adds a listening socket, which is watched when [`Watch::arm`] is called.
    pub(crate) fn add_listening(&self, listening: BorrowedFd<'_>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(BACKLOG);
        self.with(|epoll| epoll::add(epoll, listening, data, epoll::EventFlags::ONESHOT))
    }

    /// Asks for one event of the listening socket. If a connection is there already, the event comes at once.
    ///
    /// Every event has to be asked for. A socket that is watched all the time would wake the thread for each connection, also
    /// while nobody has taken the ones before it.
    pub(crate) fn arm(&self, listening: BorrowedFd<'_>) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        self.with(|epoll| epoll::modify(epoll, listening, epoll::EventData::new_u64(BACKLOG), flags))
    }

    /// Watches a late connection, under this token.
    pub(crate) fn add_late(&self, connection: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        // Edge-triggered: the bytes of the header stay in the kernel, so the socket would be ready all the time.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        self.with(|epoll| epoll::add(epoll, connection, epoll::EventData::new_u64(token), flags))
    }

    /// Stops watching this descriptor.
    ///
    /// The connection may live on, and each message on it would wake the thread: 20,000 small ones cost 58 ms of its time.
    /// Closing the descriptor would not be enough, because a forked child may hold it too.
    pub(crate) fn forget(&self, descriptor: BorrowedFd<'_>) {
        // It fails only if the descriptor is not watched.
        let _ = self.with(|epoll| epoll::delete(epoll, descriptor));
    }

    /// Takes the events that are there now, at most `most`.
    pub(crate) fn events(&self, most: usize) -> io::Result<Vec<Event>> {
        let mut events = Vec::with_capacity(most);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.with(|epoll| {
            rustix::io::retry_on_intr(|| {
                epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&no_wait))
            })
        })?;
        Ok(events.into_iter().map(Event::from).collect())
    }

    /// Gives up the descriptor. It is closed when the runtime's registration has ended too.
    pub(crate) fn close(&self) {
        drop(self.take());
    }

    /// Closes a forked child's copy.
    pub(crate) fn let_go(&self) {
        if let Some(epoll) = self.take() {
            // The other owner is the parent's task. The child has only a dead copy of it, which is never dropped.
            sys::close_inherited(epoll.as_raw_fd());
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Arc<OwnedFd>) -> rustix::io::Result<T>) -> io::Result<T> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(epoll) => Ok(act(epoll)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn take(&self) -> Option<Arc<OwnedFd>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<epoll::Event> for Event {
    fn from(event: epoll::Event) -> Self {
        let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let epoll::Event { flags, data } = event;
        match data.u64() {
            BACKLOG => Self::Backlog,
            token => Self::Late { token, is_closed: flags.intersects(gone) },
        }
    }
}
