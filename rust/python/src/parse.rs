//! `parse`, `parse_datagram` and `Decoder`: the bytes go to the codec, which judges them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use codec::Status;
use proxyproto_codec as codec;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;

use crate::error;
use crate::header::Header;
use crate::input::Input;
use crate::options::{self, MaxHeaderSize, Versions};

/// Read the header at the start of a stream.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, versions=Versions::default(), max_header_size=MaxHeaderSize::default(),
                 allow_mixed_families=false, reject_unspec=false, ignore_malformed_tlvs=false),
    text_signature = "(data, /, *, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                      reject_unspec=False, ignore_malformed_tlvs=False)"
)]
pub(crate) fn parse(
    data: &Bound<'_, PyAny>,
    versions: Versions,
    max_header_size: MaxHeaderSize,
    allow_mixed_families: bool,
    reject_unspec: bool,
    ignore_malformed_tlvs: bool,
) -> PyResult<(Header, usize)> {
    let options =
        options::new(versions, max_header_size, allow_mixed_families, reject_unspec, ignore_malformed_tlvs);
    let input = Input::new("data", data, options.max_header_size.get())?;
    match codec::decode(input.as_bytes(), &options) {
        Ok(Status::Complete(header)) => Ok(with_length(header)),
        Ok(Status::Partial { needed }) => Err(error::incomplete(needed)),
        Err(error) => Err(error::invalid(data.py(), error, input.as_bytes())),
    }
}

/// Read the header at the start of one datagram.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, versions=Versions::default(), max_header_size=MaxHeaderSize::default(),
                 allow_mixed_families=false, reject_unspec=false, ignore_malformed_tlvs=false),
    text_signature = "(data, /, *, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                      reject_unspec=False, ignore_malformed_tlvs=False)"
)]
pub(crate) fn parse_datagram(
    data: &Bound<'_, PyAny>,
    versions: Versions,
    max_header_size: MaxHeaderSize,
    allow_mixed_families: bool,
    reject_unspec: bool,
    ignore_malformed_tlvs: bool,
) -> PyResult<(Header, usize)> {
    let options =
        options::new(versions, max_header_size, allow_mixed_families, reject_unspec, ignore_malformed_tlvs);
    let input = Input::new("data", data, options.max_header_size.get())?;
    match codec::decode_datagram(input.as_bytes(), &options) {
        Ok(header) => Ok(with_length(header)),
        Err(error) => Err(error::invalid(data.py(), error, input.as_bytes())),
    }
}

fn with_length(header: codec::Header<&[u8]>) -> (Header, usize) {
    let length = header.raw().len();
    (Header::new(header.to_owned()), length)
}

/// Reads a header that comes in pieces.
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct Decoder(Mutex<Decoding>);

/// What a `Decoder` holds; behind a lock, as `feed` may be called from several threads.
struct Decoding {
    decoder: codec::Decoder,
    /// For the error.
    first_bytes: Vec<u8>,
    needed: usize,
    header: Option<Py<Header>>,
    leftover: Vec<u8>,
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(
        signature = (*, versions=Versions::default(), max_header_size=MaxHeaderSize::default(),
                     allow_mixed_families=false, reject_unspec=false, ignore_malformed_tlvs=false),
        text_signature = "(*, versions=(1, 2), max_header_size=4096, allow_mixed_families=False, \
                          reject_unspec=False, ignore_malformed_tlvs=False)"
    )]
    fn new(
        versions: Versions,
        max_header_size: MaxHeaderSize,
        allow_mixed_families: bool,
        reject_unspec: bool,
        ignore_malformed_tlvs: bool,
    ) -> Self {
        let mut decoder = codec::Decoder::new(options::new(
            versions,
            max_header_size,
            allow_mixed_families,
            reject_unspec,
            ignore_malformed_tlvs,
        ));
        let needed = match decoder.feed(b"") {
            Ok(Status::Partial { needed }) => needed,
            Ok(Status::Complete(_)) | Err(_) => 0,
        };
        Self(Mutex::new(Decoding {
            decoder,
            first_bytes: Vec::new(),
            needed,
            header: None,
            leftover: Vec::new(),
        }))
    }

    /// Add bytes of the stream; return the header once it is complete.
    #[pyo3(signature = (data, /))]
    fn feed(&self, data: &Bound<'_, PyAny>) -> PyResult<Option<Py<Header>>> {
        let input = Input::new("data", data, usize::MAX)?;
        self.lock(data.py()).feed(data.py(), input.as_bytes())
    }

    /// The header once it is complete, before that None.
    #[getter]
    fn header(&self, py: Python<'_>) -> Option<Py<Header>> {
        self.lock(py).header.as_ref().map(|header| header.clone_ref(py))
    }

    /// The bytes that came after the header.
    #[getter]
    fn leftover<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock(py).leftover)
    }

    /// At least so many bytes are missing; 0 when nothing more is wanted.
    #[getter]
    fn needed(&self, py: Python<'_>) -> usize {
        self.lock(py).needed
    }
}

impl Decoder {
    /// A panic cannot leave `Decoding` half changed in a way that matters: nothing is read from it by index.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Decoding> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Decoding {
    fn feed(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<Option<Py<Header>>> {
        let missing = error::FIRST_BYTES - self.first_bytes.len();
        self.first_bytes.extend(data.iter().take(missing));
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
            self.header = Some(Py::new(py, Header::new(header.to_owned()))?);
        }
        Ok(self.header.as_ref().map(|header| header.clone_ref(py)))
    }
}

/// Make a header of its own bytes: how pickle restores one.
#[pyfunction]
#[pyo3(name = "_header_from_raw", signature = (raw, /))]
pub(crate) fn header_from_raw(raw: &Bound<'_, PyBytes>) -> PyResult<Header> {
    let bytes = raw.as_bytes();
    // It was accepted once, by whatever options; what it says is the same under all of them.
    let options = codec::Options {
        versions: codec::Versions::Both,
        max_header_size: codec::MaxHeaderSize::new(codec::MaxHeaderSize::MAX).unwrap_or_default(),
        allow_mixed_families: true,
        reject_unspec: false,
        ignore_malformed_tlvs: true,
    };
    match codec::decode_datagram(bytes, &options) {
        Ok(header) => Ok(Header::new(header.to_owned())),
        Err(error) => Err(error::invalid(raw.py(), error, bytes)),
    }
}
