//! The kernel's queue of connections: taking from it in batches.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;

use crate::addresses::{LocalAddr, PeerAddr};
use crate::sys;

/// A listening socket whose queue is served.
pub(crate) struct Backlog(AsyncFd<OwnedFd>);

/// What the queue had.
pub(crate) struct Batch {
    pub(crate) connections: Vec<(OwnedFd, PeerAddr)>,
    /// Why there are not more; `None` if more may be there.
    pub(crate) end: Option<End>,
}

/// Why a batch ended.
pub(crate) enum End {
    /// Nothing is left.
    Empty,
    /// This process or the system is out of descriptors or memory, or forbids it: a pause may help, trying at once not.
    Exhausted(io::Error),
    /// The listening socket itself is broken.
    Broken(io::Error),
}

impl Backlog {
    /// Must be called where a runtime is entered.
    pub(crate) fn new(listening: OwnedFd) -> io::Result<Self> {
        Ok(Self(sys::register_readable(listening)?))
    }

    /// Completes when there are connections or an error, with at most as many as `most` says then.
    pub(crate) async fn ready(&self, most: impl Fn() -> usize) -> Batch {
        loop {
            let mut readable = match self.0.readable().await {
                Ok(readable) => readable,
                Err(error) => return Batch { connections: Vec::new(), end: Some(End::Broken(error)) },
            };
            let batch = self.take(most());
            if matches!(batch.end, Some(End::Empty)) {
                readable.clear_ready();
                if batch.connections.is_empty() {
                    continue;
                }
            }
            return batch;
        }
    }

    /// Takes at most `most` connections that are there now.
    pub(crate) fn take(&self, most: usize) -> Batch {
        let mut connections = Vec::new();
        while connections.len() < most {
            match accept(self.0.get_ref()) {
                Ok(connection) => connections.push(connection),
                Err(end) => return Batch { connections, end: Some(end) },
            }
        }
        Batch { connections, end: None }
    }

    /// Stops listening for all who hold the socket. Whoever connects now is refused, and could else connect to a queue
    /// that nobody empties any more; a successor can bind the address.
    pub(crate) fn stop(&self) {
        // It fails only for a socket that does not listen.
        let _ = rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Both);
    }
}

/// Takes one connection, passing over those that ended while they waited.
fn accept(listening: &OwnedFd) -> Result<(OwnedFd, PeerAddr), End> {
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
            // What we do not know may come again at once; a pause keeps it from spinning.
            Err(error) => Err(End::Exhausted(error.into())),
        };
    }
}

/// Turns deferred accept on or off; a socket that does not know it (UNIX) goes on without.
pub(crate) fn set_defer_accept(listening: &OwnedFd, local: &LocalAddr, on: bool) {
    if matches!(local, LocalAddr::Ip(_)) {
        // It saves work only, so a kernel that refuses costs nothing but that.
        let _ = sys::set_defer_accept(listening.as_fd(), i32::from(on));
    }
}
