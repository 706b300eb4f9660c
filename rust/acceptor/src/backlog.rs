//! The kernel's queue of connections: taking one, and asking to be told of the next.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::addresses::PeerAddr;
use crate::sys;
use crate::watch::Watch;

/// Where connections come from. Tests of the loop have one of their own, without a kernel's timing.
pub(crate) trait Backlog: Send + Sync {
    /// Takes the next connection that is there now.
    fn accept(&self) -> Result<(OwnedFd, PeerAddr), End>;

    /// Asks for an event when a connection is there: at once if one is there already.
    fn arm(&self);

    /// Stops listening for all who hold the socket. Whoever connects now is refused, and could else connect to a queue that
    /// nobody empties any more; a successor can bind the address.
    fn stop(&self);

    /// Lets the kernel hold connections back until they have sent something, or not.
    fn defer_accept(&self, on: bool);

    /// Closes the listening socket. Where others hold it too, it goes on listening for them.
    fn close(&self);

    /// Closes a forked child's copy of the listening socket. What is watched is the parent's, so it is left alone.
    fn let_go(&self);

    /// A duplicate of the listening socket; `NotConnected` once closed.
    fn duplicate(&self) -> io::Result<OwnedFd>;
}

/// Why there is no next connection.
#[derive(Debug)]
pub(crate) enum End {
    /// Nothing is left.
    Empty,
    /// This process or the system is out of descriptors or memory: closing some helps.
    Exhausted(io::Error),
    /// The system does not allow it, or something that we do not know: a pause may help, trying at once not.
    Forbidden(io::Error),
    /// The listening socket itself is broken, or closed.
    Broken(io::Error),
}

/// A listening socket's queue.
pub(crate) struct KernelQueue {
    /// `None` once closed.
    listening: RwLock<Option<OwnedFd>>,
    watch: Watch,
}

impl KernelQueue {
    /// The queue of `listening`, whose events `watch` shows.
    pub(crate) fn new(listening: OwnedFd, watch: Watch) -> io::Result<Self> {
        watch.add_listening(listening.as_fd())?;
        Ok(Self { listening: RwLock::new(Some(listening)), watch })
    }

    /// Gives the listening socket to `ask`, while it is open.
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
        // It fails only for a socket that has been closed, and then nobody waits for it.
        let _ = self.with(|listening| self.watch.arm(listening));
    }

    fn stop(&self) {
        // It fails only for a socket that does not listen.
        let _ = self.with(|listening| Ok(rustix::net::shutdown(listening, rustix::net::Shutdown::Both)?));
    }

    fn defer_accept(&self, on: bool) {
        // It saves work only, so a kernel that refuses costs nothing but that.
        let _ = self.with(|listening| sys::set_defer_accept(listening, i32::from(on)));
    }

    fn close(&self) {
        if let Some(listening) = self.take() {
            // Others may hold the socket, and then closing it would leave it watched.
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

/// Takes one connection, passing over those that ended while they waited.
fn accept(listening: BorrowedFd<'_>) -> Result<(OwnedFd, PeerAddr), End> {
    loop {
        return match acceptfrom_with(listening, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, address)) => Ok((fd, PeerAddr::from_kernel(address))),
            Err(Errno::AGAIN) => Err(End::Empty),
            Err(error @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => {
                Err(End::Broken(error.into()))
            }
            // The connection ended while it waited; on Linux its own network errors come up here too (accept(2)).
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
            // What we do not know may come again at once; a pause keeps it from spinning.
            Err(error) => Err(End::Forbidden(error.into())),
        };
    }
}
