//! `parse`, `parse_datagram` and `Decoder`. The codec judges the bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use codec::Status;
use proxyproto_codec as codec;
use pyo3::prelude::*;
use pyo3::sync::{MutexExt, PyOnceLock};
use pyo3::types::{PyBytes, PyTuple};

use crate::error;
use crate::header::Header;
use crate::input::Input;
use crate::options::{self, Keyword};

/// Read the header at the start of a stream.
///
/// The bytes behind the header never influence the result.
///
/// Typical use::
///
///     header, length = parse(data)
///     client, payload = header.source, data[length:]
///
/// Args:
///     data: bytes, bytearray or memoryview: the first bytes of the stream.
///     versions: The versions to accept: 1, 2 or both (R7).
///     max_header_size: The longest header to accept, in bytes: 16 to 65551. A line of version 1 is never longer than
///         107 (R17).
///     allow_mixed_families: Let the addresses of a version 1 line be of different families, as nginx writes them
///         behind its realip module (bends R13).
///     reject_unspec: Refuse a PROXY header that names no client: UNKNOWN, or UNSPEC (R10 and R26 permit both).
///     ignore_malformed_tlvs: Take the TLVs before the first malformed one and ignore the rest. A wrong checksum stays
///         an error (R34).
///
/// Returns:
///     The header, and the number of bytes that it takes.
///
/// Raises:
///     IncompleteHeader: `data` is the beginning of a header. At least `needed` more bytes must follow.
///     InvalidHeader: No continuation of `data` can be valid. `reason` says what is wrong, `offset` at which byte.
///     ValueError: `versions` or `max_header_size` is out of range, or a memoryview has been released.
///     TypeError: An argument is of the wrong type.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, versions=Keyword::default(), max_header_size=Keyword::default(),
                 allow_mixed_families=Keyword::default(), reject_unspec=Keyword::default(),
                 ignore_malformed_tlvs=Keyword::default()),
    text_signature = "(data, /, *, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                      reject_unspec=False, ignore_malformed_tlvs=False)"
)]
pub(crate) fn parse<'py>(
    data: &Bound<'py, PyAny>,
    versions: Keyword<'_, '_>,
    max_header_size: Keyword<'_, '_>,
    allow_mixed_families: Keyword<'_, '_>,
    reject_unspec: Keyword<'_, '_>,
    ignore_malformed_tlvs: Keyword<'_, '_>,
) -> PyResult<Bound<'py, PyTuple>> {
    let options =
        options::new(versions, max_header_size, allow_mixed_families, reject_unspec, ignore_malformed_tlvs)?;
    let input = Input::new("data", data, options.max_header_size.get())?;
    match codec::decode(input.as_bytes(), &options) {
        Ok(Status::Complete(header)) => with_length(data.py(), header),
        Ok(Status::Partial { needed }) => Err(error::incomplete(needed)),
        Err(error) => Err(error::invalid(data.py(), error, input.as_bytes())),
    }
}

/// Read the header at the start of one datagram, which must hold the whole header (R6).
///
/// Typical use::
///
///     data, proxy = sock.recvfrom(65535)
///     header, length = parse_datagram(data)
///     client, payload = header.source, data[length:]
///
/// Args:
///     data: bytes, bytearray or memoryview: the datagram. Its payload follows the header.
///     versions: As for `parse`, like the other keywords.
///
/// Returns:
///     The header, and the number of bytes that it takes.
///
/// Raises:
///     InvalidHeader: The datagram does not start with a valid header, or ends inside it.
///     ValueError: As for `parse`.
///     TypeError: As for `parse`.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, versions=Keyword::default(), max_header_size=Keyword::default(),
                 allow_mixed_families=Keyword::default(), reject_unspec=Keyword::default(),
                 ignore_malformed_tlvs=Keyword::default()),
    text_signature = "(data, /, *, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                      reject_unspec=False, ignore_malformed_tlvs=False)"
)]
pub(crate) fn parse_datagram<'py>(
    data: &Bound<'py, PyAny>,
    versions: Keyword<'_, '_>,
    max_header_size: Keyword<'_, '_>,
    allow_mixed_families: Keyword<'_, '_>,
    reject_unspec: Keyword<'_, '_>,
    ignore_malformed_tlvs: Keyword<'_, '_>,
) -> PyResult<Bound<'py, PyTuple>> {
    let options =
        options::new(versions, max_header_size, allow_mixed_families, reject_unspec, ignore_malformed_tlvs)?;
    let input = Input::new("data", data, options.max_header_size.get())?;
    match codec::decode_datagram(input.as_bytes(), &options) {
        Ok(header) => with_length(data.py(), header),
        Err(error) => Err(error::invalid(data.py(), error, input.as_bytes())),
    }
}

/// The header and its length.
fn with_length<'py>(py: Python<'py>, header: codec::Header<&[u8]>) -> PyResult<Bound<'py, PyTuple>> {
    if header.raw() == UNKNOWN {
        return unknown(py);
    }
    let length = header.raw().len();
    (Header::new(py, header)?, length).into_pyobject(py)
}

/// The header that says nothing more than that the client is unknown.
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// The result of parsing `UNKNOWN`. It is immutable and always the same, so it is made once, which halves the time.
fn unknown(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    static MADE: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let make = || {
        let header = codec::Header::unknown();
        let length = header.raw().len();
        Ok::<_, PyErr>((Header::new(py, header)?, length).into_pyobject(py)?.unbind())
    };
    Ok(MADE.get_or_try_init(py, make)?.bind(py).clone())
}

