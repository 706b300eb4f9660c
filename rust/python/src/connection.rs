//! One connection that was handed over: its facts, its fd until a socket or a loop has it, its place among the open
//! ones.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxyproto_acceptor as acceptor;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::endpoint;
use crate::header::Header;

/// What the acceptor knows about one connection that it handed over.
///
/// It holds the client's place among the open connections until `release` is called or it is collected. It holds the fd
/// until a socket or a loop has it.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Connection {
    fd: Mutex<Option<OwnedFd>>,
    /// The number of the fd that was given to a loop, or -1.
    given: AtomicI32,
    header: Option<Py<Header>>,
    peer: acceptor::PeerAddr,
    /// Shared with duplicates. The last one gives the place back.
    permit: Mutex<Option<Arc<acceptor::Permit>>>,
}

impl Connection {
    pub(crate) fn hand_over(py: Python<'_>, connection: acceptor::Connection) -> PyResult<Py<Self>> {
        let header = connection.header.map(|header| Header::new(py, header)).transpose()?.map(Bound::unbind);
        let fd = Mutex::new(Some(connection.fd));
        let permit = Mutex::new(Some(Arc::new(connection.permit)));
        Py::new(py, Self { fd, given: AtomicI32::new(-1), header, peer: connection.peer, permit })
    }
}

#[pymethods]
impl Connection {
    /// Make `sock` this connection's socket, by `initialize`, the `__init__` of `socket.socket`.
    ///
    /// Python may raise KeyboardInterrupt between any two of its instructions. An fd that is a mere number at that
    /// moment would stay open for ever, and its client would wait for ever.
    fn initialize_socket(
        &self,
        initialize: &Bound<'_, PyAny>,
        sock: &Bound<'_, PyAny>,
        kind: i32,
        proto: i32,
    ) -> PyResult<()> {
        let fd = lock(&self.fd).take().ok_or_else(bad_fd)?;
        let number = fd.as_raw_fd();
        let done = initialize.call1((sock, endpoint::family_of(&self.peer), kind, proto, number));
        // An interruption may come before or after the socket takes the fd.
        if done.is_ok() || sock.call_method0("fileno")?.extract::<i32>()? == number {
            let _ = fd.into_raw_fd();
        }
        done.map(drop)
    }

    /// Give the fd to a loop and return its number. The loop closes it.
    fn give_to_loop(&self) -> PyResult<i32> {
        let number = lock(&self.fd).take().map(IntoRawFd::into_raw_fd).ok_or_else(bad_fd)?;
        self.given.store(number, Ordering::Relaxed);
        Ok(number)
    }

    /// Close the fd that was given to a loop, because the loop has not taken it.
    fn close_given(&self) {
        let number = self.given.swap(-1, Ordering::Relaxed);
        if number >= 0 {
            // SAFETY: `give_to_loop` took the number out of an `OwnedFd`, and gives it once. The loop has raised, so it
            // does not own the fd: this is the only owner.
            #[expect(unsafe_code, reason = "the loop was given a number, and numbers come back")]
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }

    /// Close the fd unless a socket or a loop has it, and give the place back. A second call changes nothing.
    fn close(&self) {
        let fd = lock(&self.fd).take();
        drop(fd);
        self.release();
    }

    /// Return the same connection with a duplicate of `fd`, the fd of its socket.
    fn dup(&self, py: Python<'_>, fd: i32) -> PyResult<Self> {
        Ok(Self {
            fd: Mutex::new(Some(duplicate(fd)?)),
            given: AtomicI32::new(-1),
            header: self.header(py),
            peer: self.peer.clone(),
            permit: Mutex::new(lock(&self.permit).clone()),
        })
    }

    /// Return the same connection without an fd, and with the place: `release` of this one does nothing from now on.
    fn move_place(&self, py: Python<'_>) -> Self {
        Self {
            fd: Mutex::new(None),
            given: AtomicI32::new(-1),
            header: self.header(py),
            peer: self.peer.clone(),
            permit: Mutex::new(lock(&self.permit).take()),
        }
    }

    /// Return what is known about this connection, without its fd and its place.
    fn without_place(&self, py: Python<'_>) -> Self {
        Self {
            fd: Mutex::new(None),
            given: AtomicI32::new(-1),
            header: self.header(py),
            peer: self.peer.clone(),
            permit: Mutex::new(None),
        }
    }

    /// The address family, as the socket module numbers it.
    #[getter]
    fn family(&self) -> i32 {
        endpoint::family_of(&self.peer)
    }

    /// The header, or None for a peer that is served without one.
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
        endpoint::peer_to_python(py, &self.peer)
    }

    /// Give the place among the open connections back. A second call changes nothing.
    fn release(&self) {
        let permit = lock(&self.permit).take();
        drop(permit);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duplicate of a descriptor of Python's.
pub(crate) fn duplicate(fd: i32) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(bad_fd());
    }
    // SAFETY: -1 is excluded above. The number may still not be an open file, or another thread may close it during
    // the call. The kernel then answers EBADF or duplicates the file that has come in its place, as for os.dup.
    #[expect(unsafe_code, reason = "Python hands over a number")]
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fd.try_clone_to_owned()?)
}

fn bad_fd() -> PyErr {
    PyOSError::new_err((libc::EBADF, "Bad file descriptor"))
}
