//! Command, Family and Transport: the members of the Python enums. They are looked up once.

use codec::{Command, Family, Transport};
use proxyproto_codec as codec;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error;

/// The member of `Command`.
pub(crate) fn command(py: Python<'_>, command: Command) -> PyResult<&Bound<'_, PyAny>> {
    let members = Members::get(py)?;
    Ok(match command {
        Command::Local => &members.local,
        Command::Proxy => &members.proxy,
    }
    .bind(py))
}

/// The member of `Family`.
pub(crate) fn family(py: Python<'_>, family: Family) -> PyResult<&Bound<'_, PyAny>> {
    let members = Members::get(py)?;
    Ok(match family {
        Family::Unspec => &members.family_unspec,
        Family::Inet => &members.inet,
        Family::Inet6 => &members.inet6,
        Family::Unix => &members.unix,
    }
    .bind(py))
}

/// The member of `Transport`.
pub(crate) fn transport(py: Python<'_>, transport: Transport) -> PyResult<&Bound<'_, PyAny>> {
    let members = Members::get(py)?;
    Ok(match transport {
        Transport::Unspec => &members.transport_unspec,
        Transport::Stream => &members.stream,
        Transport::Dgram => &members.dgram,
    }
    .bind(py))
}

/// The transport that a caller gave.
pub(crate) fn transport_from_python(member: &Bound<'_, PyAny>) -> PyResult<Transport> {
    let members = Members::get(member.py())?;
    for (known, transport) in [
        (&members.stream, Transport::Stream),
        (&members.dgram, Transport::Dgram),
        (&members.transport_unspec, Transport::Unspec),
    ] {
        if member.is(known) {
            return Ok(transport);
        }
    }
    Err(error::wrong_type("transport", "a member of Transport", member))
}

struct Members {
    local: Py<PyAny>,
    proxy: Py<PyAny>,
    family_unspec: Py<PyAny>,
    inet: Py<PyAny>,
    inet6: Py<PyAny>,
    unix: Py<PyAny>,
    transport_unspec: Py<PyAny>,
    stream: Py<PyAny>,
    dgram: Py<PyAny>,
}

impl Members {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static MEMBERS: PyOnceLock<Members> = PyOnceLock::new();
        MEMBERS.get_or_try_init(py, || {
            let module = py.import("proxyproto_rs._enums")?;
            let member = |class: &str, name: &str| -> PyResult<Py<PyAny>> {
                Ok(module.getattr(class)?.getattr(name)?.unbind())
            };
            Ok(Self {
                local: member("Command", "LOCAL")?,
                proxy: member("Command", "PROXY")?,
                family_unspec: member("Family", "UNSPEC")?,
                inet: member("Family", "INET")?,
                inet6: member("Family", "INET6")?,
                unix: member("Family", "UNIX")?,
                transport_unspec: member("Transport", "UNSPEC")?,
                stream: member("Transport", "STREAM")?,
                dgram: member("Transport", "DGRAM")?,
            })
        })
    }
}
