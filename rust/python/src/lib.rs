//! `proxyproto_rs._core`: the codec, the acceptor and the gateway for Python. This crate converts; it decides nothing.

#![expect(
    clippy::doc_markdown,
    reason = "what Python shows as docstrings is written as Python's docstrings are"
)]

use pyo3::prelude::*;

mod address;
#[cfg(broker)]
mod broker;
#[cfg(acceptor)]
mod connection;
mod encode;
#[cfg(acceptor)]
mod endpoint;
mod enums;
#[cfg(acceptor)]
mod epoll;
mod error;
#[cfg(acceptor)]
mod fork;
#[cfg(acceptor)]
mod gateway;
#[cfg(acceptor)]
mod gateway_channels;
#[cfg(acceptor)]
mod gateway_events;
#[cfg(acceptor)]
mod gateway_options;
mod header;
mod input;
#[cfg(acceptor)]
mod limits;
#[cfg(acceptor)]
mod listener;
#[cfg(acceptor)]
mod listener_options;
mod options;
mod parse;
mod path;
#[cfg(acceptor)]
mod python_tls;
mod ssl;
#[cfg(acceptor)]
mod wording;

/// The Rust core of `proxyproto_rs`. The package exports its public names.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[cfg(broker)]
    #[pymodule_export]
    use crate::broker::Broker;
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::connection::Connection;
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::epoll::{_epoll_create, _epoll_forget, _epoll_watch};
    #[pymodule_export]
    use crate::error::{looks_like, reasons};
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::fork::{_after_fork_in_child, _after_fork_in_parent, _before_fork};
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::gateway::Gateway;
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::gateway_channels::Channel;
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::gateway_events::{
        Arrival, Connect, Ended, ListenerReport, Login, Refused, ServerChange, Traffic, Welcomed,
    };
    #[pymodule_export]
    use crate::header::Header;
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::limits::{AddressSet, ClientLimits};
    #[cfg(acceptor)]
    #[pymodule_export]
    use crate::listener::Acceptor;
    #[pymodule_export]
    use crate::parse::{Decoder, header_from_raw, parse, parse_datagram};
    #[pymodule_export]
    use crate::ssl::SslInfo;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::warn_of_debug_build(module.py())
    }
}

/// Warns of a debug build, which is many times slower.
fn warn_of_debug_build(py: Python<'_>) -> PyResult<()> {
    if cfg!(debug_assertions) {
        let category = py.get_type::<pyo3::exceptions::PyRuntimeWarning>();
        PyErr::warn(py, &category, c"proxyproto_rs was built without optimizations: use a release build", 1)?;
    }
    Ok(())
}
