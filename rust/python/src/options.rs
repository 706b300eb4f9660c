//! The keywords that `parse`, `Decoder` and `Listener` have in common, as the codec's options.

use proxyproto_codec as codec;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;

/// The options that these keywords ask for.
pub(crate) const fn new(
    versions: Versions,
    max_header_size: MaxHeaderSize,
    allow_mixed_families: bool,
    reject_unspec: bool,
    ignore_malformed_tlvs: bool,
) -> codec::Options {
    codec::Options {
        versions: versions.0,
        max_header_size: max_header_size.0,
        allow_mixed_families,
        reject_unspec,
        ignore_malformed_tlvs,
    }
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
