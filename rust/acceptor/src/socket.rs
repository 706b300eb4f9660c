//! The listening socket before it is served: bound by us, or adopted.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{getsockname, sockopt};
use socket2::{Domain, SockAddr, Type};

use crate::addresses::LocalAddr;

/// A listening socket, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    local: LocalAddr,
    bound_by_us: bool,
    backlog: usize,
    ahead: usize,
    /// The file of a UNIX socket that we bound, to be removed at the end.
    file: Option<SocketFile>,
}

/// How to bind an internet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindOptions {
    /// How many connections may wait in the kernel, and how many may be ready before none is accepted any more.
    pub backlog: u32,
    /// Several sockets may bind this address, and the kernel spreads connections over them.
    pub reuse_port: bool,
    /// An IPv6 socket takes IPv4 connections too.
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
    /// What socket(2), bind(2) and listen(2) say.
    pub fn bind(address: SocketAddr, options: BindOptions) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // As asyncio and socket.create_server do: a restart need not wait for old connections to be forgotten.
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(!options.dualstack)?;
        }
        socket.bind(&address.into())?;
        let socket = Self::listen(socket, options.backlog, None)?;
        Ok(if options.reuse_port { socket.with_ahead(0) } else { socket })
    }

    /// Binds a UNIX socket at `path` and listens. A socket file that nobody listens on any more is replaced; the file is
    /// removed when the listener closes. `mode`: the file's permissions, else what the umask leaves. A path that begins
    /// with a NUL is an abstract name, without a file.
    ///
    /// # Errors
    ///
    /// What the system says; `AddrInUse` also if the path is a socket that is served, or is no socket.
    pub fn bind_unix(path: &Path, backlog: u32, mode: Option<u32>) -> io::Result<Self> {
        let is_abstract = path.as_os_str().as_bytes().first() == Some(&0);
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        if !is_abstract {
            remove_stale(path)?;
        }
        socket.bind(&SockAddr::unix(path)?)?;
        let file = if is_abstract { None } else { Some(SocketFile::of(path)?) };
        if let (Some(mode), false) = (mode, is_abstract) {
            // Before listen: nobody can connect while the file has the umask's permissions.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Self::listen(socket, backlog, file)
    }

    /// Takes a socket that is bound and listens already: from systemd, or from a parent process. `backlog` bounds only
    /// the ready connections. Its options are left as they are but for `O_NONBLOCK`, which its other holders share.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is not a listening stream socket.
    pub fn adopt(fd: OwnedFd, backlog: u32) -> io::Result<Self> {
        let is_stream = sockopt::socket_type(&fd)? == rustix::net::SocketType::STREAM;
        if !is_stream || !sockopt::socket_acceptconn(&fd)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        let local = LocalAddr::from_kernel(getsockname(&fd)?);
        Ok(Self { fd, local, bound_by_us: false, backlog: queue_length(backlog), ahead: 0, file: None })
    }

    /// How many connections are taken before they are asked for, at most `backlog`. With 0 a connection stays in the kernel
    /// until a thread asks for one, and that thread takes it.
    ///
    /// 0 is the default where others serve the same address (an adopted socket, `reuse_port`): what one of them has taken
    /// and does not serve yet, no other can serve. Elsewhere it is `backlog`.
    #[must_use]
    pub fn with_ahead(self, ahead: u32) -> Self {
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).min(self.backlog);
        Self { ahead, ..self }
    }

    /// Where it listens.
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

    fn listen(socket: socket2::Socket, backlog: u32, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let fd = OwnedFd::from(socket);
        let local = LocalAddr::from_kernel(getsockname(&fd)?);
        let backlog = queue_length(backlog);
        Ok(Self { fd, local, bound_by_us: true, backlog, ahead: backlog, file })
    }
}

/// At least one must fit, or none would ever be handed over.
fn queue_length(backlog: u32) -> usize {
    usize::try_from(backlog).unwrap_or(usize::MAX).max(1)
}

/// The file of a UNIX socket; removed when this is dropped, unless a successor has put another one in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // While we drain, nobody answers at the path, so a successor may have replaced the file. The socket holds the
        // inode for as long as it is open, so the number is not the successor's.
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a UNIX socket on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // It answers, or its queue is full: somebody serves it.
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}
