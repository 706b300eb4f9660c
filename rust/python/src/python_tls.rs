//! TLS that Python does, for who has an `ssl.SSLContext`: each step holds the interpreter. What the steps mean is said there.

use std::fmt;

use gateway::{Channel, ChannelFactory, ChannelFault, Facts, Flow, Remote, Stage, TlsFacts};
use proxyproto_gateway as gateway;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Calls a callable for each connection. What it returns has the methods `decode`, `encode`, `close` and `facts`.
pub(crate) struct PythonTls {
    make: Py<PyAny>,
}

impl PythonTls {
    pub(crate) fn new(make: Py<PyAny>) -> Self {
        Self { make }
    }
}

impl fmt::Debug for PythonTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PythonTls")
    }
}

impl ChannelFactory for PythonTls {
    fn open(&self, _remote: Remote<'_>) -> Box<dyn Channel> {
        let made = in_python(|py| self.make.call0(py));
        Box::new(PythonChannel { is_open: false, tls: made })
    }
}

/// The TLS of one connection.
struct PythonChannel {
    is_open: bool,
    tls: Result<Py<PyAny>, ChannelFault>,
}

/// What `decode` returns: the bytes of MQTT, those to send, whether the handshake is done, whether the peer has said goodbye,
/// and what has failed.
type Decoded<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, bool, bool, Option<String>);

/// What `facts` returns: version, cipher, SNI, protocol, certificate, its common name, and whether there are more.
type Shown = (String, String, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>, bool);

impl PythonChannel {
    /// What a method gives that takes bytes and returns bytes.
    fn give(&self, method: &str, bytes: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        in_python(|py| {
            let given = tls.call_method1(py, method, (PyBytes::new(py, bytes),))?;
            wire.extend_from_slice(given.bind(py).cast::<PyBytes>()?.as_bytes());
            Ok(())
        })
    }
}

impl Channel for PythonChannel {
    fn stage(&self) -> Stage {
        if self.is_open { Stage::Open } else { Stage::Tls }
    }

    fn start(&mut self, _wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        self.tls.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let (is_open, is_over, fault) = in_python(|py| {
            let decoded = tls.call_method1(py, "decode", (PyBytes::new(py, received),))?;
            let (payload, reply, is_open, is_over, fault): Decoded<'_> = decoded.extract(py)?;
            mqtt.extend_from_slice(payload.as_bytes());
            answer.extend_from_slice(reply.as_bytes());
            Ok((is_open, is_over, fault))
        })?;
        self.is_open = is_open;
        match fault {
            Some(fault) => Err(ChannelFault::new(fault)),
            None if is_over => Ok(Flow::Ended),
            None => Ok(Flow::Open),
        }
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        if mqtt.is_empty() { Ok(()) } else { self.give("encode", mqtt, wire) }
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        // Without the goodbye the peer sees the end of the connection.
        let _ = self.give("close", &[], wire);
    }

    fn facts(&mut self) -> Facts {
        let mut facts = Facts::default();
        let Ok(tls) = &self.tls else { return facts };
        if !self.is_open {
            return facts;
        }
        let shown = in_python(|py| tls.call_method0(py, "facts")?.extract::<Shown>(py));
        if let Ok((version, cipher, sni, alpn, certificate, common_name, has_more_names)) = shown {
            let mut tls = TlsFacts::default();
            (tls.version, tls.cipher, tls.sni, tls.alpn) = (version, cipher, sni, alpn);
            (tls.certificate, tls.common_name, tls.has_more_names) =
                (certificate, common_name, has_more_names);
            facts.tls = Some(tls);
        }
        facts
    }
}

/// Does something in Python. An exception is a fault of the channel.
fn in_python<T>(work: impl for<'py> FnOnce(Python<'py>) -> PyResult<T>) -> Result<T, ChannelFault> {
    // There is none at the end of the process.
    Python::try_attach(|py| work(py).map_err(|error| ChannelFault::new(error.to_string())))
        .unwrap_or_else(|| Err(ChannelFault::new("the interpreter has ended")))
}
