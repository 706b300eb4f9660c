//! `Header`: the codec's header as a frozen Python object. Most attributes are made when they are asked for.

use std::sync::OnceLock;

use codec::{Command, Version};
use proxyproto_codec as codec;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::address;
use crate::encode;
use crate::enums;
use crate::options::Keyword;
use crate::ssl::SslInfo;

// The fields are native and become Python objects on demand. Returning such a frozen class costs 57 ns, with a tuple of
// Python objects 341, and a frozen dataclass 825. The exception is the source, which everybody asks for: the
// interpreter reads a plain field without a call, 20 ns faster than through a getter (CPython 3.11, 2 cores).
/// One PROXY header, as received or to be sent. It is immutable, hashable and picklable.
///
/// There is no constructor: `parse` and `Decoder` read headers; `v1`, `v2`, `local` and `unknown` build them. Two
/// headers are equal when their `raw` is.
///
/// Text that is not valid for its TLV, or that holds control characters, is never repaired. Its attribute is None, and
/// its bytes stay in `tlvs`.
///
/// Typical use::
///
///     header = Header.v2(("192.0.2.1", 56324), ("198.51.100.2", 443), tlvs=[(0x02, b"example.com")])
///     sock.sendall(header.encode())
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct Header {
    inner: codec::Header,
    /// The client's address, in the form of `socket.getpeername()`: ``(host, port)`` for INET, ``(host, port, 0, 0)``
    /// for INET6, str for a UNIX path, bytes for an abstract name; None where the real endpoints of the connection
    /// apply.
    ///
    /// IPv6 text follows RFC 5952. An IPv4-mapped address is ``::ffff:192.0.2.1``.
    #[pyo3(get)]
    source: Py<PyAny>,
    /// Made on the first request. `PyOnceLock` would release the interpreter lock meanwhile, which costs 60 ns and lets
    /// other threads run. Here two threads may both make it, and one result is dropped.
    destination: OnceLock<Py<PyAny>>,
}

impl Header {
    pub(crate) fn new<B>(py: Python<'_>, header: codec::Header<B>) -> PyResult<Bound<'_, Self>>
    where
        B: AsRef<[u8]> + Into<Box<[u8]>>,
    {
        // The source is made before the header is copied. The decoder has just written the header field by field. Until
        // those writes have left the processor's store buffer, reading them in larger pieces stalls.
        let source = match header.source() {
            Some(source) => address::to_python(py, &source)?.unbind(),
            None => py.None(),
        };
        Bound::new(py, Self { inner: header.map(Into::into), source, destination: OnceLock::new() })
    }

    /// The source, if the header has one.
    pub(crate) fn source<'a, 'py>(&'a self, py: Python<'py>) -> Option<&'a Bound<'py, PyAny>> {
        (!self.source.is_none(py)).then(|| self.source.bind(py))
    }

    pub(crate) const fn codec(&self) -> &codec::Header {
        &self.inner
    }
}

#[pymethods]
impl Header {
    /// Build a version 1 header for two IP addresses of one family.
    ///
    /// Args:
    ///     source: The client, in the form of `getpeername()`: ``(host, port)`` or
    ///         ``(host, port, flowinfo, scope_id)``. The header does not carry the last two. The host is an address, as
    ///         text or from `ipaddress`.
    ///     destination: The address that the client connected to, in the same form.
    ///
    /// Raises:
    ///     ValueError: The header cannot be sent: the addresses are of different families (R13) or UNIX paths (S2), a
    ///         host is a name, or a port is out of range.
    ///     TypeError: An argument is not an address.
    #[staticmethod]
    #[pyo3(name = "v1", signature = (source, destination))]
    fn build_v1<'py>(
        source: &Bound<'py, PyAny>,
        destination: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        Self::new(source.py(), encode::v1(source, destination)?)
    }

