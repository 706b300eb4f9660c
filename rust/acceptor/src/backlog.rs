//! The kernel's queue of connections: taking one, and asking for an event when the next one comes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::addresses::PeerAddr;
use crate::sys;
use crate::watch::Watch;

/// Where connections come from. The tests of the loop use a fake one, which has no timing of its own.
pub(crate) trait Backlog: Send + Sync {
    /// Takes the next connection that is there now.
    fn accept(&self) -> Result<(OwnedFd, PeerAddr), End>;

    /// Asks for one event when a connection is there. If one is there already, the event comes at once.
    fn arm(&self);

    /// Stops listening, for all who hold the socket. From now on the kernel refuses clients, which would otherwise wait in a
    /// queue that nobody empties. A successor can bind the address.
    fn stop(&self);

    /// Sets whether the kernel holds connections back until they have sent something.
    fn defer_accept(&self, on: bool);

    /// Closes the listening socket. If others hold it too, it goes on listening for them.
    fn close(&self);

    /// Closes a forked child's copy of the listening socket. It leaves the epoll set alone, which is the parent's.
    fn let_go(&self);

    /// A duplicate of the listening socket; `NotConnected` once closed.
    fn duplicate(&self) -> io::Result<OwnedFd>;
}

/// Why there is no next connection.
#[derive(Debug)]
pub(crate) enum End {
    /// The queue is empty.
    Empty,
    /// The process or the system is out of descriptors or memory. Closing some connections helps.
    Exhausted(io::Error),
    /// The system forbids it, or the error is unknown. Another attempt makes sense only after a pause.
    Forbidden(io::Error),
    /// The listening socket itself is broken or closed.
    Broken(io::Error),
}

/// A listening socket's queue.
pub(crate) struct KernelQueue {
    /// `None` once closed.
    listening: RwLock<Option<OwnedFd>>,
    watch: Watch,
}

impl KernelQueue {
    /// The queue of `listening`, whose events come by `watch`.
    pub(crate) fn new(listening: OwnedFd, watch: Watch) -> io::Result<Self> {
        watch.add_listening(listening.as_fd())?;
        Ok(Self { listening: RwLock::new(Some(listening)), watch })
    }

    /// Calls `ask` with the listening socket, if it is open.
    fn with<T>(&self, ask: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match &*self.read() {
            Some(listening) => ask(listening.as_fd()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn take(&self) -> Option<OwnedFd> {
        self.listening.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<OwnedFd>> {
        self.listening.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog for KernelQueue {
    fn accept(&self) -> Result<(OwnedFd, PeerAddr), End> {
        match &*self.read() {
            Some(listening) => accept(listening.as_fd()),
            None => Err(End::Broken(io::ErrorKind::NotConnected.into())),
        }
    }

    fn arm(&self) {
        // It fails only if the socket has been closed, and then nobody waits for an event.
        let _ = self.with(|listening| self.watch.arm(listening));
    }

    fn stop(&self) {
        // It fails only if the socket does not listen.
        let _ = self.with(|listening| Ok(rustix::net::shutdown(listening, rustix::net::Shutdown::Both)?));
    }

    fn defer_accept(&self, on: bool) {
        // It only saves work, so a refusal of the kernel does no harm.
        let _ = self.with(|listening| sys::set_defer_accept(listening, i32::from(on)));
    }

    fn close(&self) {
        if let Some(listening) = self.take() {
            // If others hold the socket too, it would stay in the epoll set after we close it.
            self.watch.forget(listening.as_fd());
        }
    }

    fn let_go(&self) {
        drop(self.take());
    }

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.with(|listening| listening.try_clone_to_owned())
    }
}

/// Takes one connection. It skips those that ended while they waited.
fn accept(listening: BorrowedFd<'_>) -> Result<(OwnedFd, PeerAddr), End> {
    loop {
        return match acceptfrom_with(listening, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, address)) => Ok((fd, PeerAddr::from_kernel(address))),
            Err(Errno::AGAIN) => Err(End::Empty),
            Err(error @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => {
                Err(End::Broken(error.into()))
            }
            // The connection ended while it waited. Linux also returns pending network errors of the new socket here
            // (accept(2)).
            Err(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET,
            ) => continue,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                Err(End::Exhausted(error.into()))
            }
            // An unknown error may come again at once. The pause keeps the loop from spinning.
            Err(error) => Err(End::Forbidden(error.into())),
        };
    }
}
