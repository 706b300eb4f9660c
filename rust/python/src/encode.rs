//! Converts the arguments of `Header.v1`, `v2` and `local` for the codec's builders.

use codec::Tlv;
use proxyproto_codec as codec;
use pyo3::prelude::*;

use crate::address::Given;
use crate::enums;
use crate::error;
use crate::input::Input;

pub(crate) fn v1(source: &Bound<'_, PyAny>, destination: &Bound<'_, PyAny>) -> PyResult<codec::Header> {
    let source = Given::from_python("source", source)?;
    let destination = Given::from_python("destination", destination)?;
    codec::Header::v1(source.address(), destination.address()).map_err(error::encode)
}

pub(crate) fn v2(
    source: &Bound<'_, PyAny>,
    destination: &Bound<'_, PyAny>,
    transport: Option<&Bound<'_, PyAny>>,
    tlvs: Option<&Bound<'_, PyAny>>,
    checksum: bool,
) -> PyResult<codec::Header> {
    let source = Given::from_python("source", source)?;
    let destination = Given::from_python("destination", destination)?;
    let transport = transport.map_or(Ok(codec::Transport::Stream), enums::transport_from_python)?;
    let tlvs = Tlvs::from_python(tlvs)?;
    codec::Header::v2(source.address(), destination.address(), transport, &tlvs.borrow(), checksum)
        .map_err(error::encode)
}

pub(crate) fn local(tlvs: Option<&Bound<'_, PyAny>>, checksum: bool) -> PyResult<codec::Header> {
    codec::Header::local(&Tlvs::from_python(tlvs)?.borrow(), checksum).map_err(error::encode)
}

/// The type of a TLV; `name` is the argument's, for the error.
pub(crate) fn tlv_type(name: &str, kind: &Bound<'_, PyAny>) -> PyResult<u8> {
    error::int_argument(name, kind, "from 0 to 255")
}

/// The argument `tlvs`: an iterable of pairs of a type and its value.
struct Tlvs(Vec<(u8, Vec<u8>)>);

impl Tlvs {
    fn from_python(tlvs: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(tlvs) = tlvs else { return Ok(Self(Vec::new())) };
        let Ok(items) = tlvs.try_iter() else { return Err(not_pairs(tlvs)) };
        items.map(|item| pair(&item?)).collect::<PyResult<_>>().map(Self)
    }

    fn borrow(&self) -> Vec<Tlv<'_>> {
        self.0.iter().map(|(kind, value)| Tlv::new(*kind, value)).collect()
    }
}

fn pair(item: &Bound<'_, PyAny>) -> PyResult<(u8, Vec<u8>)> {
    let Ok((kind, value)) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
        return Err(not_pairs(item));
    };
    let kind = tlv_type("the type of a TLV", &kind)?;
    let value = Input::new("the value of a TLV", &value, usize::MAX)?;
    Ok((kind, value.as_bytes().to_vec()))
}

fn not_pairs(given: &Bound<'_, PyAny>) -> PyErr {
    error::wrong_type("tlvs", "an iterable of pairs (type, value)", given)
}
