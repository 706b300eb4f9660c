//! Paths of UNIX sockets, as `os.fsdecode` and `os.fsencode` convert them.

use pyo3::prelude::*;

#[cfg(unix)]
pub(crate) fn to_python<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    use std::os::unix::ffi::OsStrExt;

    Ok(std::ffi::OsStr::from_bytes(path).into_pyobject(py)?.into_any())
}

#[cfg(unix)]
pub(crate) fn from_python(path: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;

    Ok(path.extract::<std::ffi::OsString>()?.into_vec())
}

// Elsewhere an OsStr is not made of bytes.
#[cfg(not(unix))]
pub(crate) fn to_python<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    py.import("os")?.call_method1("fsdecode", (pyo3::types::PyBytes::new(py, path),))
}

#[cfg(not(unix))]
pub(crate) fn from_python(path: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    path.py().import("os")?.call_method1("fsencode", (path,))?.extract()
}