    /// Build a version 2 PROXY header.
    ///
    /// Args:
    ///     source: The client, as for `v1`. It may also be a UNIX path (str or bytes), or an abstract name (bytes with
    ///         a leading NUL).
    ///     destination: The address that the client connected to, of the same family.
    ///     transport: A `Transport`: STREAM (the default) or DGRAM.
    ///     tlvs: Pairs of a type (0 to 239) and a bytes-like value. They are sent in this order.
    ///     checksum: Whether to add a CRC32C TLV in front of the others (R34).
    ///
    /// Raises:
    ///     ValueError: The header cannot be sent: the sender's rules S4 to S14 forbid it, or addresses and TLVs take
    ///         more than 65535 bytes.
    ///     TypeError: An argument is of the wrong type.
    #[staticmethod]
    #[pyo3(
        name = "v2",
        signature = (source, destination, *, transport=None, tlvs=None, checksum=Keyword::default()),
        text_signature = "(source, destination, *, transport=..., tlvs=(), checksum=False)"
    )]
    fn build_v2<'py>(
        source: &Bound<'py, PyAny>,
        destination: &Bound<'_, PyAny>,
        transport: Option<&Bound<'_, PyAny>>,
        tlvs: Option<&Bound<'_, PyAny>>,
        checksum: Keyword<'_, '_>,
    ) -> PyResult<Bound<'py, Self>> {
        Self::new(source.py(), encode::v2(source, destination, transport, tlvs, checksum.flag("checksum")?)?)
    }

    /// Build a version 2 LOCAL header, for the proxy's own connections such as health checks (S3, S5).
    ///
    /// Args:
    ///     tlvs: As for `v2`.
    ///     checksum: As for `v2`.
    ///
    /// Raises:
    ///     ValueError: As for `v2`.
    ///     TypeError: As for `v2`.
    #[staticmethod]
    #[pyo3(
        signature = (*, tlvs=None, checksum=Keyword::default()),
        text_signature = "(*, tlvs=(), checksum=False)"
    )]
    fn local<'py>(
        py: Python<'py>,
        tlvs: Option<&Bound<'_, PyAny>>,
        checksum: Keyword<'_, '_>,
    ) -> PyResult<Bound<'py, Self>> {
        Self::new(py, encode::local(tlvs, checksum.flag("checksum")?)?)
    }

    /// Build the version 1 header ``PROXY UNKNOWN``, for a connection that version 1 cannot describe (S2).
    #[staticmethod]
    fn unknown(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        Self::new(py, codec::Header::unknown())
    }

    /// int: The version of the format, 1 or 2.
    #[getter]
    fn version(&self) -> u8 {
        match self.inner.version() {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// Command: Whether the proxy speaks for a client (PROXY) or for itself (LOCAL).
    #[getter]
    fn command<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::command(py, self.inner.command())
    }

    /// Family: The kind of addresses. It is UNSPEC for LOCAL, whatever the header's byte says (R23).
    #[getter]
    fn family<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::family(py, self.inner.family())
    }

    /// Transport: The kind of socket that the client used. It is UNSPEC for LOCAL.
    #[getter]
    fn transport<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        enums::transport(py, self.inner.transport())
    }

    /// The address that the client connected to, in the form of `socket.getsockname()`; see `source`.
    #[getter]
    pub(crate) fn destination<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
        if self.destination.get().is_none()
            && let Some(destination) = self.inner.destination()
        {
            let _ = self.destination.set(address::to_python(py, &destination)?.unbind());
        }
        Ok(self.destination.get().map(|destination| destination.bind(py)))
    }

    /// IPv4Address | IPv6Address | None: The client's IP address.
    #[getter]
    fn source_ip<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.source().map_or(Ok(None), |address| address::ip_to_python(py, &address))
    }

    /// IPv4Address | IPv6Address | None: The IP address that the client connected to.
    #[getter]
    fn destination_ip<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.destination().map_or(Ok(None), |address| address::ip_to_python(py, &address))
    }

    /// tuple[tuple[int, bytes], ...]: The TLVs in wire order, with duplicates, NOOP and CRC32C.
    #[getter]
    fn tlvs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        tlvs_to_python(py, self.inner.tlvs())
    }

    /// Return the value of the first TLV of this type (0 to 255), or None if there is none.
    ///
    /// Raises:
    ///     ValueError: No type has this number.
    ///     TypeError: `type` is not an int.
    #[pyo3(signature = (r#type))]
    fn get_tlv<'py>(
        &self,
        py: Python<'py>,
        r#type: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let kind = encode::tlv_type("type", r#type)?;
        Ok(self.inner.tlv(kind).map(|value| PyBytes::new(py, value)))
    }

    /// bytes | None: The protocol that client and proxy negotiated by ALPN, such as ``b"h2"``.
    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.alpn().map(|value| PyBytes::new(py, value))
    }

    /// str | None: The host name that the client asked for (SNI).
    #[getter]
    fn authority(&self) -> Option<&str> {
        self.inner.authority()
    }

    /// bytes | None: The proxy's id for the connection, at most 128 bytes (R36).
    #[getter]
    fn unique_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.unique_id().map(|value| PyBytes::new(py, value))
    }

    /// str | None: The network namespace of the proxy's connection.
    #[getter]
    fn netns(&self) -> Option<&str> {
        self.inner.netns()
    }

    /// SslInfo | None: What the proxy knows about the client's TLS.
    #[getter]
    fn ssl(slf: &Bound<'_, Self>) -> Option<SslInfo> {
        SslInfo::of(slf)
    }

    /// str | None: The id of the AWS VPC endpoint that the client came through, such as ``"vpce-08d2bf15fac5001c9"``.
    #[getter]
    fn aws_vpc_endpoint_id(&self) -> Option<&str> {
        self.inner.aws_vpc_endpoint_id()
    }

    /// int | None: The link id of the Azure private endpoint that the client came through.
    #[getter]
    fn azure_private_endpoint_link_id(&self) -> Option<u32> {
        self.inner.azure_private_endpoint_link_id()
    }

    /// int | None: The connection id of GCP's Private Service Connect.
    #[getter]
    fn gcp_psc_connection_id(&self) -> Option<u64> {
        self.inner.gcp_psc_connection_id()
    }

    /// bytes: The header as it was received, or as it is to be sent.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.raw())
    }

    /// Return `raw`, the bytes to send. For a header that was read these are the bytes it came from.
    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.raw(py)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    /// Python's own hash of the bytes, which is keyed: senders choose the bytes and must not be able to choose the
    /// hash.
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
        if let (Some(source), Some(destination)) = (self.source(py), self.destination(py)?) {
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

/// TLVs as a tuple of pairs.
pub(crate) fn tlvs_to_python<'py>(py: Python<'py>, tlvs: codec::Tlvs<'_>) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, tlvs.map(|tlv| (tlv.kind, PyBytes::new(py, tlv.value))).collect::<Vec<_>>())
}
