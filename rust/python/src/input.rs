//! Bytes from Python: `bytes` as they are, `bytearray` and `memoryview` as a copy that hostile lengths cannot enlarge.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice, PyString};

use crate::error;

/// What was given as `data`.
///
/// A `bytearray` or a writable `memoryview` may be changed by another thread while we read it, so both are copied.
pub(crate) enum Input<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'a, 'py> Input<'a, 'py> {
    /// Takes the bytes of the argument `name`; of a copy only the first `limit`, as nothing behind them matters to the
    /// caller.
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

/// The first `limit` bytes of a view. The buffer protocol belongs to the stable ABI only from 3.11 on, so the view itself
/// is asked; and a whole view of 64 KiB takes a millisecond to copy item by item.
fn copy_view(view: &Bound<'_, PyMemoryView>, limit: usize) -> PyResult<Vec<u8>> {
    let py = view.py();
    let mut view = view.as_any().clone();
    if view.getattr(intern!(py, "nbytes"))?.extract::<usize>()? > limit {
        if view.getattr(intern!(py, "c_contiguous"))?.is_truthy()? {
            view = view.call_method1(intern!(py, "cast"), ("B",))?;
        }
        // Of a view that is not contiguous this takes `limit` items: perhaps more bytes, never less.
        let stop = isize::try_from(limit).unwrap_or(isize::MAX);
        view = view.get_item(PySlice::new(py, 0, stop, 1))?;
    }
    let bytes = view.call_method0(intern!(py, "tobytes"))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}
