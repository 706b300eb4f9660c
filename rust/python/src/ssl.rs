//! `SslInfo`: a view of the SSL TLV of a header. It keeps the header alive.

use proxyproto_codec as codec;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::header::{self, Header};

/// What the proxy knows about the client's TLS (R37).
///
/// A text must be UTF-8 for `cn` and US-ASCII elsewhere, without control characters. Any other text is None and never
/// repaired; its bytes stay in `tlvs`. Two objects are equal when their TLVs are.
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct SslInfo(Py<Header>);

impl SslInfo {
    /// The view of the SSL TLV of `header`; `None` if it has none, or a broken one (C9).
    pub(crate) fn of(header: &Bound<'_, Header>) -> Option<Self> {
        header.get().codec().ssl().map(|_| Self(header.clone().unbind()))
    }

    fn read<'a, T>(&'a self, field: impl FnOnce(codec::SslInfo<'a>) -> T) -> Option<T> {
        self.0.get().codec().ssl().map(field)
    }

    fn value(&self) -> Option<&[u8]> {
        self.0.get().codec().tlv(codec::Tlv::SSL)
    }
}

#[pymethods]
impl SslInfo {
    /// bool: The client connected to the proxy over TLS.
    #[getter]
    fn client_tls(&self) -> bool {
        self.read(|ssl| ssl.client_tls()).unwrap_or_default()
    }

    /// bool: The client gave a certificate over this connection.
    #[getter]
    fn client_cert_conn(&self) -> bool {
        self.read(|ssl| ssl.client_cert_conn()).unwrap_or_default()
    }

    /// bool: The client gave a certificate at least once in this TLS session.
    #[getter]
    fn client_cert_sess(&self) -> bool {
        self.read(|ssl| ssl.client_cert_sess()).unwrap_or_default()
    }

    /// int: The result of the proxy's verification, 0 for success. Without a certificate HAProxy sends 0 and nginx 1,
    /// so use `verified` to decide whether to trust the client.
    #[getter]
    fn verify(&self) -> u32 {
        self.read(|ssl| ssl.verify()).unwrap_or_default()
    }

    /// bool: The client gave a certificate and the proxy verified it.
    #[getter]
    fn verified(&self) -> bool {
        self.read(|ssl| ssl.verified()).unwrap_or_default()
    }

    /// str | None: The TLS version, such as ``"TLSv1.3"``.
    #[getter]
    fn version(&self) -> Option<&str> {
        self.read(|ssl| ssl.version())?
    }

    /// str | None: The common name of the client's certificate.
    #[getter]
    fn cn(&self) -> Option<&str> {
        self.read(|ssl| ssl.cn())?
    }

    /// str | None: The cipher, such as ``"ECDHE-RSA-AES128-GCM-SHA256"``.
    #[getter]
    fn cipher(&self) -> Option<&str> {
        self.read(|ssl| ssl.cipher())?
    }

    /// str | None: The algorithm that signed the proxy's certificate, such as ``"RSA-SHA256"``.
    #[getter]
    fn sig_alg(&self) -> Option<&str> {
        self.read(|ssl| ssl.sig_alg())?
    }

    /// str | None: The key algorithm of the proxy's certificate, such as ``"RSA2048"``.
    #[getter]
    fn key_alg(&self) -> Option<&str> {
        self.read(|ssl| ssl.key_alg())?
    }

    /// str | None: The group of the key exchange, such as ``"X25519MLKEM768"``.
    #[getter]
    fn group(&self) -> Option<&str> {
        self.read(|ssl| ssl.group())?
    }

    /// str | None: The signature scheme of the handshake, such as ``"rsa_pss_rsae_sha256"``.
    #[getter]
    fn sig_scheme(&self) -> Option<&str> {
        self.read(|ssl| ssl.sig_scheme())?
    }

    /// bytes | None: The client's certificate in DER.
    #[getter]
    fn client_cert<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.read(|ssl| ssl.client_cert())?.map(|der| PyBytes::new(py, der))
    }

    /// tuple[tuple[int, bytes], ...]: The sub-TLVs in wire order, duplicates kept.
    #[getter]
    fn tlvs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self.read(|ssl| ssl.tlvs()) {
            Some(tlvs) => header::tlvs_to_python(py, tlvs),
            None => Ok(PyTuple::empty(py)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let version = self.version().into_pyobject(py)?;
        let cn = self.cn().into_pyobject(py)?;
        Ok(format!(
            "<SslInfo client_tls={} version={} cn={} verified={}>",
            python_bool(self.client_tls()),
            version.repr()?,
            cn.repr()?,
            python_bool(self.verified()),
        ))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.value() == other.value()
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyBytes::new(py, self.value().unwrap_or_default()).hash()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Py<Header>,))> {
        let get_ssl = py.import("operator")?.call_method1("attrgetter", ("ssl",))?;
        Ok((get_ssl, (self.0.clone_ref(py),)))
    }
}

const fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
