//! A TCP or UNIX stream socket on the runtime of its worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::sys;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Registers a non-blocking socket with the runtime of this thread.
    pub(crate) fn adopt(fd: OwnedFd, is_tcp: bool) -> io::Result<Self> {
        if is_tcp {
            TcpStream::from_std(fd.into()).map(Self::Tcp)
        } else {
            UnixStream::from_std(fd.into()).map(Self::Unix)
        }
    }

    /// Makes the kernel send small packets at once, and end the connection about `keepalive` after the peer's machine has
    /// gone silent or stopped acknowledging. Does nothing on a UNIX socket, whose peer is on this machine.
    pub(crate) fn tune(&self, keepalive: Option<Duration>) -> io::Result<()> {
        let Self::Tcp(socket) = self else { return Ok(()) };
        socket.set_nodelay(true)?;
        let Some(keepalive) = keepalive else { return Ok(()) };
        // Probes begin after a third of it. How many may go unanswered is not counted: TCP_USER_TIMEOUT ends that too.
        let third = (keepalive / 3).max(SECOND);
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, third)?;
        sockopt::set_tcp_keepintvl(socket, third)?;
        let milliseconds = u32::try_from(keepalive.as_millis()).unwrap_or(u32::MAX);
        Ok(sockopt::set_tcp_user_timeout(socket, milliseconds)?)
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        match shutdown(self, Shutdown::Write) {
            // The peer has reset the connection, and knows.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the kernel drop, when the socket is closed, the bytes that the peer has not taken.
    pub(crate) fn forget_unsent(&self) {
        // After an error the kernel goes on trying for a while.
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    /// The number of bytes in the kernel that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        sys::unacknowledged(self.as_fd())
    }
}

impl Drop for Socket {
    /// Ends the connection even if a forked child has a copy of the descriptor, which it keeps for as long as it lives.
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = shutdown(&*self, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// The kernel counts keep-alive times in seconds.
const SECOND: Duration = Duration::from_secs(1);
