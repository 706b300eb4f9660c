//! The only unsafe code of this crate.
//!
//! System calls go through rustix. libc is only for what rustix lacks: `recv` without a buffer, `SO_RCVLOWAT`,
//! `TCP_DEFER_ACCEPT`, `SO_ATTACH_REUSEPORT_CBPF` and the signal mask of a thread.
#![allow(unsafe_code, reason = "see the module's text; each block says what holds")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// Registers `fd` for reading with the current runtime.
pub(crate) fn register_readable(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    register(fd, Interest::READABLE)
}

/// Registers `fd` with the current runtime.
pub(crate) fn register(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open until it is dropped and never changes its number. `AsyncFd` shares it, so it outlives the
    // registration. A forked child may close the number by `close_inherited`. No runtime there uses the registration, and its
    // holder is never dropped (`Paused::let_go_in_child` asks for that).
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Closes a descriptor in a forked child by its number. Its owners in the child are copies that nobody runs or drops: the
/// tasks of a runtime whose thread is in the parent.
pub(crate) fn close_inherited(number: RawFd) {
    // SAFETY: the caller says that the number is that of an open file, and that its owners are never dropped in this process.
    // So this is the only close.
    unsafe { rustix::io::close(number) };
}

/// Reads what is there into the free part of `buf`. Returns how many bytes it was.
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: `recv` only writes to the free part, so no byte of it becomes uninitialized.
    let free = unsafe { buf.unfilled_mut() };
    let count = retry_on_intr(|| recv(fd, &mut *free, RecvFlags::DONTWAIT).map(|((read, _), _)| read.len()))?;
    // SAFETY: the kernel has written the first `count` bytes of the free part.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
}

/// Takes `count` bytes, which a peek has shown to be there, off the socket without copying them.
///
/// Returns how many it took: `count`, unless somebody else reads the same socket.
pub(crate) fn discard(fd: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    // SAFETY: `fd` is borrowed, so open during the call. With MSG_TRUNC a TCP socket writes nothing through the buffer
    // (tcp(7)), so null is allowed. This holds for TCP alone: UNIX sockets go through `discard_by_copy`.
    let taken =
        unsafe { libc::recv(fd.as_raw_fd(), ptr::null_mut(), count, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Sets how many bytes must be there before the socket counts as readable (FIN and RST always make it so).
pub(crate) fn set_receive_low_water(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(
        fd,
        libc::SOL_SOCKET,
        libc::SO_RCVLOWAT,
        libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX),
    )
}

/// The size of the receive buffer, including the kernel's overhead.
pub(crate) fn receive_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(rustix::net::sockopt::socket_recv_buffer_size(fd)?)
}

/// Makes the kernel hand a connection over when its first bytes are there, or after about `seconds` without any. 0 undoes it.
pub(crate) fn set_defer_accept(fd: BorrowedFd<'_>, seconds: libc::c_int) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// An instruction of a filter in the kernel (classic BPF).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Filter(libc::sock_filter);

impl Filter {
    /// Loads a byte, a 16-bit or a 32-bit number, at this place behind the beginning of the network header.
    pub(crate) const fn load_byte(place: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, (0, 0), NETWORK_HEADER + place)
    }

    pub(crate) const fn load_half(place: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, (0, 0), NETWORK_HEADER + place)
    }

    pub(crate) const fn load_word(place: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), NETWORK_HEADER + place)
    }

    /// Leaves the next instruction out if the number that was loaded is this one.
    pub(crate) const fn skip_if(number: u32) -> Self {
        Self::of(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (1, 0), number)
    }

    /// Leaves the next instruction out if the number that was loaded is another one.
    pub(crate) const fn skip_unless(number: u32) -> Self {
        Self::of(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), number)
    }

    /// Ends the program with this choice.
    pub(crate) const fn choose(which: u32) -> Self {
        Self::of(libc::BPF_RET | libc::BPF_K, (0, 0), which)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the codes have 16 bits")]
    const fn of(code: u32, (jt, jf): (u8, u8), k: u32) -> Self {
        Self(libc::sock_filter { code: code as u16, jt, jf, k })
    }
}

/// Has a program choose which of the sockets that have bound the same address, in the order in which they listen, gets a
/// connection.
pub(crate) fn attach_reuseport_filter(fd: BorrowedFd<'_>, program: &[Filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `Filter` is `repr(transparent)`; the kernel reads the instructions, and does not write through the pointer.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    #[expect(clippy::cast_possible_truncation, reason = "16 bytes")]
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `fd` is borrowed, so open; the pointer is to a live `sock_fprog` and `size` is its size. It says where `length`
    // instructions are, which are borrowed. The kernel copies them.
    let status = unsafe {
        let program = (&raw const program).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program, size)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `SKF_NET_OFF` of linux/filter.h.
const NETWORK_HEADER: u32 = 0xfff0_0000;

/// Blocks signals for this thread, and for the threads that it starts, until it is dropped.
///
/// The kernel gives a signal for the process to any thread that does not block it, even if the program waits for the signal
/// with `sigwait` in another thread, or has blocked it in all its own.
#[derive(Debug)]
pub struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    /// Blocks them all, but for those that tell of a fault of this thread.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is done for its effect")]
    pub fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: `sigfillset` initializes the set that the other calls take. `pthread_sigmask` fails only for an unknown first
        // argument, so here it initializes `before`.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in [libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV] {
                // A fault of a thread reaches it even if it is blocked. Unblocked, a handler may report it.
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is initialized. A null pointer says that the old one is not wanted.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "4 bytes")]
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` is borrowed, so open; the pointer is to a live `c_int` and `length` is its size. The kernel only reads.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
