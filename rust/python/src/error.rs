//! The one mapping of the codec's errors to Python's exceptions. The exceptions are written in Python.

use proxyproto_codec as codec;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pyo3::import_exception!(proxyproto_rs.exceptions, IncompleteHeader);
pyo3::import_exception!(proxyproto_rs.exceptions, InvalidHeader);

/// An `IncompleteHeader`: at least `needed` more bytes are missing.
#[cold]
pub(crate) fn incomplete(needed: usize) -> PyErr {
    IncompleteHeader::new_err(needed)
}

/// An `InvalidHeader` with the first bytes of `data`.
#[cold]
pub(crate) fn invalid(py: Python<'_>, error: codec::Error, data: &[u8]) -> PyErr {
    let first = data.get(..FIRST_BYTES).unwrap_or(data);
    InvalidHeader::new_err((error.reason.code(), error.offset, PyBytes::new(py, first).unbind()))
}

/// A `ValueError`: the caller asked for a header that cannot be sent.
#[cold]
pub(crate) fn encode(error: codec::EncodeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A `TypeError` for an argument of a wrong type.
#[cold]
pub(crate) fn wrong_type(argument: &str, wanted: &str, given: &Bound<'_, PyAny>) -> PyErr {
    match given.get_type().name() {
        Ok(kind) => PyTypeError::new_err(format!("{argument} must be {wanted}, not {kind}")),
        Err(error) => error,
    }
}

/// A `ValueError` for a number out of its range.
#[cold]
pub(crate) fn out_of_range(argument: &str, range: &str, given: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{argument} must be {range}, not {given}"))
}

/// Takes an integer. One that does not fit `T` is out of `range`.
pub(crate) fn int_argument<'py, T>(argument: &str, given: &Bound<'py, PyAny>, range: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    given.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyTypeError>(given.py()) {
            wrong_type(argument, "int", given)
        } else {
            out_of_range(argument, range, given)
        }
    })
}

/// How many of the first bytes an error keeps: enough to tell protocols apart, too few to fill a log.
pub(crate) const FIRST_BYTES: usize = 16;

/// The published table: the code, text and outcome of each reason.
#[pyfunction]
#[pyo3(name = "_reasons")]
pub(crate) fn reasons() -> Vec<(&'static str, &'static str, &'static str)> {
    codec::Reason::ALL.iter().map(|reason| (reason.code(), reason.text(), reason.fault().name())).collect()
}

/// What a stranger's first bytes look like, with the article: `an MQTT CONNECT`.
#[pyfunction]
#[pyo3(name = "_looks_like", signature = (first_bytes, /))]
pub(crate) fn looks_like(first_bytes: &[u8]) -> String {
    codec::FirstBytes::of(first_bytes).to_string()
}
