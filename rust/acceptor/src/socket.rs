//! A listening socket before it is served. We have bound it, or adopted it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};

use crate::addresses::LocalAddr;
use crate::socket_file::SocketFile;

/// A listening socket, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Socket {
    /// The file of a UNIX socket that we bound. It stands before the fd, so that it is removed while the inode is still held.
    file: Option<SocketFile>,
    fd: OwnedFd,
    local: LocalAddr,
    bound_by_us: bool,
    backlog: usize,
    ahead: usize,
}

/// How to bind an internet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindOptions {
    /// How many connections may wait in the kernel, and how many may be ready. If so many are ready, no more is accepted.
    pub backlog: u32,
    /// Whether several sockets may bind this address. The kernel spreads connections over them.
    pub reuse_port: bool,
    /// Whether an IPv6 socket takes IPv4 connections too.
    pub dualstack: bool,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { backlog: 1024, reuse_port: false, dualstack: false }
    }
}

impl BindOptions {
    /// Sets how many connections may wait in the kernel, and how many may be ready.
    #[must_use]
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets whether several sockets may bind the address.
    #[must_use]
    pub const fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets whether an IPv6 socket takes IPv4 connections too.
    #[must_use]
    pub const fn dualstack(mut self, dualstack: bool) -> Self {
        self.dualstack = dualstack;
        self
    }
}

impl Socket {
    /// Binds `address` and listens.
    ///
    /// # Errors
    ///
    /// The errors of socket(2), bind(2) and listen(2).
    pub fn bind(address: SocketAddr, options: BindOptions) -> io::Result<Self> {
        let fd = stream_socket(if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET })?;
        // As asyncio and Python's `create_server` do, so that a restart need not wait until the kernel forgets old
        // connections.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if options.reuse_port {
            sockopt::set_socket_reuseport(&fd, true)?;
        }
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, !options.dualstack)?;
        }
        bind(&fd, &address)?;
        listen(&fd, kernel_length(options.backlog))?;
        let socket = Self::listening(fd, options.backlog, None)?;
        Ok(if options.reuse_port { socket.with_ahead(0) } else { socket })
    }

    /// Binds a UNIX socket at `path` and listens. It replaces a stale socket file, on which nobody listens. The file is removed
    /// when the listener closes. `mode` is the file's permissions; by default they are what the umask leaves. A path that
    /// begins with a NUL is an abstract name, without a file.
    ///
    /// # Errors
    ///
    /// The error of the system. `AddrInUse` also if somebody serves the socket at the path, or if the file is no socket.
    pub fn bind_unix(path: &Path, backlog: u32, mode: Option<u32>) -> io::Result<Self> {
        let fd = stream_socket(AddressFamily::UNIX)?;
        let bytes = path.as_os_str().as_bytes();
        if let Some(name) = bytes.strip_prefix(b"\0") {
            bind(&fd, &SocketAddrUnix::new_abstract_name(name)?)?;
            listen(&fd, kernel_length(backlog))?;
            return Self::listening(fd, backlog, None);
        }
        let address = SocketAddrUnix::new(bytes)?;
        let bind = || Ok(bind(&fd, &address)?);
        let listen = || Ok(listen(&fd, kernel_length(backlog))?);
        let file = SocketFile::bind(path, mode, bind, listen)?;
        Self::listening(fd, backlog, Some(file))
    }

    /// Takes a socket that is bound and listens already: from systemd, or from a parent process. `backlog` bounds only the ready
    /// connections. The only setting that changes is `O_NONBLOCK`, also for the socket's other holders.
    ///
    /// # Errors
    ///
    /// `Unsupported` with an [`UnsupportedFamily`] inside if it is neither an internet nor a UNIX socket: then nothing says who
    /// its peers are. `InvalidInput` if it is not a listening stream socket.
    pub fn adopt(fd: OwnedFd, backlog: u32) -> io::Result<Self> {
        let family = sockopt::socket_domain(&fd)?;
        if !matches!(family, AddressFamily::INET | AddressFamily::INET6 | AddressFamily::UNIX) {
            return Err(unsupported(family));
        }
        let is_stream = sockopt::socket_type(&fd)? == SocketType::STREAM;
        if !is_stream || !sockopt::socket_acceptconn(&fd)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        let local = local_addr(fd.as_fd())?;
        Ok(Self { fd, local, bound_by_us: false, backlog: queue_length(backlog), ahead: 0, file: None })
    }

    /// Sets how many connections are taken before anybody asks for them, at most `backlog`. With 0 a connection stays in the
    /// kernel until a thread asks for one, and that thread takes it.
    ///
    /// The default is 0 if others may serve the same address (an adopted socket, `reuse_port`). A connection that one of them
    /// has taken must wait until that one serves it, although another may be idle. Otherwise the default is `backlog`.
    #[must_use]
    pub fn with_ahead(self, ahead: u32) -> Self {
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).min(self.backlog);
        Self { ahead, ..self }
    }

    /// The address on which it listens.
    #[must_use]
    pub fn local_addr(&self) -> &LocalAddr {
        &self.local
    }

    /// How many ready connections may wait to be taken.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    pub(crate) fn is_bound_by_us(&self) -> bool {
        self.bound_by_us
    }

    pub(crate) fn into_parts(self) -> (OwnedFd, Option<SocketFile>) {
        (self.fd, self.file)
    }

    fn listening(fd: OwnedFd, backlog: u32, file: Option<SocketFile>) -> io::Result<Self> {
        let local = local_addr(fd.as_fd())?;
        let backlog = queue_length(backlog);
        Ok(Self { fd, local, bound_by_us: true, backlog, ahead: backlog, file })
    }
}

fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// The local address of a listening or connected socket.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<LocalAddr> {
    let address = getsockname(fd)?;
    let family = address.address_family();
    LocalAddr::from_kernel(address).ok_or_else(|| unsupported(family))
}

fn unsupported(family: AddressFamily) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, UnsupportedFamily(family.as_raw()))
}

/// `backlog` as listen(2) takes it.
fn kernel_length(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

/// At least one connection must fit into the queue, or none would ever be handed over.
fn queue_length(backlog: u32) -> usize {
    usize::try_from(backlog).unwrap_or(usize::MAX).max(1)
}

/// The error for a socket of an address family that cannot be served. It holds the family's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedFamily(u16);

impl fmt::Display for UnsupportedFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = FAMILIES.iter().find(|(family, _)| family.as_raw() == self.0);
        match known {
            Some((_, name)) => write!(f, "an {name} socket cannot be served: ")?,
            None => write!(f, "a socket of address family {} cannot be served: ", self.0)?,
        }
        f.write_str("nothing says who its peers are. AF_INET, AF_INET6 and AF_UNIX can")
    }
}

impl std::error::Error for UnsupportedFamily {}

/// Other families that have listening stream sockets.
const FAMILIES: &[(AddressFamily, &str)] = &[
    (AddressFamily::VSOCK, "AF_VSOCK"),
    (AddressFamily::TIPC, "AF_TIPC"),
    (AddressFamily::BLUETOOTH, "AF_BLUETOOTH"),
    (AddressFamily::from_raw(43), "AF_SMC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_whose_peers_nobody_knows_is_not_adopted() {
        let flags = SocketFlags::CLOEXEC;
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).unwrap();
        let error = Socket::adopt(netlink, 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let text = "a socket of address family 16 cannot be served: nothing says who its peers are. AF_INET, AF_INET6 and \
                    AF_UNIX can";
        assert_eq!(error.to_string(), text);
        assert!(UnsupportedFamily(40).to_string().starts_with("an AF_VSOCK socket cannot be served: "));
    }
}
