//! `Header`: the codec's header as a frozen Python object, which says what it is asked for when it is asked.

use codec::{Address, Command, Version};
use proxyproto_codec as codec;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};

use crate::address;
use crate::encode;
use crate::enums;
use crate::ssl::SslInfo;

/// One PROXY header, as received or to be sent.
///
/// A frozen class with native fields costs 57 ns to return, a tuple of Python objects 341 and a frozen dataclass 825
/// (`CPython` 3.11, 2 cores); so only the two addresses are kept, once they were asked for.
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct Header {
    inner: codec::Header,
    source: PyOnceLock<Py<PyAny>>,
    destination: PyOnceLock<Py<PyAny>>,
}

impl Header {
    pub(crate) const fn new(inner: codec::Header) -> Self {
        Self { inner, source: PyOnceLock::new(), destination: PyOnceLock::new() }
    }

    pub(crate) const fn codec(&self) -> &codec::Header {
        &self.inner
    }
}

#[pymethods]
impl Header {
    /// Build a version 1 header of two IP addresses.
    #[staticmethod]
    #[pyo3(name = "v1", signature = (source, destination))]
    fn build_v1(source: &Bound<'_, PyAny>, destination: &Bound<'_, PyAny>) -> PyResult<Self> {
        encode::v1(source, destination).map(Self::new)
    }

    /// Build a version 2 PROXY header.
    #[staticmethod]
    #[pyo3(
        name = "v2",
        signature = (source, destination, *, transport=None, tlvs=None, checksum=false),
        text_signature = "(source, destination, *, transport=Transport.STREAM, tlvs=(), checksum=False)"
    )]
    fn build_v2(
        source: &Bound<'_, PyAny>,
        destination: &Bound<'_, PyAny>,
        transport: Option<&Bound<'_, PyAny>>,
        tlvs: Option<&Bound<'_, PyAny>>,
        checksum: bool,
    ) -> PyResult<Self> {
        encode::v2(source, destination, transport, tlvs, checksum).map(Self::new)
    }

    /// Build a version 2 LOCAL header, for the proxy's own connections such as health checks.
    #[staticmethod]
    #[pyo3(signature = (*, tlvs=None, checksum=false), text_signature = "(*, tlvs=(), checksum=False)")]
    fn local(tlvs: Option<&Bound<'_, PyAny>>, checksum: bool) -> PyResult<Self> {
        encode::local(tlvs, checksum).map(Self::new)
    }

    /// Build the version 1 header ``PROXY UNKNOWN``.
    #[staticmethod]
    fn unknown() -> Self {
        Self::new(codec::Header::unknown())
    }

    /// The version of the format: 1 or 2.
    #[getter]
    fn version(&self) -> u8 {
        match self.inner.version() {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// Whom the proxy speaks for.
    #[getter]
    fn command<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::command(py, self.inner.command())
    }

    /// The kind of addresses.
    #[getter]
    fn family<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::family(py, self.inner.family())
    }

    /// The kind of socket the client used.
    #[getter]
    fn transport<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::transport(py, self.inner.transport())
    }

    /// The client's address as the socket module gives it; None where the real endpoint applies.
    #[getter]
    fn source<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
        kept(py, &self.source, self.inner.source())
    }

    /// The address the client connected to; None where the real endpoint applies.
    #[getter]
    fn destination<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
        kept(py, &self.destination, self.inner.destination())
    }

    /// The client's IP address, or None.
    #[getter]
    fn source_ip<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.source().map_or(Ok(None), |address| address::ip_to_python(py, &address))
    }

    /// The IP address the client connected to, or None.
    #[getter]
    fn destination_ip<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.destination().map_or(Ok(None), |address| address::ip_to_python(py, &address))
    }

    /// The TLVs in wire order, duplicates kept.
    #[getter]
    fn tlvs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        tlvs_to_python(py, self.inner.tlvs())
    }

    /// The value of the first TLV of this type, or None.
    #[pyo3(signature = (r#type, /))]
    fn get_tlv<'py>(
        &self,
        py: Python<'py>,
        r#type: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let kind = encode::tlv_type("type", r#type)?;
        Ok(self.inner.tlv(kind).map(|value| PyBytes::new(py, value)))
    }

    /// The protocol negotiated by ALPN, or None.
    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.alpn().map(|value| PyBytes::new(py, value))
    }

    /// The host name the client asked for (SNI), or None.
    #[getter]
    fn authority(&self) -> Option<&str> {
        self.inner.authority()
    }

    /// The proxy's id of the connection, or None.
    #[getter]
    fn unique_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.unique_id().map(|value| PyBytes::new(py, value))
    }

    /// The network namespace, or None.
    #[getter]
    fn netns(&self) -> Option<&str> {
        self.inner.netns()
    }

    /// What the proxy knows of the client's TLS, or None.
    #[getter]
    fn ssl(slf: &Bound<'_, Self>) -> Option<SslInfo> {
        SslInfo::of(slf)
    }

    /// The id of the AWS VPC endpoint, or None.
    #[getter]
    fn aws_vpc_endpoint_id(&self) -> Option<&str> {
        self.inner.aws_vpc_endpoint_id()
    }

    /// The link id of the Azure private endpoint, or None.
    #[getter]
    fn azure_private_endpoint_link_id(&self) -> Option<u32> {
        self.inner.azure_private_endpoint_link_id()
    }

    /// The connection id of GCP's Private Service Connect, or None.
    #[getter]
    fn gcp_psc_connection_id(&self) -> Option<u64> {
        self.inner.gcp_psc_connection_id()
    }

    /// The bytes of the header.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.raw())
    }

    /// Return the bytes to send: `raw`.
    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.raw(py)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    /// Python's own hash of the bytes, which is keyed: senders choose these bytes, and must not choose their hash.
    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.raw(py).hash()
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = intern!(py, "name");
        let mut words = vec![format!("Header v{} {}", self.version(), self.command(py)?.getattr(name)?)];
        if self.inner.command() == Command::Proxy {
            words.push(format!("{}/{}", self.family(py)?.getattr(name)?, self.transport(py)?.getattr(name)?));
        }
        if let (Some(source), Some(destination)) = (self.source(py)?, self.destination(py)?) {
            words.push(format!("{} -> {}", source.repr()?, destination.repr()?));
        }
        match self.inner.tlvs().count() {
            0 => {}
            1 => words.push("1 TLV".to_owned()),
            count => words.push(format!("{count} TLVs")),
        }
        Ok(format!("<{}>", words.join(" ")))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.import("proxyproto_rs._core")?.getattr("_header_from_raw")?, (self.raw(py),)))
    }
}

/// An address, made on the first request and then kept.
fn kept<'a, 'py>(
    py: Python<'py>,
    cell: &'a PyOnceLock<Py<PyAny>>,
    address: Option<Address<'_>>,
) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    let Some(address) = address else { return Ok(None) };
    cell.get_or_try_init(py, || address::to_python(py, &address).map(Bound::unbind))
        .map(|kept| Some(kept.bind(py)))
}

/// TLVs as a tuple of pairs.
pub(crate) fn tlvs_to_python<'py>(py: Python<'py>, tlvs: codec::Tlvs<'_>) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, tlvs.map(|tlv| (tlv.kind, PyBytes::new(py, tlv.value))).collect::<Vec<_>>())
}
