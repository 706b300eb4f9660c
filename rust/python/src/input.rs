//! Bytes from Python. `bytes` are used as they are; of `bytearray` and `memoryview` a bounded part is copied.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice, PyString};

use crate::error;

/// The bytes that were given as an argument.
///
/// Another thread may change a `bytearray` or a writable `memoryview` while we read it, so both are copied.
pub(crate) enum Input<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'a, 'py> Input<'a, 'py> {
    /// Takes the bytes of the argument `name`. A copy holds only the first `limit` bytes, because the caller needs no
    /// more.
    #[expect(clippy::inline_always, reason = "4 ns of a parse; what is long is in functions of its own")]
    #[inline(always)]
    pub(crate) fn new(name: &str, data: &'a Bound<'py, PyAny>, limit: usize) -> PyResult<Self> {
        match data.cast::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(_) => copy(name, data, limit).map(Self::Copied),
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

fn copy(name: &str, data: &Bound<'_, PyAny>, limit: usize) -> PyResult<Vec<u8>> {
    if let Ok(array) = data.cast::<PyByteArray>() {
        if array.len() <= limit {
            return Ok(array.to_vec());
        }
        return copy_view(&PyMemoryView::from(array)?, limit);
    }
    if let Ok(view) = data.cast::<PyMemoryView>() {
        return copy_view(view, limit);
    }
    if data.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "{name} must be bytes-like, not str: were bytes (b\"...\") meant?"
        )));
    }
    Err(error::wrong_type(name, "bytes, bytearray or memoryview", data))
}

/// The first `limit` bytes of a view. The stable ABI has the buffer protocol only from 3.11 on, so this calls the
/// view's methods. It slices first: copying a whole view of 64 KiB item by item takes a millisecond.
fn copy_view(view: &Bound<'_, PyMemoryView>, limit: usize) -> PyResult<Vec<u8>> {
    let py = view.py();
    let mut view = view.as_any().clone();
    if view.getattr(intern!(py, "nbytes"))?.extract::<usize>()? > limit {
        if view.getattr(intern!(py, "c_contiguous"))?.is_truthy()? {
            view = view.call_method1(intern!(py, "cast"), ("B",))?;
        }
        // If the view is not contiguous, this takes `limit` items: perhaps more than `limit` bytes, never fewer.
        let stop = isize::try_from(limit).unwrap_or(isize::MAX);
        view = view.get_item(PySlice::new(py, 0, stop, 1))?;
    }
    let bytes = view.call_method0(intern!(py, "tobytes"))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}
