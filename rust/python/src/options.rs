//! Converts the keywords that `parse`, `Decoder` and `Listener` share to the codec's options.

use std::convert::Infallible;

use proxyproto_codec as codec;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;

/// A keyword argument, if it was given. The code that knows its name converts the value, so that the error can name it.
#[derive(Default)]
pub(crate) struct Keyword<'a, 'py>(Option<Borrowed<'a, 'py, PyAny>>);

impl<'a, 'py> FromPyObject<'a, 'py> for Keyword<'a, 'py> {
    type Error = Infallible;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self(Some(given)))
    }
}

impl<'a, 'py> Keyword<'a, 'py> {
    #[cfg(acceptor)]
    pub(crate) fn into_given(self) -> Option<Borrowed<'a, 'py, PyAny>> {
        self.0
    }

    /// A flag that is off by default.
    pub(crate) fn flag(self, name: &str) -> PyResult<bool> {
        let Some(given) = self.0 else { return Ok(false) };
        given.extract().map_err(|_| error::wrong_type(name, "bool", &given))
    }

    fn extract_or_default<T: FromPyObject<'a, 'py, Error = PyErr> + Default>(self) -> PyResult<T> {
        self.0.map_or_else(|| Ok(T::default()), Borrowed::extract)
    }
}

/// The options that these keywords ask for.
#[inline]
pub(crate) fn new(
    versions: Keyword<'_, '_>,
    max_header_size: Keyword<'_, '_>,
    allow_mixed_families: Keyword<'_, '_>,
    reject_unspec: Keyword<'_, '_>,
    ignore_malformed_tlvs: Keyword<'_, '_>,
) -> PyResult<codec::Options> {
    // Most calls give no keyword. The compiler then knows the options.
    let none_given = versions.0.is_none()
        && max_header_size.0.is_none()
        && allow_mixed_families.0.is_none()
        && reject_unspec.0.is_none()
        && ignore_malformed_tlvs.0.is_none();
    if none_given {
        return Ok(codec::Options::default());
    }
    given(versions, max_header_size, allow_mixed_families, reject_unspec, ignore_malformed_tlvs)
}

#[inline(never)]
fn given(
    versions: Keyword<'_, '_>,
    max_header_size: Keyword<'_, '_>,
    allow_mixed_families: Keyword<'_, '_>,
    reject_unspec: Keyword<'_, '_>,
    ignore_malformed_tlvs: Keyword<'_, '_>,
) -> PyResult<codec::Options> {
    Ok(codec::Options::default()
        .versions(versions.extract_or_default::<Versions>()?.0)
        .max_header_size(max_header_size.extract_or_default::<MaxHeaderSize>()?.0)
        .allow_mixed_families(allow_mixed_families.flag("allow_mixed_families")?)
        .reject_unspec(reject_unspec.flag("reject_unspec")?)
        .ignore_malformed_tlvs(ignore_malformed_tlvs.flag("ignore_malformed_tlvs")?))
}

/// The keyword `versions`: an iterable of 1 and 2.
#[derive(Clone, Copy, Default)]
pub(crate) struct Versions(pub(crate) codec::Versions);

impl FromPyObject<'_, '_> for Versions {
    type Error = PyErr;

    fn extract(versions: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let Ok(items) = versions.try_iter() else {
            return Err(error::wrong_type("versions", "an iterable of 1 and 2", &versions));
        };
        let (mut v1, mut v2) = (false, false);
        for item in items {
            match item?.extract::<u8>() {
                Ok(1) => v1 = true,
                Ok(2) => v2 = true,
                _ => return Err(invalid_versions(&versions)),
            }
        }
        match (v1, v2) {
            (true, true) => Ok(Self(codec::Versions::Both)),
            (true, false) => Ok(Self(codec::Versions::V1)),
            (false, true) => Ok(Self(codec::Versions::V2)),
            (false, false) => Err(invalid_versions(&versions)),
        }
    }
}

fn invalid_versions(versions: &Bound<'_, PyAny>) -> PyErr {
    match versions.repr() {
        Ok(given) => PyValueError::new_err(format!("versions must hold 1, 2 or both, not {given}")),
        Err(error) => error,
    }
}

/// The keyword `max_header_size`: bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct MaxHeaderSize(pub(crate) codec::MaxHeaderSize);

impl FromPyObject<'_, '_> for MaxHeaderSize {
    type Error = PyErr;

    fn extract(bytes: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let range = format!("from {} to {}", codec::MaxHeaderSize::MIN, codec::MaxHeaderSize::MAX);
        let size = error::int_argument("max_header_size", &bytes, &range)?;
        codec::MaxHeaderSize::new(size)
            .map(Self)
            .map_err(|_| error::out_of_range("max_header_size", &range, &bytes))
    }
}