/// Reads a header that arrives in pieces.
///
/// It keeps at most `max_header_size` bytes of an incomplete header, and looks at each byte once.
///
/// Typical use::
///
///     decoder = Decoder()
///     while decoder.header is None:
///         data = sock.recv(decoder.needed)
///         if not data:
///             raise EOFError("the stream ends inside its header")
///         decoder.feed(data)
///
/// Args:
///     versions: As for `parse`, like the other keywords.
///
/// Raises:
///     ValueError: `versions` or `max_header_size` is out of range.
///     TypeError: A keyword is of the wrong type.
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct Decoder(Mutex<Decoding>);

/// The state of a `Decoder`. It is behind a lock, because several threads may call `feed`.
struct Decoding {
    decoder: codec::Decoder,
    /// The first bytes fed, for the error.
    first_bytes: Vec<u8>,
    needed: usize,
    header: Option<Py<Header>>,
    leftover: Vec<u8>,
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(
        signature = (*, versions=Keyword::default(), max_header_size=Keyword::default(),
                     allow_mixed_families=Keyword::default(), reject_unspec=Keyword::default(),
                     ignore_malformed_tlvs=Keyword::default()),
        text_signature = "(*, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                          reject_unspec=False, ignore_malformed_tlvs=False)"
    )]
    fn new(
        versions: Keyword<'_, '_>,
        max_header_size: Keyword<'_, '_>,
        allow_mixed_families: Keyword<'_, '_>,
        reject_unspec: Keyword<'_, '_>,
        ignore_malformed_tlvs: Keyword<'_, '_>,
    ) -> PyResult<Self> {
        let mut decoder = codec::Decoder::new(options::new(
            versions,
            max_header_size,
            allow_mixed_families,
            reject_unspec,
            ignore_malformed_tlvs,
        )?);
        let needed = match decoder.feed(b"") {
            Ok(Status::Partial { needed }) => needed,
            Ok(Status::Complete(_)) | Err(_) => 0,
        };
        Ok(Self(Mutex::new(Decoding {
            decoder,
            first_bytes: Vec::new(),
            needed,
            header: None,
            leftover: Vec::new(),
        })))
    }

    /// Add bytes of the stream. Return the header once its last byte is there, and None before that (R30).
    ///
    /// Bytes behind the header, from this call or later ones, go to `leftover`.
    ///
    /// Raises:
    ///     InvalidHeader: No continuation can be valid. `offset` counts from the first byte ever fed. Later calls raise it
    ///         again.
    ///     TypeError: `data` is not bytes, bytearray or memoryview.
    ///     ValueError: `data` is a memoryview that has been released.
    #[pyo3(signature = (data, /))]
    fn feed(&self, data: &Bound<'_, PyAny>) -> PyResult<Option<Py<Header>>> {
        let input = Input::new("data", data, usize::MAX)?;
        self.lock(data.py()).feed(data.py(), input.as_bytes())
    }

    /// Header | None: The header, once it is complete.
    #[getter]
    fn header(&self, py: Python<'_>) -> Option<Py<Header>> {
        self.lock(py).header.as_ref().map(|header| header.clone_ref(py))
    }

    /// bytes: The payload that was fed behind the header.
    #[getter]
    fn leftover<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock(py).leftover)
    }

    /// int: How many bytes are missing at least. Reading no more than these takes no payload. It is 0 once the header
    /// is complete or invalid.
    #[getter]
    fn needed(&self, py: Python<'_>) -> usize {
        self.lock(py).needed
    }
}

impl Decoder {
    /// A panic cannot leave a `Decoding` in a harmful state: nothing is read from it by index.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Decoding> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Decoding {
    fn feed(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<Option<Py<Header>>> {
        if self.needed > 0 {
            let missing = error::FIRST_BYTES.saturating_sub(self.first_bytes.len());
            self.first_bytes.extend(data.iter().take(missing));
        }
        match self.decoder.feed(data) {
            Ok(Status::Partial { needed }) => {
                self.needed = needed;
                return Ok(None);
            }
            Ok(Status::Complete(rest)) => self.leftover.extend_from_slice(rest),
            Err(error) => {
                self.needed = 0;
                return Err(error::invalid(py, error, &self.first_bytes));
            }
        }
        self.needed = 0;
        if self.header.is_none()
            && let Some(header) = self.decoder.header()
        {
            self.header = Some(Header::new(py, header)?.unbind());
        }
        Ok(self.header.as_ref().map(|header| header.clone_ref(py)))
    }
}

/// Make a header from its own bytes, for pickle.
#[pyfunction]
#[pyo3(name = "_header_from_raw", signature = (raw, /))]
pub(crate) fn header_from_raw<'py>(raw: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, Header>> {
    let bytes = raw.as_bytes();
    // Some options accepted it before. Under every set of options that accepts it, it says the same.
    let options = codec::Options::default()
        .max_header_size(codec::MaxHeaderSize::new(codec::MaxHeaderSize::MAX).unwrap_or_default())
        .allow_mixed_families(true)
        .ignore_malformed_tlvs(true);
    match codec::decode_datagram(bytes, &options) {
        Ok(header) => Header::new(raw.py(), header),
        Err(error) => Err(error::invalid(raw.py(), error, bytes)),
    }
}
