//! One connection that was handed over: what is known of it, its fd until a socket has it, its place among the open ones.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxyproto_acceptor as acceptor;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::address;
use crate::header::Header;

/// What the acceptor knows of one connection that it handed over.
///
/// It holds the client's place among the open connections until `release` is called or it is collected, and the fd
/// until a socket or a loop has it.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Connection {
    fd: Mutex<Fd>,
    header: Option<Py<Header>>,
    peer: acceptor::PeerAddr,
    /// Shared with duplicates; the last one gives it back.
    permit: Mutex<Option<Arc<acceptor::Permit>>>,
}

/// Who closes the fd.
enum Fd {
    /// This connection, when it is collected.
    Ours(OwnedFd),
    /// A loop, which has been given the number.
    Theirs(RawFd),
    /// Nobody any more, or a socket.
    Gone,
}

impl Connection {
    pub(crate) fn hand_over(py: Python<'_>, connection: acceptor::Connection) -> PyResult<Py<Self>> {
        let header = connection.header.map(|header| Header::new(py, header)).transpose()?.map(Bound::unbind);
        let fd = Mutex::new(Fd::Ours(connection.fd));
        let permit = Mutex::new(Some(Arc::new(connection.permit)));
        Py::new(py, Self { fd, header, peer: connection.peer, permit })
    }
}

#[pymethods]
impl Connection {
    /// Let `initialize`, the `__init__` of `socket.socket`, make `sock` this connection's socket.
    ///
    /// Python raises KeyboardInterrupt between any two of its instructions; an fd that is a mere number then would stay
    /// open for ever, and its client would wait as long.
    fn initialize_socket(
        &self,
        initialize: &Bound<'_, PyAny>,
        sock: &Bound<'_, PyAny>,
        kind: i32,
        proto: i32,
    ) -> PyResult<()> {
        let (number, ours) = lock(&self.fd).take()?;
        let done = initialize.call1((sock, address::family_of(&self.peer), kind, proto, number));
        // An interruption may come before the socket has the fd, or after.
        if done.is_ok() || sock.call_method0("fileno")?.extract::<i32>()? == number {
            let _ = ours.map(IntoRawFd::into_raw_fd);
        }
        done.map(drop)
    }

    /// Give the fd to a loop, which closes it; return its number.
    ///
    /// A socket can still be made of it, and must be detached before the loop closes it.
    fn give_to_loop(&self) -> PyResult<i32> {
        let mut fd = lock(&self.fd);
        let (number, ours) = fd.take()?;
        let _ = ours.map(IntoRawFd::into_raw_fd);
        *fd = Fd::Theirs(number);
        Ok(number)
    }

    /// Close the fd, unless somebody else has it, and give the place back. Doing it again changes nothing.
    fn close(&self) {
        let fd = std::mem::replace(&mut *lock(&self.fd), Fd::Gone);
        drop(fd);
        self.release();
    }

    /// The same connection with a duplicate of `fd`, which is its socket's.
    fn dup(&self, py: Python<'_>, fd: i32) -> PyResult<Self> {
        if fd < 0 {
            return Err(bad_fd());
        }
        // SAFETY: -1 is excluded above. The number may still be of no open file, or be closed by another thread while it
        // is duplicated; the kernel then answers EBADF or duplicates what has come in its place, as it would for os.dup.
        #[expect(unsafe_code, reason = "Python hands over a number")]
        let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        Ok(Self {
            fd: Mutex::new(Fd::Ours(fd)),
            header: self.header(py),
            peer: self.peer.clone(),
            permit: Mutex::new(lock(&self.permit).clone()),
        })
    }

    /// The address family, as the socket module numbers it.
    #[getter]
    fn family(&self) -> i32 {
        address::family_of(&self.peer)
    }

    /// The header, or None where the peer is served without one.
    #[getter]
    fn header(&self, py: Python<'_>) -> Option<Py<Header>> {
        self.header.as_ref().map(|header| header.clone_ref(py))
    }

    /// The header's source, or None where the TCP peer applies.
    #[getter]
    fn peername<'a, 'py>(&'a self, py: Python<'py>) -> Option<&'a Bound<'py, PyAny>> {
        self.header.as_ref()?.get().source(py)
    }

    /// The header's destination, or None where the TCP connection's own end applies.
    #[getter]
    fn sockname<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
        self.header.as_ref().map_or(Ok(None), |header| header.get().destination(py))
    }

    /// The TCP peer.
    #[getter]
    fn proxy_peername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address::peer_to_python(py, &self.peer)
    }

    /// Give the place among the open connections back. Doing it again changes nothing.
    fn release(&self) {
        let permit = lock(&self.permit).take();
        drop(permit);
    }
}

impl Fd {
    /// The number, and the fd itself if it was ours.
    fn take(&mut self) -> PyResult<(RawFd, Option<OwnedFd>)> {
        match std::mem::replace(self, Self::Gone) {
            Self::Ours(fd) => Ok((fd.as_raw_fd(), Some(fd))),
            Self::Theirs(number) => {
                *self = Self::Theirs(number);
                Ok((number, None))
            }
            Self::Gone => Err(bad_fd()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bad_fd() -> PyErr {
    PyOSError::new_err((libc::EBADF, "Bad file descriptor"))
}
