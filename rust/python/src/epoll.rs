//! An epoll set for the fd that a Listener shows. `select.epoll` would do the same, but gevent removes it.

use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::epoll::{CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Create an epoll set and return its fd, which belongs to the caller.
#[pyfunction]
pub(crate) fn _epoll_create() -> PyResult<i32> {
    let epoll = rustix::event::epoll::create(CreateFlags::CLOEXEC).map_err(os_error)?;
    Ok(epoll.into_raw_fd())
}

/// Make `epoll` readable while `fd` is readable.
#[pyfunction]
pub(crate) fn _epoll_watch(epoll: i32, fd: i32) -> PyResult<()> {
    let (epoll, fd) = (borrow(epoll)?, borrow(fd)?);
    let data = EventData::new_u64(0);
    rustix::event::epoll::add(epoll, fd, data, EventFlags::IN).map_err(os_error)
}

/// Remove `fd` from `epoll`.
#[pyfunction]
pub(crate) fn _epoll_forget(epoll: i32, fd: i32) -> PyResult<()> {
    rustix::event::epoll::delete(borrow(epoll)?, borrow(fd)?).map_err(os_error)
}

fn borrow(fd: i32) -> PyResult<BorrowedFd<'static>> {
    if fd < 0 {
        return Err(PyOSError::new_err((libc::EBADF, "Bad file descriptor")));
    }
    // SAFETY: -1 is excluded above. The number may not be an open file, or may be another file. The kernel then answers
    // EBADF, EPERM, EINVAL or ENOENT, as for `select.epoll`. The callers' borrow ends with their system call.
    #[expect(unsafe_code, reason = "Python hands over a number")]
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// An OSError with errno. Python picks its subclass by the errno.
fn os_error(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), io::Error::from(errno).to_string()))
}
