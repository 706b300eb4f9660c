//! What is known of one connection that was handed over, and its place among the open ones.

use std::sync::{Mutex, PoisonError};

use proxyproto_acceptor as acceptor;
use pyo3::prelude::*;

use crate::address;
use crate::header::Header;

/// What the acceptor knows of one connection that it handed over.
///
/// It holds the client's place among the open connections until `release` is called or it is collected.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Connection {
    header: Option<Py<Header>>,
    peer: acceptor::PeerAddr,
    permit: Mutex<Option<acceptor::Permit>>,
}

impl Connection {
    /// The connection's fd, its address family and the rest, as `take` returns them.
    pub(crate) fn hand_over(
        py: Python<'_>,
        connection: acceptor::Connection,
    ) -> PyResult<(i32, i32, Py<Self>)> {
        let family = address::family_of(&connection.peer);
        let header = connection.header.map(|header| Py::new(py, Header::new(py, header)?)).transpose()?;
        let permit = Mutex::new(Some(connection.permit));
        let known = Py::new(py, Self { header, peer: connection.peer, permit })?;
        // From here on the fd is Python's; before, an error would have closed it.
        Ok((std::os::fd::IntoRawFd::into_raw_fd(connection.fd), family, known))
    }
}

#[pymethods]
impl Connection {
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
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
