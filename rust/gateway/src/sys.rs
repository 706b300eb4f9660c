//! What rustix and tokio have no safe call for, and the one place in this crate with unsafe code.
#![allow(unsafe_code, reason = "see the module's text; each block says what holds")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::ioctl::{Getter, ioctl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` for reading with the runtime that is entered on this thread.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, never changes its number, and is closed only by its drop; `AsyncFd` owns it, so it
    // outlives the registration.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// How many bytes wait in the socket until the peer has taken them; 0 where the kernel does not say.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> usize {
    // SAFETY: SIOCOUTQ writes one `int` through its pointer, for which the getter has room, and nothing else.
    let count = unsafe { ioctl(fd, Getter::<SIOCOUTQ, i32>::new()) };
    count.ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

/// See tcp(7) and unix(7). It is TIOCOUTQ of asm-generic/ioctls.h.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
