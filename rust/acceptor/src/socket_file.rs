//! The file of a UNIX socket: one server at a time claims its path, replaces a stale file, and removes its own.

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

/// The file of a UNIX socket; removed when this is dropped, unless a successor has put another one in its place. It must be
/// dropped before the socket: while that is open the number of its inode is nobody else's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds `socket` to `path` and lets it listen, as both are done by `bind` and `listen`. A socket file that nobody
    /// listens on any more is replaced. `mode`: the file's permissions, else what the umask leaves.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if somebody serves the path, is about to, or if it is no socket.
    pub(crate) fn bind(
        path: &Path,
        mode: Option<u32>,
        bind: impl FnOnce() -> io::Result<()>,
        listen: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        // Until the end of `listen`: a socket that does not listen yet looks like a stale one.
        let Some(_claim) = Claim::wait_for(path)? else { return Err(Errno::ADDRINUSE.into()) };
        remove_stale(path)?;
        bind()?;
        let metadata = fs::symlink_metadata(path)?;
        let file = Self { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino() };
        if let Some(mode) = mode {
            // Before listen: nobody can connect while the file has the umask's permissions.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        listen()?;
        Ok(file)
    }

    /// While we drain, nobody answers at the path, so a successor may have replaced the file.
    fn is_still_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever has claimed the path is about to replace the file, and must not lose its own to us.
        if let Ok(Some(_claim)) = Claim::take(&self.path)
            && self.is_still_there()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The right to change what is at a path: a lock on a file beside it, which is there no longer than this.
///
/// To look whether a socket is stale, to remove it and to bind a new one are three steps. Without a lock, of two servers that
/// start at once the second can remove what the first has bound between its own two: both then believe that they serve the
/// path.
struct Claim {
    lock: PathBuf,
    #[expect(dead_code, reason = "the lock ends with it")]
    file: OwnedFd,
}

impl Claim {
    /// Waits a moment for somebody else who has it, such as a predecessor that removes its file just now; `None` if that was
    /// not enough. Whoever is allowed to write to the directory could keep it for ever.
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread of whoever binds waits, not the one that serves"
    )]
    fn wait_for(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..100 {
            if let Some(claim) = Self::take(path)? {
                return Ok(Some(claim));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// `None` if somebody else has it.
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
            // Whoever had it before has removed the file that we opened; a lock on that excludes nobody.
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
        // While the lock is held, so that it is our own.
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
        // It answers, or its queue is full: somebody serves it.
        _ => Err(Errno::ADDRINUSE.into()),
    }
}
