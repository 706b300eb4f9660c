//! The file of a UNIX socket. One server at a time may claim its path, to replace a stale file or to remove its own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The file of a UNIX socket. Dropping this removes the file, unless a successor has put another one in its place. It must be
/// dropped before the socket: while the socket is open, no other file can get the number of its inode.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds a socket to `path` by `bind` and lets it listen by `listen`. It replaces a stale socket file, on which nobody
    /// listens. `mode` is the file's permissions; by default they are what the umask leaves.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if somebody serves the path or is about to, or if the file is no socket.
    pub(crate) fn bind(
        path: &Path,
        mode: Option<u32>,
        bind: impl FnOnce() -> io::Result<()>,
        listen: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        // Held until the end of `listen`, because a socket that does not listen yet looks like a stale one.
        let Some(_claim) = Claim::wait_for(path)? else { return Err(Errno::ADDRINUSE.into()) };
        remove_stale(path)?;
        bind()?;
        let metadata = fs::symlink_metadata(path)?;
        let file = Self { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino() };
        if let Some(mode) = mode {
            // Before `listen`, so that nobody can connect while the file has the umask's permissions.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        listen()?;
        Ok(file)
    }

    /// Whether the file is ours. While we drain, nobody answers at the path, so a successor may have replaced the file.
    fn is_still_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server that has claimed the path is about to replace the file, and we must not remove its new one.
        if let Ok(Some(_claim)) = Claim::take(&self.path)
            && self.is_still_there()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The right to change the file at a path: a lock on a file beside it, which exists only as long as this.
///
/// A server sees that a socket is stale, removes it, and binds a new one. These are three steps. Without a lock, one of two servers that
/// start at once could remove the socket that the other has just bound. Then both would believe that they serve the path.
struct Claim {
    lock: PathBuf,
    #[expect(dead_code, reason = "the lock ends with it")]
    file: OwnedFd,
}

impl Claim {
    /// Waits for up to 0.1 s while another process has the claim, such as a predecessor that is removing its file. `None` if
    /// that was not enough. It does not wait longer, because every process that may write to the directory could hold it for
    /// ever.
    #[expect(clippy::disallowed_methods, reason = "the thread that binds waits, not the one that serves")]
    fn wait_for(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..100 {
            if let Some(claim) = Self::take(path)? {
                return Ok(Some(claim));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// `None` if another process has it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut lock = OsString::from(path);
        lock.push(".proxyproto-lock");
        let lock = PathBuf::from(lock);
        loop {
            let flags =
                OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = open(&lock, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let held = fstat(&file)?;
            // The last holder may have removed the file that we opened. A lock on a removed file excludes nobody.
            if fs::symlink_metadata(&lock)
                .is_ok_and(|now| (now.dev(), now.ino()) == (held.st_dev, held.st_ino))
            {
                return Ok(Some(Self { lock, file }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held, so that the file is our own.
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes the file of a UNIX socket on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(Errno::ADDRINUSE.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&probe, &SocketAddrUnix::new(path.as_os_str().as_bytes())?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // It answers or its queue is full, so somebody serves it.
        _ => Err(Errno::ADDRINUSE.into()),
    }
}
