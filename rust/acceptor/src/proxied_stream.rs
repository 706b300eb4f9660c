//! A connection as a tokio server reads and writes it, with its header.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use proxyproto_codec::Header;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

use crate::addresses::{LocalAddr, PeerAddr};
use crate::permit::Permit;
use crate::queue::Connection;
use crate::socket;
use crate::stream_io::StreamIo;

/// A connection whose header has been read. Its first byte is the one behind the header.
///
/// It holds a place among the open connections (`max_connections`, `client_limits`) until it is dropped.
#[derive(Debug)]
pub struct ProxiedStream {
    io: StreamIo,
    is_tcp: bool,
    header: Option<Header>,
    peer: PeerAddr,
    permit: Permit,
}

/// The parts of a [`ProxiedStream`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The connection itself.
    pub stream: InnerStream,
    /// The header; `None` for a connection that is served without one.
    pub header: Option<Header>,
    /// The other end of the connection: the proxy, or a client that is served directly.
    pub peer: PeerAddr,
    /// Its place among the open connections. Dropping it gives the place back.
    pub permit: Permit,
}

/// The connection itself, as tokio's own stream.
#[derive(Debug)]
pub enum InnerStream {
    /// Accepted on an internet address.
    Tcp(TcpStream),
    /// Accepted on a UNIX socket.
    Unix(UnixStream),
}

impl ProxiedStream {
    pub(crate) fn new(connection: Connection, is_tcp: bool, runtime: Handle) -> Self {
        let Connection { fd, header, peer, permit, has_payload } = connection;
        Self { io: StreamIo::new(fd, runtime, has_payload), is_tcp, header, peer, permit }
    }

    /// The header; `None` for a connection that is served without one.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The client's address: the one in the header, or the peer's if the header names nobody (LOCAL, UNKNOWN, UNSPEC) or there
    /// is no header.
    ///
    /// It is `0.0.0.0:0` if neither is an internet address: for a peer of a UNIX socket whose header names nobody, or a UNIX
    /// address. No header can name this address, because the listener refuses such a header.
    #[must_use]
    pub fn client_addr(&self) -> SocketAddr {
        let named = self.header().and_then(|header| header.source()?.socket_addr());
        match (named, &self.peer) {
            (Some(client), _) => client,
            (None, PeerAddr::Ip(peer)) => *peer,
            (None, _) => NOBODY,
        }
    }

    /// The address to which the client connected: the one in the header, otherwise [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    ///
    /// The error of getsockname(2).
    pub fn destination_addr(&self) -> io::Result<LocalAddr> {
        match self.header().and_then(|header| header.destination()?.socket_addr()) {
            Some(destination) => Ok(LocalAddr::Ip(destination)),
            None => self.local_addr(),
        }
    }

    /// The other end of the connection: the proxy, or a client that is served directly.
    #[must_use]
    pub fn peer_addr(&self) -> &PeerAddr {
        &self.peer
    }

    /// Our end of the connection: the address to which the proxy connected.
    ///
    /// # Errors
    ///
    /// The error of getsockname(2).
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        socket::local_addr(self.as_fd())
    }

    /// Sets whether small packets are sent at once (`TCP_NODELAY`). A UNIX socket always sends at once, so there it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// The error of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        if self.is_tcp { Ok(sockopt::set_tcp_nodelay(self, nodelay)?) } else { Ok(()) }
    }

    /// Splits it into tokio's own stream, the header, the peer and the permit. Hold the permit as long as the connection is
    /// to count as open.
    ///
    /// # Errors
    ///
    /// The error of `epoll_ctl(2)`.
    pub fn into_parts(self) -> io::Result<Parts> {
        let Self { io, is_tcp, header, peer, permit } = self;
        let runtime = io.runtime();
        let _entered = runtime.enter();
        let socket = io.into_socket()?;
        let stream = if is_tcp {
            InnerStream::Tcp(TcpStream::from_std(socket.into())?)
        } else {
            InnerStream::Unix(UnixStream::from_std(socket.into())?)
        };
        Ok(Parts { stream, header, peer, permit })
    }

    /// The connection alone, as tokio's own stream. It counts as open no more.
    ///
    /// # Errors
    ///
    /// The error of `epoll_ctl(2)`.
    pub fn into_inner(self) -> io::Result<InnerStream> {
        Ok(self.into_parts()?.stream)
    }
}

impl AsyncRead for ProxiedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io.poll_read(cx, buf)
    }
}

impl AsyncWrite for ProxiedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A write gives the bytes to the kernel, so there is nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.io.shut_down())
    }
}

impl AsFd for ProxiedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl AsRawFd for ProxiedStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for InnerStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
