//! `proxyproto_rs._core`: the codec, the acceptor and the gateway for Python. This crate converts; it decides nothing.

#![expect(
    clippy::doc_markdown,
    reason = "what Python shows as docstrings is written as Python's docstrings are"
)]

use pyo3::prelude::*;

mod address;
mod connection;
mod encode;
mod enums;
mod epoll;
mod error;
mod fork;
mod gateway;
mod gateway_channels;
mod gateway_events;
mod gateway_options;
mod header;
mod input;
mod limits;
mod listener;
mod listener_options;
mod options;
mod parse;
mod ssl;
mod wording;

/// The Rust core of `proxyproto_rs`. The package exports its public names.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::connection::Connection;
    #[pymodule_export]
    use crate::epoll::{_epoll_create, _epoll_forget, _epoll_watch};
    #[pymodule_export]
    use crate::error::{looks_like, reasons};
    #[pymodule_export]
    use crate::fork::{_after_fork_in_child, _after_fork_in_parent, _before_fork};
    #[pymodule_export]
    use crate::gateway::Gateway;
    #[pymodule_export]
    use crate::gateway_channels::Channel;
    #[pymodule_export]
    use crate::gateway_events::{
        Arrival, Connect, Ended, ListenerReport, Login, Refused, ServerChange, Traffic, Welcomed,
    };
    #[pymodule_export]
    use crate::header::Header;
    #[pymodule_export]
    use crate::limits::{AddressSet, ClientLimits};
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
