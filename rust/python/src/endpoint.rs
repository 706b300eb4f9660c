//! Both ends of an accepted connection, as the socket module writes addresses.

use std::net::{IpAddr, SocketAddr};

use proxyproto_acceptor::{ClientAddr, LocalAddr, PeerAddr};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{ipv4, ipv6};
use crate::path;

/// The address family of a connection, as the socket module numbers it.
pub(crate) const fn family_of(peer: &PeerAddr) -> i32 {
    match peer {
        PeerAddr::Ip(SocketAddr::V4(_)) => libc::AF_INET,
        PeerAddr::Ip(SocketAddr::V6(_)) => libc::AF_INET6,
        PeerAddr::Unix(_) => libc::AF_UNIX,
        PeerAddr::Unknown(family) => *family as i32,
        _ => libc::AF_UNSPEC,
    }
}

/// The peer in the form of `getpeername()`. An unnamed UNIX socket is the empty path. It is None if the kernel does not say
/// who the peer is.
pub(crate) fn peer_to_python<'py>(py: Python<'py>, peer: &PeerAddr) -> PyResult<Bound<'py, PyAny>> {
    Ok(match peer {
        PeerAddr::Ip(SocketAddr::V4(address)) => {
            (ipv4(py, *address.ip())?, address.port()).into_pyobject(py)?.into_any()
        }
        PeerAddr::Ip(SocketAddr::V6(address)) => {
            let (flowinfo, scope_id) = (address.flowinfo(), address.scope_id());
            (ipv6(py, *address.ip())?, address.port(), flowinfo, scope_id).into_pyobject(py)?.into_any()
        }
        PeerAddr::Unix(name) if name.is_abstract => {
            PyBytes::new(py, &[b"\0", &*name.bytes].concat()).into_any()
        }
        PeerAddr::Unix(name) => path::to_python(py, &name.bytes)?,
        _ => py.None().into_bound(py),
    })
}

/// Our end of a connection, in the form of `getsockname()`.
pub(crate) fn local_to_python<'py>(py: Python<'py>, local: &LocalAddr) -> PyResult<Bound<'py, PyAny>> {
    let name = match local {
        LocalAddr::Ip(address) => PeerAddr::Ip(*address),
        LocalAddr::Unix(name) => PeerAddr::Unix(name.clone()),
        _ => return Ok(py.None().into_bound(py)),
    };
    peer_to_python(py, &name)
}

/// A host as text, and a port.
pub(crate) fn endpoint_to_python(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyAny>> {
    let host = match address.ip() {
        IpAddr::V4(ip) => ipv4(py, ip)?,
        IpAddr::V6(ip) => ipv6(py, ip)?,
    };
    Ok((host, address.port()).into_pyobject(py)?.into_any())
}

/// A refused client, in the form that `getpeername()` would have given.
pub(crate) fn client_to_python(py: Python<'_>, client: ClientAddr) -> PyResult<Bound<'_, PyAny>> {
    match client.ip {
        IpAddr::V6(ip) => Ok((ipv6(py, ip)?, client.port, 0, client.scope_id).into_pyobject(py)?.into_any()),
        IpAddr::V4(ip) => Ok((ipv4(py, ip)?, client.port).into_pyobject(py)?.into_any()),
    }
}
